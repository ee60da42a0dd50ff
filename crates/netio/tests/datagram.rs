//! UDP sockets, while their addresses come and go.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::{TestNs, soon, wire};
use lightship_netio::bind_datagram;
use socket2::SockRef;
use tokio::net::UdpSocket;

const PORT: u16 = 7733;

/// A socket in another namespace, for the runtime of this thread.
async fn bound(ns: &TestNs, at: SocketAddr) -> UdpSocket {
    let opened = lightship_netio::run_in(&ns.ns, || bind_datagram(at).unwrap()).unwrap();
    let socket = UdpSocket::from_std(opened).unwrap();
    // A socket that the runtime has not seen yet refuses `try_send_to`.
    socket.writable().await.unwrap();
    socket
}

#[tokio::test]
async fn a_socket_outlives_its_address_and_has_room() {
    let (near, far) = wire().await;
    far.ip("addr add 192.0.2.12/24 dev eth0");
    far.ip("addr add 2001:db8:2::12/64 dev eth0 nodad");
    for (own, other, prefix) in [
        ("192.0.2.11", "192.0.2.12", "24"),
        ("2001:db8:2::11", "2001:db8:2::12", "64 nodad"),
    ] {
        let at = |ip: &str| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), PORT);
        let receiver = bound(&far, at(other)).await;
        // Before there is such an address.
        let sender = bound(&near, at(own)).await;
        let room = SockRef::from(&sender).recv_buffer_size().unwrap();
        assert!(room >= 4 << 20, "{own}: {room}");
        assert!(sender.try_send_to(b"too early", at(other)).is_err());
        for round in 0..2_u8 {
            near.ip(&format!("addr add {own}/{prefix} dev eth0"));
            let mut got = [0; 16];
            let began = Instant::now();
            let from = loop {
                // The route comes with the address; the neighbour has to be asked for first.
                let _ = sender.try_send_to(&[round], at(other));
                let wait = receiver.recv_from(&mut got);
                match tokio::time::timeout(Duration::from_millis(100), wait).await {
                    Ok(received) if got[0] == round => break received.unwrap().1,
                    _ => assert!(
                        began.elapsed() < Duration::from_secs(10),
                        "{own}: not heard"
                    ),
                }
            };
            assert_eq!(from, at(own));
            soon("the answer", async {
                receiver.send_to(b"back", from).await.unwrap();
                sender.recv_from(&mut got).await.unwrap()
            })
            .await;
            near.ip(&format!("addr flush dev eth0 to {own}"));
            assert!(sender.try_send_to(b"gone", at(other)).is_err(), "{own}");
        }
    }
}
