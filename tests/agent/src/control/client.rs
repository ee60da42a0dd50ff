//! `ctl`: the lab's side of the control socket. Blocking and without a runtime: it starts often.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::frame::{self, Kind};
use super::{Clock, Request};

/// Arguments of `ctl`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node's control address.
    address: SocketAddr,
    /// Give up when no connection stands after so many milliseconds.
    #[arg(long, default_value_t = 3000)]
    connect_timeout_ms: u64,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command on the node, with this process's streams and its exit code.
    Exec {
        /// Add NAME=VALUE to the command's environment.
        #[arg(long, value_parser = parse_env)]
        env: Vec<(String, String)>,
        /// Give the command no standard input.
        #[arg(long)]
        no_stdin: bool,
        /// Program and arguments.
        #[arg(trailing_var_arg = true, required = true)]
        argv: Vec<String>,
    },
    /// Print the node's clock and how far it is from this machine's.
    Clock,
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the subcommand; the exit code is the remote command's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let stream = TcpStream::connect_timeout(
        &args.address,
        Duration::from_millis(args.connect_timeout_ms),
    )
    .with_context(|| format!("the node does not answer on {}", args.address))?;
    stream.set_nodelay(true)?;
    match &args.action {
        Action::Exec {
            env,
            no_stdin,
            argv,
        } => {
            let env: BTreeMap<_, _> = env.iter().cloned().collect();
            let argv = argv.clone();
            exec(stream, &Request::Exec { argv, env }, *no_stdin)
        }
        Action::Clock => clock(stream),
    }
}

fn send(stream: &mut TcpStream, request: &Request) -> Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(())
}

fn exec(mut stream: TcpStream, request: &Request, no_stdin: bool) -> Result<ExitCode> {
    send(&mut stream, request)?;
    let mut input = stream.try_clone()?;
    if no_stdin {
        frame::write(&mut input, Kind::Stdin, b"")?;
    } else {
        // Not joined: it may sit in a read of a terminal when the command has ended.
        thread::spawn(move || send_stdin(&mut input));
    }
    loop {
        match frame::read(&mut stream).context("the node broke off")? {
            (Kind::Stdout, bytes) => emit(&mut io::stdout().lock(), &bytes)?,
            (Kind::Stderr, bytes) => emit(&mut io::stderr().lock(), &bytes)?,
            (Kind::Exit, code) => return Ok(exit_code(&code)),
            (Kind::Error, why) => bail!("{}", String::from_utf8_lossy(&why)),
            (Kind::Stdin, _) => bail!("the node sent input"),
        }
    }
}

fn send_stdin(to: &mut TcpStream) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = stdin.read(&mut buffer)?;
        frame::write(to, Kind::Stdin, &buffer[..length])?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn emit(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn exit_code(payload: &[u8]) -> ExitCode {
    payload
        .try_into()
        .map(u32::from_be_bytes)
        .ok()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

fn clock(mut stream: TcpStream) -> Result<ExitCode> {
    let before = SystemTime::now();
    send(&mut stream, &Request::Clock)?;
    let (kind, bytes) = frame::read(&mut stream)?;
    let round_trip = before.elapsed()?;
    if kind != Kind::Stdout {
        bail!("{}", String::from_utf8_lossy(&bytes));
    }
    let clock: Clock = serde_json::from_slice(&bytes)?;
    let middle = before.duration_since(UNIX_EPOCH)? + round_trip / 2;
    let ahead = i128::from(clock.realtime_ns) - i128::try_from(middle.as_nanos())?;
    println!(
        "{}",
        serde_json::json!({
            "realtime_ns": clock.realtime_ns,
            "uptime": clock.uptime,
            "ahead_us": ahead / 1000,
            "round_trip_us": round_trip.as_micros(),
        })
    );
    Ok(ExitCode::SUCCESS)
}
