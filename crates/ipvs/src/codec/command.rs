//! Commands of the family (`IPVS_CMD_*`).

use super::constants::*;

/// A command of the family (`IPVS_CMD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    NewService,
    SetService,
    DelService,
    GetService,
    NewDest,
    SetDest,
    DelDest,
    GetDest,
    NewDaemon,
    DelDaemon,
    GetDaemon,
    SetConfig,
    GetConfig,
    /// Only in replies to [`Command::GetInfo`].
    SetInfo,
    GetInfo,
    Zero,
    Flush,
    Other(u8),
}

impl From<Command> for u8 {
    fn from(command: Command) -> Self {
        match command {
            Command::NewService => CMD_NEW_SERVICE,
            Command::SetService => CMD_SET_SERVICE,
            Command::DelService => CMD_DEL_SERVICE,
            Command::GetService => CMD_GET_SERVICE,
            Command::NewDest => CMD_NEW_DEST,
            Command::SetDest => CMD_SET_DEST,
            Command::DelDest => CMD_DEL_DEST,
            Command::GetDest => CMD_GET_DEST,
            Command::NewDaemon => CMD_NEW_DAEMON,
            Command::DelDaemon => CMD_DEL_DAEMON,
            Command::GetDaemon => CMD_GET_DAEMON,
            Command::SetConfig => CMD_SET_CONFIG,
            Command::GetConfig => CMD_GET_CONFIG,
            Command::SetInfo => CMD_SET_INFO,
            Command::GetInfo => CMD_GET_INFO,
            Command::Zero => CMD_ZERO,
            Command::Flush => CMD_FLUSH,
            Command::Other(number) => number,
        }
    }
}

impl From<u8> for Command {
    fn from(number: u8) -> Self {
        match number {
            CMD_NEW_SERVICE => Self::NewService,
            CMD_SET_SERVICE => Self::SetService,
            CMD_DEL_SERVICE => Self::DelService,
            CMD_GET_SERVICE => Self::GetService,
            CMD_NEW_DEST => Self::NewDest,
            CMD_SET_DEST => Self::SetDest,
            CMD_DEL_DEST => Self::DelDest,
            CMD_GET_DEST => Self::GetDest,
            CMD_NEW_DAEMON => Self::NewDaemon,
            CMD_DEL_DAEMON => Self::DelDaemon,
            CMD_GET_DAEMON => Self::GetDaemon,
            CMD_SET_CONFIG => Self::SetConfig,
            CMD_GET_CONFIG => Self::GetConfig,
            CMD_SET_INFO => Self::SetInfo,
            CMD_GET_INFO => Self::GetInfo,
            CMD_ZERO => Self::Zero,
            CMD_FLUSH => Self::Flush,
            other => Self::Other(other),
        }
    }
}
