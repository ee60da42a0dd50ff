//! The uplink is followed by the kernel's notices, in a namespace of its own. Needs root.

#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lightship_core::core::UplinkState;
use lightship_core::further::Own;
use lightship_core::world::{Node, NodeName, World};
use lightship_netio::{Netns, NetnsThread, spawn_thread_in};
use lightship_speaker::uplink::{self, Choice, Current, Search, Told};
use tokio::sync::watch;

/// Far more than it should take (some milliseconds), since tests run beside others; far less than
/// any polling would.
const SOON: Duration = Duration::from_secs(2);

/// What nine of ten changes take at most, counted from before the command that makes them is started. Single
/// ones may wait for the machine's other work.
const AT_ONCE: Duration = Duration::from_millis(100);

struct Lan {
    name: String,
    world: watch::Sender<Option<Arc<World>>>,
    current: watch::Receiver<Current>,
    networks: watch::Receiver<Arc<[IpNet]>>,
    further: watch::Receiver<Arc<[Own]>>,
    watching: Option<NetnsThread<()>>,
    /// When the last change was begun.
    begun: Cell<Instant>,
    /// How long each was followed after.
    took: RefCell<Vec<Duration>>,
}

fn world(address: &str) -> Arc<World> {
    let node = Node {
        v4: Some(address.parse().unwrap()),
        ..Node::default()
    };
    let mut world = World::default();
    world.nodes.insert(NodeName::from("node1"), node);
    Arc::new(world)
}

fn ip(namespace: &str, args: &str) {
    let mut command = Command::new("ip");
    command
        .args(["-n", namespace])
        .args(args.split_whitespace());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {said}");
}

impl Lan {
    /// A namespace with `eth0`, which has 192.0.2.11/24, and its watcher.
    fn new(role: &str, uplink: Option<&str>) -> Self {
        let name = format!("lst-{}-{role}", std::process::id());
        let netns = Netns::create(&name).expect("a namespace, for which this test needs root");
        make_eth0(&name);
        let (world_tx, world_rx) = watch::channel(Some(world("192.0.2.11")));
        let (ready, started) = mpsc::channel();
        let wish = uplink.map(str::to_owned);
        let watching = spawn_thread_in(&netns, "uplink", move || async move {
            let node = world_rx.borrow().as_ref().unwrap().nodes["node1"].clone();
            let link = uplink::find(wish.as_deref(), &node).await.unwrap();
            let (current_tx, current) = watch::channel(Current::new(link));
            let (networks_tx, networks) = watch::channel(Arc::from([]));
            let (further_tx, further) = watch::channel(Arc::from([]));
            ready.send((current, networks, further)).unwrap();
            let choice = Choice {
                name: wish,
                node: "node1".into(),
            };
            let told = Told {
                current: current_tx,
                networks: networks_tx,
                further: further_tx,
            };
            uplink::watch(choice, world_rx, Search::default(), told).await;
        })
        .unwrap();
        let (current, networks, further) = started.recv().unwrap();
        let lan = Lan {
            name,
            world: world_tx,
            current,
            networks,
            further,
            watching: Some(watching),
            begun: Cell::new(Instant::now()),
            took: RefCell::default(),
        };
        lan.sees("the first look", |_, networks| !networks.is_empty());
        lan.took.take();
        lan
    }

    fn ip(&self, args: &str) {
        self.begun.set(Instant::now());
        ip(&self.name, args);
    }

    /// Waits until what is followed is so.
    fn sees(&self, what: &str, wanted: impl Fn(&Current, &[IpNet]) -> bool) {
        let so = || wanted(&self.current.borrow(), &self.networks.borrow());
        self.follows(what, so);
    }

    /// Waits until the further uplinks are so.
    fn sees_further(&self, what: &str, wanted: impl Fn(&[Own]) -> bool) {
        self.follows(what, || wanted(&self.further.borrow()));
    }

    fn follows(&self, what: &str, so: impl Fn() -> bool) {
        let began = self.begun.get();
        while !so() {
            let late = began.elapsed() >= SOON;
            let (now, networks) = (&self.current, &self.networks);
            assert!(!late, "{what}: {now:?} {networks:?} {:?}", self.further);
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = began.elapsed();
        eprintln!("{what}: {took:?}");
        self.took.borrow_mut().push(took);
    }

    /// The changes so far were followed at once, nine of ten of them.
    fn saw_at_once(&self) {
        let mut took = self.took.take();
        took.sort_unstable();
        assert!(took.len() >= 10, "{took:?}");
        let most = took[(took.len() * 9).div_ceil(10) - 1];
        eprintln!("nine of ten of {} changes: {most:?}", took.len());
        assert!(most < AT_ONCE, "{took:?}");
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Its last receiver ends the watcher.
        let (_, gone) = watch::channel(self.current.borrow().clone());
        self.current = gone;
        if let Some(watching) = self.watching.take()
            && !std::thread::panicking()
        {
            watching.join().unwrap();
        }
        Netns::delete(&self.name).unwrap();
    }
}

/// When the last step of it began, by which the interface is whole.
fn make_eth0(namespace: &str) -> Instant {
    ip(
        namespace,
        "link add eth0 address 02:00:00:00:00:0a type veth peer name far",
    );
    ip(namespace, "addr add 192.0.2.11/24 dev eth0");
    ip(namespace, "link set lo up");
    ip(namespace, "link set far up");
    let last = Instant::now();
    ip(namespace, "link set eth0 up");
    last
}

fn whole(now: &Current) -> bool {
    now.state == UplinkState::FINE
}

#[test]
fn what_changes_on_the_uplink_is_seen_at_once() {
    let lan = Lan::new("changes", None);
    for n in 1_u8..=4 {
        let mtu = 1500 - u32::from(n);
        lan.ip(&format!("link set eth0 mtu {mtu}"));
        lan.sees("another MTU", |now, _| now.link.mtu == mtu);
        lan.ip(&format!("link set eth0 address 02:00:00:00:01:0{n}"));
        lan.sees("another MAC", |now, _| {
            now.link.mac.0[4..] == [1, n] && whole(now)
        });
        lan.ip("link set far down");
        lan.sees("no carrier", |now, _| !now.state.carrier);
        lan.ip("link set far up");
        lan.sees("a carrier", |now, _| whole(now));
    }
    lan.saw_at_once();
    lan.ip("link set eth0 down");
    lan.ip("link set eth0 name lan0");
    lan.ip("link set lan0 up");
    lan.sees("another name", |now, _| {
        now.link.name == "lan0" && whole(now)
    });
    lan.ip("route add 198.51.100.0/24 dev lan0");
    let routed: IpNet = "198.51.100.0/24".parse().unwrap();
    lan.sees("a network by a route alone", |_, n| n.contains(&routed));
    lan.ip("route del 198.51.100.0/24 dev lan0");
    lan.sees("no such network", |_, n| !n.contains(&routed));
    lan.ip("addr del 192.0.2.11/24 dev lan0");
    lan.sees("no address", |now, _| {
        !now.state.address && now.state.carrier
    });
    lan.ip("addr add 192.0.2.11/24 dev lan0");
    lan.sees("the address", |now, _| whole(now));
    lan.world.send_replace(Some(world("192.0.2.12")));
    lan.sees("another InternalIP", |now, _| !now.state.address);
    lan.ip("addr add 192.0.2.12/24 dev lan0");
    lan.sees("its address", |now, _| whole(now));
}

#[test]
fn an_uplink_that_comes_back_is_found_again() {
    let lan = Lan::new("returns", None);
    for _ in 0..5 {
        let before = lan.current.borrow().link.index;
        lan.ip("link del eth0");
        lan.sees("nothing", |now, _| !now.state.carrier && !now.state.address);
        lan.begun.set(make_eth0(&lan.name));
        lan.sees("another interface", |now, _| {
            now.link.index != before && whole(now)
        });
    }
    lan.saw_at_once();

    // The host is given a bridge, and the address moves there.
    lan.ip("link add br0 type bridge");
    lan.ip("link set br0 up");
    lan.ip("link set eth0 master br0");
    lan.ip("addr del 192.0.2.11/24 dev eth0");
    lan.ip("addr add 192.0.2.11/24 dev br0");
    lan.sees("the bridge", |now, _| now.link.name == "br0" && whole(now));
    // A bridge takes the lowest MAC of its ports, with none set by hand.
    lan.ip("link add port address 02:00:00:00:00:01 type veth peer name other");
    lan.ip("link set port master br0");
    lan.sees("the bridge's MAC", |now, _| {
        now.link.mac.0[5] == 1 && whole(now)
    });
    lan.ip("link del port");
    lan.sees("its MAC again", |now, _| {
        now.link.mac.0[5] == 0x0a && whole(now)
    });
}

#[test]
fn a_named_uplink_is_the_one_of_that_name() {
    let lan = Lan::new("named", Some("eth0"));
    let mac = lan.current.borrow().link.mac;
    lan.ip("link set eth0 down");
    lan.ip("link set eth0 name other");
    lan.ip("link set other up");
    lan.sees("none of the name", |now, _| !now.state.carrier);
    assert_eq!(
        lan.current.borrow().link.mac,
        mac,
        "the last one stays known"
    );
    lan.ip("link set other down");
    lan.ip("link set other name eth0");
    lan.ip("link set eth0 up");
    lan.sees("one of the name", |now, _| whole(now));
}

#[test]
fn further_uplinks_come_and_go_with_their_carrier_and_network() {
    let lan = Lan::new("further", None);
    let named = |wanted: &'static [&str]| {
        move |further: &[Own]| {
            further
                .iter()
                .map(|own| &*own.told.interface)
                .eq(wanted.iter().copied())
        }
    };
    assert!(lan.further.borrow().is_empty());
    let network: IpNet = "198.51.100.0/24".parse().unwrap();
    for _ in 0..4 {
        lan.ip("link add eth1 type veth peer name far1");
        lan.ip("link set far1 up");
        lan.ip("link set eth1 up");
        lan.ip("addr add 198.51.100.11/24 dev eth1");
        lan.sees_further("one that came", named(&["eth1"]));
        let before = lan.further.borrow()[0].clone();
        assert_eq!(*before.told.networks, [network]);
        lan.ip("link set eth1 address 02:00:00:00:00:1c");
        lan.sees_further("another MAC", |further| further[0].told.mac[5] == 0x1c);
        let director_mac = lan.further.borrow()[0].director_mac();
        assert_eq!(
            director_mac,
            before.director_mac(),
            "the director keeps its own"
        );
        lan.ip("link set far1 down");
        lan.sees_further("no carrier", named(&[]));
        lan.ip("link set far1 up");
        lan.sees_further("a carrier", named(&["eth1"]));
        lan.ip("addr del 198.51.100.11/24 dev eth1");
        lan.sees_further("no network", named(&[]));
        lan.ip("link set eth1 down");
        lan.ip("link set eth1 name lan1");
        lan.ip("link set lan1 up");
        lan.ip("addr add 198.51.100.11/24 dev lan1");
        lan.sees_further("another name", named(&["lan1"]));
        lan.ip("link del lan1");
        lan.sees_further("none again", named(&[]));
    }
    lan.saw_at_once();
}
