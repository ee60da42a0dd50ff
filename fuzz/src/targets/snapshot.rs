//! The state file, which a crash or a full disk may have cut, or an older release written.

use std::sync::Arc;

use lightship_core::cache::{Saved, SavedPeer, decode, encode, seal};
use lightship_core::world::{Node, Port, Protocol, Service, ServiceRef, Slice, Vip};

use super::{Target, kind};

pub(super) const TARGET: Target = Target {
    name: "snapshot",
    run,
    repair,
    seeds,
};

fn run(bytes: &[u8]) -> String {
    let saved = match decode(bytes) {
        Ok(saved) => saved,
        Err(error) => return kind(error),
    };
    let again = encode(&saved).expect("what was read can be written");
    assert_eq!(decode(&again).as_ref(), Ok(&saved));
    let world = &saved.world;
    let sizes = [
        world.nodes.len(),
        world.services.len(),
        world.slices.len(),
        world.vips.len(),
        saved.peers.len(),
        saved.claims.len(),
        saved.secrets.len(),
    ];
    format!("{:?}", sizes.map(|size| size.min(2)))
}

fn repair(bytes: &mut Vec<u8>) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    if let Ok(body) = std::str::from_utf8(&bytes[end + 1..]) {
        *bytes = seal(body);
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut full = Saved::default();
    let world = Arc::make_mut(&mut full.world);
    let node = Node {
        v4: Some([192, 0, 2, 11].into()),
        v6: Some([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11].into()),
        cordoned: true,
        ..Node::default()
    };
    world.nodes.insert("node1".into(), node);
    let web = ServiceRef::new("shop", "web");
    let port = Port {
        protocol: Protocol::Udp,
        number: 53,
    };
    let service = Service {
        ports: [port].into(),
        local: true,
        ..Service::default()
    };
    world.services.insert(web.clone(), service);
    let slice = Slice {
        ready: ["node1".into()].into(),
        ..Slice::default()
    };
    let slices = world.slices.or_default(web.clone());
    slices.insert("web-1".into(), slice);
    let vip = Vip {
        services: vec![web],
        ..Vip::default()
    };
    world.vips.insert([192, 0, 2, 200].into(), vip);
    full.peers.insert("node2".into(), SavedPeer::default());
    full.claims.insert([192, 0, 2, 200].into(), 7);
    full.secrets.push(vec![1, 2, 3]);
    full.boot_id = 1_700_000_000_000_000_000;
    let mut many = full.clone();
    let world = Arc::make_mut(&mut many.world);
    for number in 1..=40_u8 {
        let name: Arc<str> = format!("node{number}").into();
        let node = Node {
            v4: Some([192, 0, 2, number].into()),
            ..Node::default()
        };
        world.nodes.insert(name.clone(), node);
        many.peers.insert(name, SavedPeer::default());
        let vip = [198, 51, 100, number].into();
        world.vips.insert(vip, Vip::default());
        many.claims.insert(vip, u64::from(number) << 32);
    }
    let seeds = [("empty", Saved::default()), ("full", full), ("many", many)];
    let write = |saved: &Saved| encode(saved).expect("a state can be written");
    seeds
        .map(|(name, saved)| (name.to_owned(), write(&saved)))
        .into()
}
