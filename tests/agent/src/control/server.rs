//! The node's side of the control socket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use super::frame::{Kind, parse_header};
use super::{Clock, Request};

/// Frames that may wait for a slow client before the command is held up.
const QUEUE: usize = 64;

/// Longest request line: arguments of a command, not data.
const MAX_REQUEST: u64 = 1 << 20;

type Frame = (Kind, Vec<u8>);

/// Serves requests on `address` until the process ends.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for the lab"))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = session(stream).await {
                        tracing::warn!("control session: {error:#}");
                    }
                });
            }
            Err(error) => tracing::warn!("control socket: {error}"),
        }
    }
}

async fn session(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    (&mut read).take(MAX_REQUEST).read_line(&mut line).await?;
    let (frames, queue) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write_frames(write, queue));
    let last = match serde_json::from_str(&line) {
        Ok(Request::Exec { argv, env }) => exec(&argv, env, read, &frames).await,
        Ok(Request::Clock) => clock(&frames).await,
        Err(error) => Err(anyhow::anyhow!("not a request: {error}")),
    };
    let last = match last {
        Ok(code) => (Kind::Exit, code.to_be_bytes().to_vec()),
        Err(error) => (Kind::Error, format!("{error:#}").into_bytes()),
    };
    let _ = frames.send(last).await;
    drop(frames);
    writer.await??;
    Ok(())
}

async fn write_frames(
    mut to: tcp::OwnedWriteHalf,
    mut queue: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some((kind, payload)) = queue.recv().await {
        to.write_all(&kind.header(payload.len())).await?;
        to.write_all(&payload).await?;
    }
    to.shutdown().await
}

async fn clock(frames: &mpsc::Sender<Frame>) -> Result<u32> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let clock = Clock {
        realtime_ns: u64::try_from(now)?,
        uptime: uptime
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    frames
        .send((Kind::Stdout, serde_json::to_vec(&clock)?))
        .await?;
    Ok(0)
}

async fn exec(
    argv: &[String],
    env: std::collections::BTreeMap<String, String>,
    from: BufReader<tcp::OwnedReadHalf>,
    frames: &mpsc::Sender<Frame>,
) -> Result<u32> {
    let (program, arguments) = argv.split_first().context("no command given")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let stdin = child.stdin.take().context("no standard input")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let output = tokio::spawn(forward(stdout, Kind::Stdout, frames.clone()));
    let errors = tokio::spawn(forward(stderr, Kind::Stderr, frames.clone()));
    let mut input = tokio::spawn(feed(from, stdin));
    let mut input_open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            // The client went away: what it started goes too.
            gone = &mut input, if input_open => {
                input_open = false;
                if matches!(gone, Ok(Err(_))) {
                    child.start_kill()?;
                }
            }
        }
    };
    input.abort();
    output.await?;
    errors.await?;
    Ok(exit_code(status))
}

/// Copies the client's input frames to the command. An error means that the
/// connection broke; a command that closed its input is no error.
async fn feed(mut from: BufReader<tcp::OwnedReadHalf>, stdin: ChildStdin) -> io::Result<()> {
    let mut stdin = Some(stdin);
    let mut payload = Vec::new();
    loop {
        let mut header = [0; 5];
        from.read_exact(&mut header).await?;
        let (_, length) = parse_header(header)?;
        payload.resize(length, 0);
        from.read_exact(&mut payload).await?;
        if payload.is_empty() {
            stdin = None;
        } else if let Some(pipe) = &mut stdin
            && pipe.write_all(&payload).await.is_err()
        {
            stdin = None;
        }
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, kind: Kind, frames: mpsc::Sender<Frame>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if frames
            .send((kind, buffer[..length].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The code that a shell would show.
fn exit_code(status: ExitStatus) -> u32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code.unsigned_abs(),
        (None, Some(signal)) => 128 + signal.unsigned_abs(),
        (None, None) => 255,
    }
}

#[cfg(test)]
mod tests;
