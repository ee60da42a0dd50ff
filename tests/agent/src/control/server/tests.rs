//! The server against a plain blocking client, on the loopback.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

use super::*;
use crate::control::frame;

/// Starts one session and gives the client's end after sending `request`.
fn ask(request: &Request) -> TcpStream {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { session(from_std(stream)).await.unwrap() });
    });
    let mut stream = TcpStream::connect(address).unwrap();
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    stream.write_all(&line).unwrap();
    stream
}

fn from_std(stream: TcpStream) -> tokio::net::TcpStream {
    tokio::net::TcpStream::from_std(stream).unwrap()
}

fn shell(script: &str) -> Request {
    Request::Exec {
        argv: ["sh", "-c", script].map(String::from).to_vec(),
        env: BTreeMap::from([("WHO".into(), "lab".into())]),
    }
}

/// Output, errors and the last frame.
fn collect(stream: &mut TcpStream) -> (String, String, Frame) {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        match frame::read(stream).unwrap() {
            (Kind::Stdout, bytes) => output.extend(bytes),
            (Kind::Stderr, bytes) => errors.extend(bytes),
            last => {
                return (
                    String::from_utf8(output).unwrap(),
                    String::from_utf8(errors).unwrap(),
                    last,
                );
            }
        }
    }
}

#[test]
fn a_command_has_its_streams_and_its_exit_code() {
    let mut stream = ask(&shell("tr a-z A-Z; echo $WHO >&2; exit 7"));
    frame::write(&mut stream, Kind::Stdin, b"hello").unwrap();
    frame::write(&mut stream, Kind::Stdin, b"").unwrap();
    let (output, errors, last) = collect(&mut stream);
    assert_eq!((output.as_str(), errors.as_str()), ("HELLO", "lab\n"));
    assert_eq!(last, (Kind::Exit, 7u32.to_be_bytes().to_vec()));
}

#[test]
fn a_killed_command_shows_its_signal() {
    let (_, _, last) = collect(&mut ask(&shell("kill -9 $$")));
    assert_eq!(last, (Kind::Exit, 137u32.to_be_bytes().to_vec()));
}

#[test]
fn a_missing_program_is_an_error_with_its_name() {
    let request = Request::Exec {
        argv: vec!["/no/such/program".into()],
        env: BTreeMap::new(),
    };
    let (_, _, (kind, why)) = collect(&mut ask(&request));
    assert_eq!(kind, Kind::Error);
    assert!(String::from_utf8(why).unwrap().contains("/no/such/program"));
}

#[test]
fn the_clock_is_this_machines() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (output, _, last) = collect(&mut ask(&Request::Clock));
    let clock: Clock = serde_json::from_str(&output).unwrap();
    assert!(u128::from(clock.realtime_ns) >= before.as_nanos());
    assert_eq!(last.0, Kind::Exit);
}
