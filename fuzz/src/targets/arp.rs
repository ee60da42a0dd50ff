//! ARP frames from the LAN.

use lightship_frames::Mac;
use lightship_frames::arp::{self, ArpOp};

use super::{Target, kind};

pub(super) const TARGET: Target = Target {
    name: "arp",
    run,
    repair: |_| {},
    seeds,
};

fn run(frame: &[u8]) -> String {
    let packet = match arp::parse(frame) {
        Ok(packet) => packet,
        Err(error) => return kind(error),
    };
    if packet.op == ArpOp::Reply {
        // What was understood can be said again.
        let again = arp::reply(
            packet.sender_mac,
            packet.sender_ip,
            packet.target_mac,
            packet.target_ip,
        );
        let again = arp::parse(&again).expect("own frames are understood");
        assert_eq!(
            (
                again.sender_mac,
                again.sender_ip,
                again.target_mac,
                again.target_ip
            ),
            (
                packet.sender_mac,
                packet.sender_ip,
                packet.target_mac,
                packet.target_ip
            ),
        );
    }
    let forms = (packet.op, packet.is_probe(), packet.is_gratuitous());
    format!("{forms:?}")
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let (us, them) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let (vip, client) = ([192, 0, 2, 200].into(), [192, 0, 2, 100].into());
    let mut padded = arp::reply(us, vip, them, client);
    padded.resize(60, 0);
    let seeds = [
        ("request", arp::probe_request(them, client, vip, None)),
        (
            "request-unicast",
            arp::probe_request(them, client, vip, Some(us)),
        ),
        ("probe", arp::probe_request(them, [0; 4].into(), vip, None)),
        ("gratuitous-request", arp::gratuitous_request(us, vip)),
        ("gratuitous-reply", arp::gratuitous_reply(us, vip)),
        ("reply-padded", padded),
    ];
    seeds.map(|(name, frame)| (name.to_owned(), frame)).into()
}
