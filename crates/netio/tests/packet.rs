//! The packet socket, over a veth pair.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::{MAC_A, MAC_B, MAC_DIRECTOR, TestNs, run, soon, wire};
use lightship_frames::{Mac, arp, ndp};
use lightship_netio::{
    Error, Filter, Macvlan, PacketMeta, PacketSocket, PacketType, Route, Watched, run_in,
};
use socket2::{Domain, Socket, Type};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x200);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x100);

async fn socket(ns: &TestNs, filter: Filter) -> PacketSocket {
    PacketSocket::open_in(&ns.ns, ns.index("eth0").await, filter).unwrap()
}

async fn next(socket: &PacketSocket) -> (Vec<u8>, PacketMeta) {
    let mut buf = [0; 2048];
    let (len, meta) = soon("a frame", socket.recv(&mut buf)).await.unwrap();
    (buf[..len].to_vec(), meta)
}

/// The next ARP packet that is about `ip`.
async fn next_arp(socket: &PacketSocket, ip: Ipv4Addr) -> (arp::Arp, PacketMeta) {
    loop {
        let (frame, meta) = next(socket).await;
        match arp::parse(&frame) {
            Ok(arp) if arp.target_ip == ip || arp.sender_ip == ip => return (arp, meta),
            _ => {}
        }
    }
}

/// Asserts that nothing comes for a while.
async fn silence(socket: &PacketSocket) {
    let mut buf = [0; 2048];
    let wait = tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buf));
    if let Ok(got) = wait.await {
        let (len, meta) = got.unwrap();
        panic!("{meta:?}: {:02x?}", &buf[..len]);
    }
}

/// Has the kernel of `ns` send a datagram, for which it must find the MAC of `to`.
fn send_udp(ns: &TestNs, from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
    udp(ns, from).send_to(b"x", (to.into(), 9)).unwrap();
}

fn udp(ns: &TestNs, at: impl Into<IpAddr>) -> UdpSocket {
    let at = SocketAddr::new(at.into(), 0);
    let socket = run_in(&ns.ns, || {
        Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap()
    })
    .unwrap();
    // A local route alone is no address to bind to for IPv6.
    if at.is_ipv6() {
        socket.set_freebind_v6(true).unwrap();
    }
    socket.bind(&at.into()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.into()
}

/// What the neighbour table of `ns` says of `ip`.
fn lladdr(ns: &TestNs, ip: impl Into<IpAddr>) -> Option<String> {
    let ip: IpAddr = ip.into();
    let seen = ns.ip_json(&format!("neigh show {ip}"));
    Some(seen.first()?["lladdr"].as_str()?.to_owned())
}

#[tokio::test]
async fn an_arp_request_is_heard_and_answered() {
    let (speaker, client) = wire().await;
    client.ip("addr add 192.0.2.100/24 dev eth0");
    let socket = socket(&speaker, Filter::Arp).await;

    // The client's own kernel asks and takes the answer.
    send_udp(&client, CLIENT, VIP);
    let (request, meta) = next_arp(&socket, VIP).await;
    assert_eq!(request.op, arp::ArpOp::Request);
    assert_eq!(
        (request.sender_mac, request.sender_ip, request.target_ip),
        (MAC_B, CLIENT, VIP)
    );
    assert_eq!(meta.pkttype, PacketType::Broadcast);
    assert_eq!(meta.ifindex, socket.ifindex());
    let answer = arp::reply(MAC_DIRECTOR, VIP, request.sender_mac, request.sender_ip);
    socket.send(&answer).await.unwrap();

    soon("the client's neighbour entry", async {
        while lladdr(&client, VIP) != Some(MAC_DIRECTOR.to_string()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    // A gratuitous ARP of either form moves the entry at once.
    for (mac, frame) in [
        (MAC_A, arp::gratuitous_reply(MAC_A, VIP)),
        (MAC_DIRECTOR, arp::gratuitous_reply(MAC_DIRECTOR, VIP)),
        (MAC_A, arp::gratuitous_request(MAC_A, VIP)),
    ] {
        // Both forms are within a second of the first answer: locktime holds back the
        // request form until it is over.
        if arp::parse(&frame).unwrap().op == arp::ArpOp::Request {
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        socket.send(&frame).await.unwrap();
        soon("the move", async {
            while lladdr(&client, VIP) != Some(mac.to_string()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_neighbour_solicitation_is_heard_and_answered() {
    let (speaker, client) = wire().await;
    client.ip("addr add 2001:db8:2::100/64 dev eth0 nodad");
    let socket = socket(&speaker, Filter::ArpAndNdp).await;
    send_udp(&client, CLIENT6, VIP6);
    let solicitor = soon("the solicitation", async {
        loop {
            let (frame, _) = next(&socket).await;
            // The client's duplicate address detection is heard too.
            if let Ok(ndp::Ndp::Solicitation {
                target,
                src,
                source_ll,
                ..
            }) = ndp::parse(&frame)
                && target == VIP6
            {
                return (src, source_ll);
            }
        }
    })
    .await;
    assert_eq!(solicitor, (CLIENT6, Some(MAC_B)));
    socket
        .send(&ndp::solicited_na(MAC_DIRECTOR, VIP6, VIP6, MAC_B, CLIENT6))
        .await
        .unwrap();
    soon("the client's neighbour entry", async {
        while lladdr(&client, VIP6) != Some(MAC_DIRECTOR.to_string()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    // An unsolicited advertisement with the override flag moves the entry.
    socket
        .send(&ndp::unsolicited_na(MAC_A, VIP6, VIP6))
        .await
        .unwrap();
    soon("the move", async {
        while lladdr(&client, VIP6) != Some(MAC_A.to_string()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn frames_to_a_macvlan_above_are_heard_below() {
    let (speaker, client) = wire().await;
    let director = TestNs::new("dir");
    let parent = speaker.index("eth0").await;
    let spec = Macvlan {
        name: "ls-dir".to_owned(),
        mac: MAC_DIRECTOR,
        parent,
    };
    speaker
        .rtnl()
        .create_macvlan(&spec, Some(&director.ns))
        .await
        .unwrap();
    director.ip("link set ls-dir up");
    let (ear, mouth) = (
        socket(&speaker, Filter::ArpAndNdp).await,
        socket(&client, Filter::ArpAndNdp).await,
    );
    // Unicast to the director MAC: what a client sends to refresh its entry.
    let frame = arp::probe_request(MAC_B, CLIENT, VIP, Some(MAC_DIRECTOR));
    mouth.send(&frame).await.unwrap();
    let (heard, meta) = next_arp(&ear, VIP).await;
    assert_eq!(heard.eth_dst, MAC_DIRECTOR);
    assert_eq!(meta.pkttype, PacketType::OtherHost);

    let frame = ndp::neighbor_solicitation(MAC_B, CLIENT6, VIP6, Some(MAC_DIRECTOR));
    mouth.send(&frame).await.unwrap();
    let found = soon("the unicast solicitation", async {
        loop {
            let (frame, meta) = next(&ear).await;
            if let Ok(ndp::Ndp::Solicitation { dst, target, .. }) = ndp::parse(&frame)
                && target == VIP6
            {
                return (dst, meta.pkttype);
            }
        }
    })
    .await;
    assert_eq!(found, (VIP6, PacketType::OtherHost));
}

#[tokio::test]
async fn own_frames_are_not_heard() {
    let (speaker, client) = wire().await;
    let socket_a = socket(&speaker, Filter::Arp).await;
    let socket_b = socket(&client, Filter::Arp).await;
    socket_a
        .send(&arp::gratuitous_request(MAC_DIRECTOR, VIP))
        .await
        .unwrap();
    let (heard, _) = next_arp(&socket_b, VIP).await;
    assert!(heard.is_gratuitous());
    silence(&socket_a).await;
}

#[tokio::test]
async fn only_the_wanted_protocols_come_through() {
    let (speaker, client) = wire().await;
    let arp_only = socket(&speaker, Filter::Arp).await;
    let both = socket(&speaker, Filter::ArpAndNdp).await;
    let mouth = socket(&client, Filter::Arp).await;
    // The kernels' own router solicitations and MLD reports are on the wire as well.
    let na = ndp::unsolicited_na(MAC_B, VIP6, VIP6);
    let ns = ndp::neighbor_solicitation(MAC_B, CLIENT6, VIP6, None);
    let mut echo = na.clone();
    echo[54] = 128;
    let mut udp = na.clone();
    udp[20] = 17;
    let mut ipv4 = na.clone();
    ipv4[12..14].copy_from_slice(&[0x08, 0x00]);
    let short = arp::gratuitous_reply(MAC_B, VIP)[..20].to_vec();
    let runt = na[..54].to_vec();
    for frame in [&echo, &udp, &ipv4, &runt, &na, &ns] {
        mouth.send(frame).await.unwrap();
    }
    let garp = arp::gratuitous_reply(MAC_B, VIP);
    mouth.send(&short).await.unwrap();
    mouth.send(&garp).await.unwrap();

    let mut heard = Vec::new();
    while heard.last() != Some(&garp) {
        let (frame, _) = next(&both).await;
        // Leave out what the kernels say of their link-local addresses.
        if frame[6..12] == MAC_B.0
            && (frame.len() < 78 || frame[62..66] == [0x20, 0x01, 0x0d, 0xb8])
        {
            heard.push(frame);
        }
    }
    assert_eq!(heard, [na, ns, short.clone(), garp.clone()]);
    assert_eq!(next(&arp_only).await.0, short);
    assert_eq!(next(&arp_only).await.0, garp);
}

/// Watches these for questions and claims.
fn watched(addresses: impl IntoIterator<Item = IpAddr>) -> Watched {
    let asked: std::collections::BTreeSet<IpAddr> = addresses.into_iter().collect();
    Watched {
        claimed: asked.clone(),
        asked,
    }
}

fn questions(n: u32) -> [(IpAddr, Vec<u8>); 2] {
    let v4 = Ipv4Addr::from_bits(u32::from(VIP) + n);
    let v6 = Ipv6Addr::from_bits(u128::from(VIP6) + u128::from(n));
    [
        (v4.into(), arp::probe_request(MAC_B, CLIENT, v4, None)),
        (
            v6.into(),
            ndp::neighbor_solicitation(MAC_B, CLIENT6, v6, None),
        ),
    ]
}

#[tokio::test]
async fn only_frames_about_the_watched_addresses_come_through() {
    let (speaker, client) = wire().await;
    // Else its kernel solicits for its own link-local address, at a moment of its choice: while the
    // filter by protocol is in place between two others, that would come through.
    run(
        "ip",
        &format!(
            "netns exec {} sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
            client.name
        ),
    );
    let ear = socket(&speaker, Filter::ArpAndNdp).await;
    let mouth = socket(&client, Filter::Arp).await;
    // 1,000 of them, half of each family, and no two adjacent.
    let vips = (0..500).map(|n| 2 * n);
    let vips: Vec<IpAddr> = vips
        .flat_map(|n| questions(n).map(|(vip, _)| vip))
        .collect();
    ear.watch(&watched(vips.clone())).unwrap();
    let mut wanted = Vec::new();
    for (address, frame) in (0..1000).flat_map(questions) {
        mouth.send(&frame).await.unwrap();
        if vips.contains(&address) {
            wanted.push(frame);
        }
    }
    for frame in wanted {
        assert_eq!(next(&ear).await.0, frame);
    }
    silence(&ear).await;

    // Changed time and again, it misses nothing that is wanted all the while.
    let (kept, _) = questions(0)[0].clone();
    let garp = arp::gratuitous_reply(MAC_B, VIP);
    for round in 1..200 {
        let more = (0..round).map(|n| questions(2 * n + 1)[0].0);
        mouth.send(&garp).await.unwrap();
        ear.watch(&watched(more.chain([kept]))).unwrap();
        mouth.send(&garp).await.unwrap();
    }
    for _ in 1..200 {
        assert_eq!(next(&ear).await.0, garp);
        assert_eq!(next(&ear).await.0, garp);
    }
    // What is watched no more is heard no more.
    ear.watch(&Watched::default()).unwrap();
    mouth.send(&garp).await.unwrap();
    silence(&ear).await;
}

#[tokio::test]
async fn frames_of_a_vlan_are_not_heard() {
    let (speaker, client) = wire().await;
    let ear = socket(&speaker, Filter::ArpAndNdp).await;
    let mouth = socket(&client, Filter::Arp).await;
    // The kernel takes the tag off before taps see the frame: by its bytes it could not
    // be told from one of the untagged segment.
    let tagged = |tci: [u8; 2], frame: Vec<u8>| {
        let tag = [0x81, 0x00, tci[0], tci[1]];
        [&frame[..12], &tag, &frame[12..]].concat()
    };
    for frame in [
        tagged([0, 100], arp::gratuitous_reply(MAC_DIRECTOR, VIP)),
        tagged([0x60, 1], arp::gratuitous_reply(MAC_DIRECTOR, VIP)),
        tagged([0, 100], ndp::unsolicited_na(MAC_DIRECTOR, VIP6, VIP6)),
    ] {
        mouth.send(&frame).await.unwrap();
    }
    // VLAN 0 is no VLAN: the tag only carries a priority.
    mouth
        .send(&tagged([0x60, 0], arp::gratuitous_request(MAC_B, VIP)))
        .await
        .unwrap();
    mouth
        .send(&arp::gratuitous_reply(MAC_A, VIP))
        .await
        .unwrap();
    for mac in [MAC_B, MAC_A] {
        let (heard, _) = next_arp(&ear, VIP).await;
        assert_eq!(heard.sender_mac, mac);
    }
}

#[tokio::test]
async fn down_and_up_again() {
    let (speaker, client) = wire().await;
    let (ear, mouth) = (
        socket(&speaker, Filter::Arp).await,
        socket(&client, Filter::Arp).await,
    );
    speaker.ip("link set eth0 down");
    let mut buf = [0; 128];
    let e = soon("the error", ear.recv(&mut buf)).await.unwrap_err();
    assert!(e.is_retryable(), "{e}");
    assert!(e.to_string().contains("receive on interface"), "{e}");
    let e = ear
        .send(&arp::gratuitous_reply(MAC_A, VIP))
        .await
        .unwrap_err();
    assert!(e.is_retryable(), "{e}");

    speaker.ip("link set eth0 up");
    soon("a frame after the link came back", async {
        loop {
            // The far end may not have its carrier back yet.
            let _ = mouth.send(&arp::gratuitous_reply(MAC_B, VIP)).await;
            let wait = tokio::time::timeout(Duration::from_millis(50), ear.recv(&mut buf));
            if let Ok(Ok((len, _))) = wait.await
                && arp::parse(&buf[..len]).is_ok_and(|a| a.sender_ip == VIP)
            {
                return;
            }
        }
    })
    .await;

    speaker.ip("link del eth0");
    let e = loop {
        match ear.send(&arp::gratuitous_reply(MAC_A, VIP)).await {
            Err(e) if e.is_retryable() => {}
            Err(e) => break e,
            Ok(()) => panic!("sent on an interface that is gone"),
        }
    };
    assert!(e.is_not_found(), "{e}");
}

#[tokio::test]
async fn interfaces_that_are_not_there() {
    let ns = TestNs::new("none");
    for index in [0, 4711, u32::MAX] {
        let e: Error = PacketSocket::open_in(&ns.ns, index, Filter::Arp).unwrap_err();
        assert!(e.is_not_found(), "{e}");
    }
}

#[tokio::test]
async fn a_burst_is_not_lost() {
    let (speaker, client) = wire().await;
    let (ear, mouth) = (
        socket(&speaker, Filter::Arp).await,
        socket(&client, Filter::Arp).await,
    );
    // All sent before the first is received.
    for n in 0..2000_u32 {
        let ip = Ipv4Addr::from_bits(u32::from(VIP) & 0xffff_0000 | n);
        mouth
            .send(&arp::probe_request(MAC_B, CLIENT, ip, None))
            .await
            .unwrap();
    }
    for n in 0..2000_u32 {
        let (frame, _) = next(&ear).await;
        assert_eq!(arp::parse(&frame).unwrap().target_ip.to_bits() & 0xffff, n);
    }
}

#[tokio::test]
async fn without_waiting() {
    let (speaker, client) = wire().await;
    let (ear, mouth) = (
        socket(&speaker, Filter::Arp).await,
        socket(&client, Filter::Arp).await,
    );
    let mut buf = [0; 128];
    let frames: Vec<Vec<u8>> = (0..4)
        .map(|n| arp::gratuitous_reply(MAC_B, Ipv4Addr::from_bits(VIP.to_bits() + n)).to_vec())
        .collect();
    for frame in &frames {
        mouth.try_send(frame).unwrap();
    }
    let (length, meta) = ear.recv(&mut buf).await.unwrap();
    assert_eq!(meta.pkttype, PacketType::Broadcast);
    let mut passed = Vec::new();
    ear.pass(length, &mut buf, 3, |frame| passed.push(frame.to_vec()));
    assert_eq!(passed, frames[..3]);
    // What is beyond the limit stays, and of what is not there nothing is passed.
    let (length, _) = ear.recv(&mut buf).await.unwrap();
    ear.pass(length, &mut buf, 3, |frame| passed.push(frame.to_vec()));
    assert_eq!(passed, frames);
    // The readiness that was left behind does not make recv fail or spin.
    silence(&ear).await;
    mouth.try_send(&frames[0]).unwrap();
    assert_eq!(next(&ear).await.0, frames[0]);

    client.ip("link set eth0 down");
    assert!(mouth.try_send(&frames[0]).unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_director_keeps_silent_and_the_speaker_answers_for_it() {
    // The heart of the design: VIP as a local route on a macvlan that has no
    // address, arp_ignore=8; the kernel says nothing, the speaker all.
    let (speaker, client) = wire().await;
    let director = TestNs::new("dir");
    let spec = Macvlan {
        name: "ls-dir".to_owned(),
        mac: MAC_DIRECTOR,
        parent: speaker.index("eth0").await,
    };
    let rtnl = speaker.rtnl();
    rtnl.create_macvlan(&spec, Some(&director.ns))
        .await
        .unwrap();
    director.ip("link set lo up");
    director.ip("link set ls-dir up");
    run(
        "ip",
        &format!(
            "netns exec {} sysctl -qw net.ipv4.conf.all.arp_ignore=8 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ls-dir.rp_filter=0",
            director.name
        ),
    );
    let inner = director.rtnl();
    let dev = director.index("ls-dir").await;
    for (vip, node) in [
        (IpAddr::from(VIP), IpAddr::from(CLIENT)),
        (VIP6.into(), CLIENT6.into()),
    ] {
        inner.add_route(&Route::local(vip)).await.unwrap();
        inner.add_route(&Route::on_link(node, dev)).await.unwrap();
        inner.replace_neighbour(dev, node, MAC_B).await.unwrap();
    }
    client.ip("addr add 192.0.2.100/24 dev eth0");
    client.ip("addr add 2001:db8:2::100/64 dev eth0 nodad");

    let ear = socket(&client, Filter::ArpAndNdp).await;
    let mac: Mac = MAC_DIRECTOR;
    ear.send(&arp::probe_request(MAC_B, CLIENT, VIP, None))
        .await
        .unwrap();
    ear.send(&ndp::neighbor_solicitation(MAC_B, CLIENT6, VIP6, None))
        .await
        .unwrap();
    let until = tokio::time::Instant::now() + Duration::from_millis(500);
    let mut buf = [0; 256];
    while let Ok(got) = tokio::time::timeout_at(until, ear.recv(&mut buf)).await {
        let (len, _) = got.unwrap();
        if let Ok(a) = arp::parse(&buf[..len]) {
            assert_ne!(a.sender_ip, VIP, "the kernel answered");
        }
        if let Ok(ndp::Ndp::Advertisement { target, .. }) = ndp::parse(&buf[..len]) {
            assert_ne!(target, VIP6, "the kernel answered");
        }
    }

    // Announced by the speaker on the uplink, it is reached through the macvlan.
    let mouth = socket(&speaker, Filter::ArpAndNdp).await;
    client.ip("neigh replace 192.0.2.200 lladdr 02:00:00:00:00:99 nud stale dev eth0");
    client.ip("neigh replace 2001:db8:2::200 lladdr 02:00:00:00:00:99 nud stale dev eth0");
    mouth.send(&arp::gratuitous_reply(mac, VIP)).await.unwrap();
    mouth
        .send(&ndp::unsolicited_na(mac, VIP6, VIP6))
        .await
        .unwrap();
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        soon("the announcement", async {
            while lladdr(&client, vip) != Some(mac.to_string()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let own = if vip.is_ipv4() {
            IpAddr::from(CLIENT)
        } else {
            CLIENT6.into()
        };
        let (here, there) = (udp(&client, own), udp(&director, vip));
        here.send_to(b"ping", there.local_addr().unwrap()).unwrap();
        let (len, from) = there.recv_from(&mut [0; 16]).unwrap();
        assert_eq!((len, from), (4, here.local_addr().unwrap()));
        there.send_to(b"pong!", from).unwrap();
        let (len, from) = here.recv_from(&mut [0; 16]).unwrap();
        assert_eq!((len, from), (5, there.local_addr().unwrap()));
    }
}
