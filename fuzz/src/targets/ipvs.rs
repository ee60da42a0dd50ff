//! What the kernel answers about IPVS, over generic netlink.

use lightship_ipvs::Family;
use lightship_ipvs::codec::{Payload, encode, frames};

use super::{Target, kind};

pub(super) const TARGET: Target = Target {
    name: "ipvs",
    run,
    repair: |buffer| repair(buffer),
    seeds,
};

/// Captured from `ipvsadm` and Linux.
const CAPTURES: &str = include_str!("../../../crates/ipvs/tests/fixtures/ipvsadm.txt");

fn run(buffer: &[u8]) -> String {
    let mut did = String::new();
    for frame in frames(buffer).take(4) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                did += &kind(error.to_string());
                break;
            }
        };
        match &frame.payload {
            Payload::Ack { errno, message } | Payload::Done { errno, message } => {
                assert!(*errno >= 0);
                did += &format!("end {} {} ", *errno != 0, message.is_some());
            }
            Payload::Overrun | Payload::Noop => did += "other ",
            Payload::Data(_) => did += &data(&frame.payload),
        }
    }
    did
}

fn data(payload: &Payload) -> String {
    let message = match payload.ipvs() {
        Ok(message) => message,
        Err(error) => return kind(error.to_string()),
    };
    // Everything that the client might take it for.
    let service = message.service();
    let destinations = [Family::V4, Family::V6].map(|family| message.destination(family).is_ok());
    let facts = (service.is_ok(), destinations, message.info().is_ok());
    let _ = message.timeouts();
    // What was understood can be said again, and is understood the same.
    let again = encode(message.clone(), 0x1c, 0, 1);
    let again = frames(&again).next().expect("a message");
    let again = again
        .expect("a whole one")
        .payload
        .ipvs()
        .expect("own messages are understood");
    assert_eq!(again.service().ok(), service.ok());
    assert_eq!(again.info().ok(), message.info().ok());
    format!("{facts:?} ")
}

/// The length of the first message, which the kernel always gets right.
fn repair(buffer: &mut [u8]) {
    if buffer.len() >= 16 {
        let length = u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        if length < 16 || length > buffer.len() {
            let whole = buffer.len() as u32;
            buffer[..4].copy_from_slice(&whole.to_ne_bytes());
        }
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let lines = CAPTURES
        .lines()
        .filter(|line| !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let mut seen = std::collections::BTreeSet::new();
    let datagrams = lines.map(|line| {
        line.as_bytes()
            .chunks(2)
            .map(|pair| {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                pair.iter().fold(0, |sum, byte| sum << 4 | digit(*byte))
            })
            .collect::<Vec<u8>>()
    });
    // One of each command and rough length.
    let kinds = datagrams.filter(|d| d.len() > 16 && seen.insert((d[16], d[4], d.len() / 64)));
    kinds
        .enumerate()
        .map(|(n, datagram)| (format!("capture-{n:02}"), datagram))
        .collect()
}
