//! Frames of the control socket: one byte of kind, four of length (big endian),
//! then that many bytes.

use std::io::{self, Read, Write};

/// Longest payload that is accepted: above what a pipe gives at once, and small
/// enough that a stray client cannot make us allocate much.
pub(crate) const MAX: usize = 1 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Standard input of the command; empty: end of it.
    Stdin,
    /// Standard output of the command.
    Stdout,
    /// Standard error of the command.
    Stderr,
    /// Exit code: four bytes, big endian; 128 + signal when it was killed. The last frame.
    Exit,
    /// The request failed; the payload says why. The last frame.
    Error,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Exit,
            4 => Self::Error,
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("unknown frame kind {other}"),
                ));
            }
        })
    }

    /// The frame's first five bytes.
    pub(crate) fn header(self, length: usize) -> [u8; 5] {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let kind = match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Exit => 3,
            Self::Error => 4,
        };
        [kind, length[0], length[1], length[2], length[3]]
    }
}

/// Reads a header: the kind and the payload's length.
pub(crate) fn parse_header(header: [u8; 5]) -> io::Result<(Kind, usize)> {
    let [kind, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes is too long"),
        ));
    }
    Ok((Kind::from_byte(kind)?, length))
}

/// Writes one frame.
pub(crate) fn write(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.extend_from_slice(&kind.header(payload.len()));
    bytes.extend_from_slice(payload);
    to.write_all(&bytes)?;
    to.flush()
}

/// Reads one frame.
pub(crate) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; 5];
    from.read_exact(&mut header)?;
    let (kind, length) = parse_header(header)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Stdout, b"hello").unwrap();
        write(&mut wire, Kind::Exit, &7u32.to_be_bytes()).unwrap();
        write(&mut wire, Kind::Stdin, b"").unwrap();
        assert_eq!(&wire[..10], b"\x01\x00\x00\x00\x05hello");
        let mut wire = wire.as_slice();
        assert_eq!(read(&mut wire).unwrap(), (Kind::Stdout, b"hello".to_vec()));
        assert_eq!(read(&mut wire).unwrap(), (Kind::Exit, vec![0, 0, 0, 7]));
        assert_eq!(read(&mut wire).unwrap(), (Kind::Stdin, vec![]));
        assert_eq!(
            read(&mut wire).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(read(&mut [9, 0, 0, 0, 0].as_slice()).is_err());
        assert!(read(&mut [1, 0xff, 0, 0, 0].as_slice()).is_err());
    }
}
