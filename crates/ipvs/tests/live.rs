//! The client against a kernel that has ip_vs, checked by `ipvsadm`.
//!
//! Ignored by default, for most development machines' kernels lack ip_vs and
//! because it needs the IPVS table of its network namespace for itself. The
//! tier `datapath` runs it on a node of the lab; alone it runs in User Mode Linux
//! with `tests/uml/live.sh`, or as root on a kernel with ip_vs:
//!
//! ```text
//! ip netns exec SOME-EMPTY-NAMESPACE cargo test -p lightship-ipvs --test live -- --ignored --test-threads=1
//! ```

// Clippy's leave for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lightship_ipvs::{
    ApplyError, Client, Destination, Family, Op, Protocol, Scheduler, Service, ServiceFlags,
    ServiceKey, ServiceSpec, Timeouts, plan,
};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;

/// A client of an empty table, which is emptied again at the end.
struct Table(Client);

impl Table {
    fn open() -> Self {
        let mut client = Client::open().expect("a kernel with ip_vs, and CAP_NET_ADMIN");
        assert_eq!(
            client.dump().unwrap(),
            [],
            "the IPVS table of this namespace is in use; run in an empty namespace"
        );
        Self(client)
    }

    /// Makes the kernel hold `specs` and checks that ipvsadm says so.
    fn become_(&mut self, specs: &[ServiceSpec]) -> Vec<Op> {
        let ops = plan(specs, &self.0.dump().unwrap());
        self.0.apply(&ops).unwrap();
        assert_eq!(ipvsadm(&["-L", "-n", "--nosort"]), listing(specs));
        assert_eq!(plan(specs, &self.0.dump().unwrap()), [], "idempotent");
        ops
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.0.flush().unwrap();
    }
}

fn ipvsadm(args: &[&str]) -> String {
    let output = Command::new("ipvsadm").args(args).output().unwrap();
    assert!(output.status.success(), "ipvsadm {args:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    if args[0] == "-L" && args.contains(&"--nosort") {
        sorted_services(&text)
    } else {
        text
    }
}

/// ipvsadm's listing with the services sorted (the kernel's hash order says
/// nothing), the destinations as the kernel has them, and spaces squeezed.
fn sorted_services(text: &str) -> String {
    let mut services: Vec<String> = Vec::new();
    let heading = |line: &&str| !line.contains("-> RemoteAddress:Port");
    for line in text.lines().skip_while(heading).skip(1) {
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.starts_with("->") {
            let service = services.last_mut().expect("a service first");
            write!(service, "\n{words}").unwrap();
        } else {
            services.push(words);
        }
    }
    services.sort();
    services.join("\n")
}

/// What that listing should be.
fn listing(specs: &[ServiceSpec]) -> String {
    let mut services: Vec<String> = specs
        .iter()
        .map(|spec| {
            let mut text = format!("{} {}", spec.key, spec.scheduler);
            let names: Vec<&str> = [
                (ServiceFlags::MH_FALLBACK, "mh-fallback"),
                (ServiceFlags::MH_PORT, "mh-port"),
            ]
            .into_iter()
            .filter(|(flag, _)| spec.flags.contains(*flag))
            .map(|(_, name)| name)
            .collect();
            if !names.is_empty() {
                write!(text, " ({})", names.join(",")).unwrap();
            }
            if spec.flags.contains(ServiceFlags::ONEPACKET) {
                text.push_str(" ops");
            }
            for destination in spec.destinations.iter().rev() {
                let Destination { weight, .. } = destination;
                write!(text, "\n-> {} Route {weight} 0 0", destination.key()).unwrap();
            }
            text
        })
        .collect();
    services.sort();
    services.join("\n")
}

fn mh() -> ServiceFlags {
    ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT
}

fn spec(vip: &str, protocol: Protocol, port: u16, nodes: &[(u8, u32)]) -> ServiceSpec {
    let vip: IpAddr = vip.parse().unwrap();
    let node = |number: u8| -> IpAddr {
        match vip {
            IpAddr::V4(_) => [192, 0, 2, number].into(),
            IpAddr::V6(_) => format!("2001:db8:2::{number}").parse().unwrap(),
        }
    };
    ServiceSpec {
        key: ServiceKey::new(vip, protocol, port),
        scheduler: Scheduler::MH,
        flags: mh(),
        destinations: nodes
            .iter()
            .map(|(number, weight)| Destination::direct(node(*number), port, *weight))
            .collect(),
    }
}

/// The same destinations behind a v4 and a v6 VIP, TCP and UDP.
fn everywhere(nodes: &[(u8, u32)]) -> Vec<ServiceSpec> {
    let mut specs = Vec::new();
    for vip in ["192.0.2.200", "2001:db8:2::200"] {
        specs.push(spec(vip, Protocol::Tcp, 443, nodes));
        specs.push(spec(vip, Protocol::Udp, 53, nodes));
    }
    specs
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn a_table_lives_and_changes_as_planned() {
    let mut table = Table::open();
    assert_eq!(
        table
            .become_(&everywhere(&[(11, 1), (12, 1), (13, 1)]))
            .len(),
        20
    );
    // A node dies, and comes back: edits alone.
    assert_eq!(
        table
            .become_(&everywhere(&[(11, 1), (12, 0), (13, 1)]))
            .len(),
        4
    );
    assert_eq!(
        table
            .become_(&everywhere(&[(11, 1), (12, 1), (13, 1)]))
            .len(),
        4
    );
    // One leaves the middle, another enters there: the order holds.
    table.become_(&everywhere(&[(11, 1), (13, 1)]));
    table.become_(&everywhere(&[(11, 1), (12, 1), (13, 1)]));
    // Entering drained, reversal, exchange of all.
    table.become_(&everywhere(&[(11, 1), (12, 1), (13, 1), (14, 0)]));
    table.become_(&everywhere(&[(14, 1), (13, 1), (12, 1), (11, 1)]));
    table.become_(&everywhere(&[(21, 1), (22, 1)]));
    // One VIP goes, then all do.
    let fewer = &everywhere(&[(21, 1), (22, 1)])[..2];
    assert_eq!(table.become_(fewer).len(), 2);
    table.become_(&[]);
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn settings_of_a_service_change_in_place() {
    let mut table = Table::open();
    let mut service = spec("192.0.2.200", Protocol::Udp, 53, &[(11, 1), (12, 1)]);
    table.become_(std::slice::from_ref(&service));
    for (scheduler, flags) in [
        (Scheduler::MH, ServiceFlags::MH_FALLBACK),
        (Scheduler::MH, ServiceFlags::NONE),
        (Scheduler::RR, ServiceFlags::NONE),
        (Scheduler::MH, mh() | ServiceFlags::ONEPACKET),
        (Scheduler::MH, mh()),
    ] {
        service.scheduler = scheduler;
        service.flags = flags;
        let ops = table.become_(std::slice::from_ref(&service));
        assert!(matches!(ops[..], [Op::SetService(_)]), "{ops:?}");
    }
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn marks_persistence_and_engines_are_programmed_as_ipvsadm_would() {
    let mut table = Table::open();
    let mark = |family, mark| ServiceKey::FwMark { family, mark };
    let services = [
        Service::new(mark(Family::V4, 7), Scheduler::MH, mh()),
        Service::new(mark(Family::V6, 8), Scheduler::MH, mh()),
        Service {
            timeout_secs: 600,
            netmask: 24,
            ..Service::new(
                ServiceKey::new([192, 0, 2, 201].into(), Protocol::Tcp, 0),
                Scheduler::WLC,
                ServiceFlags::PERSISTENT,
            )
        },
        Service {
            timeout_secs: 600,
            netmask: 64,
            ..Service::new(
                ServiceKey::new("2001:db8:2::201".parse().unwrap(), Protocol::Sctp, 80),
                Scheduler::RR,
                ServiceFlags::PERSISTENT,
            )
        },
    ];
    let ops: Vec<Op> = services.iter().cloned().map(Op::NewService).collect();
    table.0.apply(&ops).unwrap();
    let mut saved: Vec<String> = ipvsadm(&["-S", "-n"]).lines().map(str::to_owned).collect();
    saved.sort();
    assert_eq!(
        saved,
        [
            "-A --sctp-service [2001:db8:2::201]:80 -s rr -p 600 -M 64",
            "-A -f 7 -s mh -b mh-fallback,mh-port",
            "-A -f 8 -6 -s mh -b mh-fallback,mh-port",
            "-A -t 192.0.2.201:0 -s wlc -p 600 -M 255.255.255.0",
        ]
    );
    let mut read: Vec<Service> = table
        .0
        .dump()
        .unwrap()
        .into_iter()
        .map(|state| state.service)
        .collect();
    let mut expected = services.to_vec();
    read.sort_by_key(|service| service.key);
    expected.sort_by_key(|service| service.key);
    assert_eq!(read, expected);
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn a_table_that_ipvsadm_made_is_adopted_untouched() {
    let mut table = Table::open();
    ipvsadm(&[
        "-A",
        "-t",
        "192.0.2.200:443",
        "-s",
        "mh",
        "-b",
        "mh-fallback,mh-port",
    ]);
    for node in ["192.0.2.11:443", "192.0.2.12:443"] {
        ipvsadm(&["-a", "-t", "192.0.2.200:443", "-r", node, "-g", "-w", "1"]);
    }
    let wanted = [spec("192.0.2.200", Protocol::Tcp, 443, &[(11, 1), (12, 1)])];
    assert_eq!(plan(&wanted, &table.0.dump().unwrap()), []);
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn refusals_name_their_op_and_the_rest_is_done() {
    let mut table = Table::open();
    let wanted = spec("192.0.2.200", Protocol::Tcp, 443, &[(11, 1)]);
    let service = Service::from(&wanted);
    let destination = wanted.destinations[0];
    let absent = ServiceKey::new([192, 0, 2, 239].into(), Protocol::Tcp, 1);
    let ops = [
        Op::DelService(absent),
        Op::NewService(service.clone()),
        Op::NewService(service.clone()),
        Op::NewService(Service::new(
            absent,
            Scheduler::new("nonesuch").unwrap(),
            ServiceFlags::NONE,
        )),
        Op::SetDest(service.key, destination),
        Op::NewDest(service.key, destination),
        Op::NewDest(service.key, destination),
    ];
    let ApplyError { failures } = table.0.apply(&ops).unwrap_err();
    let failed: Vec<_> = failures
        .iter()
        .map(|failure| (failure.index, failure.error.errno()))
        .collect();
    assert_eq!(
        failed,
        [
            (0, Some(ESRCH)),
            (2, Some(EEXIST)),
            (3, Some(ENOENT)),
            (4, Some(ENOENT)),
            (6, Some(EEXIST)),
        ]
    );
    assert_eq!(
        ipvsadm(&["-L", "-n", "--nosort"]),
        listing(std::slice::from_ref(&wanted))
    );
    assert_eq!(table.0.service(wanted.key).unwrap().0, service);
    assert_eq!(table.0.service(absent).unwrap_err().errno(), Some(ESRCH));
    assert_eq!(table.0.dump_destinations(absent).unwrap(), []);
    // Without the counters it is the same.
    let settings = table.0.dump_service_settings().unwrap();
    assert_eq!(settings, std::slice::from_ref(&service));
    let destinations = table.0.dump_destinations(wanted.key).unwrap();
    let settings = table.0.dump_destination_settings(wanted.key).unwrap();
    assert!(
        settings
            .iter()
            .eq(destinations.iter().map(|d| &d.destination))
    );
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn information_and_timeouts_agree_with_ipvsadm() {
    let mut table = Table::open();
    let info = table.0.info().unwrap();
    let (major, minor, patch) = info.version;
    let header = ipvsadm(&["-L", "-n"]);
    let version = format!(
        "version {major}.{minor}.{patch} (size={})",
        info.connection_table_size
    );
    assert!(header.contains(&version), "{version} in {header}");

    let before = table.0.timeouts().unwrap();
    let wanted = Timeouts {
        tcp: Duration::from_secs(3600),
        tcp_fin: Duration::ZERO,
        udp: Duration::from_secs(62),
    };
    table.0.set_timeouts(wanted).unwrap();
    let text = format!("3600 {} 62", before.tcp_fin.as_secs());
    let listed = ipvsadm(&["-L", "--timeout"]);
    assert!(listed.contains(&text), "{text} in {listed}");
    table.0.set_timeouts(before).unwrap();
    assert_eq!(table.0.timeouts().unwrap(), before);
}

#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn a_thousand_services_in_bulk() {
    let mut table = Table::open();
    let specs = |weight: u32| -> Vec<ServiceSpec> {
        (0..1000)
            .map(|port| {
                let mut spec = spec(
                    "192.0.2.200",
                    Protocol::Tcp,
                    1 + port,
                    &[(11, 1), (12, weight)],
                );
                // 32 KiB of mh table each would be most of a small guest.
                spec.scheduler = Scheduler::RR;
                spec.flags = ServiceFlags::NONE;
                spec
            })
            .collect()
    };
    let mut timed = |what: &str, specs: &[ServiceSpec]| {
        let start = Instant::now();
        let actual = table.0.dump().unwrap();
        let dumped = start.elapsed();
        let ops = plan(specs, &actual);
        let planned = start.elapsed() - dumped;
        table.0.apply(&ops).unwrap();
        let applied = start.elapsed() - dumped - planned;
        println!(
            "{what}: dump {dumped:?}, plan {planned:?}, apply {} ops {applied:?}",
            ops.len()
        );
        assert_eq!(plan(specs, &table.0.dump().unwrap()), []);
        ops.len()
    };
    assert_eq!(timed("create", &specs(1)), 4000);
    assert_eq!(timed("a node dies", &specs(0)), 1000);
    assert_eq!(timed("delete", &[]), 1000);
}

/// To which destination each source port of a client goes, as the kernel's own
/// connection table says.
fn slots(vip: &str) -> BTreeMap<u16, SocketAddr> {
    let vip: SocketAddr = format!("{vip}:53").parse().unwrap();
    for port in 20000..20400 {
        let socket = UdpSocket::bind(("192.0.2.1", port)).unwrap();
        socket.send_to(b"?", vip).unwrap();
    }
    // UDP 01:00 UDP 192.0.2.1:20000 192.0.2.200:53 192.0.2.11:53
    ipvsadm(&["-L", "-n", "-c"])
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, client, service, destination] = words[..] else {
                return None;
            };
            (service.parse() == Ok(vip)).then(|| {
                let client: SocketAddr = client.parse().unwrap();
                (client.port(), destination.parse().unwrap())
            })
        })
        .collect()
}

/// Counters of a service that has had 400 connections of one packet each.
fn counters_agree_with_ipvsadm(table: &mut Table, vip: &str) {
    let key = ServiceKey::new(vip.parse().unwrap(), Protocol::Udp, 53);
    let counted = |table: &mut Table| {
        let (_, stats) = table.0.service(key).unwrap();
        let destinations = table.0.dump_destinations(key).unwrap();
        let mut lines = vec![format!(
            "UDP {vip}:53 {} {} 0 {} 0",
            stats.connections, stats.in_packets, stats.in_bytes
        )];
        lines.extend(destinations.iter().rev().map(|state| {
            let (addr, stats) = (state.destination.key(), state.stats);
            format!(
                "-> {addr} {} {} 0 {} 0",
                stats.connections, stats.in_packets, stats.in_bytes
            )
        }));
        let service = format!("{vip}:53");
        let args = ["-L", "-n", "-u", &service, "--stats", "--exact", "--nosort"];
        assert_eq!(ipvsadm(&args), lines.join("\n"));
        (stats.connections, stats.in_packets, stats.in_bytes)
    };
    // 20 bytes of IPv4, 8 of UDP, 1 of ours. The kernel's estimator brings the
    // counters up to date every 2 s.
    let expected = (400, 400, 400 * 29);
    let patience = Instant::now() + Duration::from_secs(10);
    let counters = |table: &mut Table| {
        let (_, stats) = table.0.service(key).unwrap();
        (stats.connections, stats.in_packets, stats.in_bytes)
    };
    while counters(table) != expected && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(counted(table), expected);
    table.0.zero(Some(key)).unwrap();
    assert_eq!(counted(table), (0, 0, 0));
}

/// A client stays in the namespace of its socket, whoever uses it.
#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn a_socket_carries_its_namespace_along() {
    let mut here = Table::open();
    let (ours, theirs) = (
        [spec("192.0.2.200", Protocol::Tcp, 80, &[(11, 1)])],
        [spec("192.0.2.200", Protocol::Tcp, 443, &[(12, 1)])],
    );
    // The thread stays in its new namespace until it is told to look.
    let (look, told) = mpsc::channel::<()>();
    let (send_socket, socket) = mpsc::channel();
    let there = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let status = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(status.unwrap().success());
        send_socket
            .send(Socket::new(NETLINK_GENERIC).unwrap())
            .unwrap();
        told.recv().unwrap();
        ipvsadm(&["-L", "-n", "--nosort"])
    });
    let mut client = Client::new(socket.recv().unwrap()).unwrap();
    here.become_(&ours);
    assert_eq!(client.dump().unwrap(), []);
    client.apply(&plan(&theirs, &[])).unwrap();
    assert_eq!(ipvsadm(&["-L", "-n", "--nosort"]), listing(&ours));
    look.send(()).unwrap();
    assert_eq!(there.join().unwrap(), listing(&theirs));
}

/// The reason for the order and for adding drained destinations alive: tables
/// with different histories send every client to the same node.
#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn different_histories_give_the_same_mh_table() {
    let mut table = Table::open();
    let service = |vip: &str, nodes: &[(u8, u32)]| spec(vip, Protocol::Udp, 53, nodes);
    // "ip" because this test's own netlink is what is under test.
    for args in [
        "link add vips type dummy",
        "addr add 192.0.2.1/24 dev vips",
        "link set vips up",
    ] {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    }
    let last = [(11, 1), (12, 0), (13, 1), (14, 1)];

    // Addresses of this test's own: a deleted destination that has connections
    // waits in the kernel's trash, and would bring them to another test.
    // The first saw the node alive; the second came up when it was dead, and
    // then learnt of a node in the middle of the order.
    let first = |nodes: &[(u8, u32)]| service("192.0.2.210", nodes);
    let second = |nodes: &[(u8, u32)]| service("192.0.2.211", nodes);
    table.become_(&[
        first(&[(11, 1), (12, 1), (13, 1), (14, 1)]),
        second(&[(11, 1), (12, 0), (14, 1)]),
    ]);
    table.become_(&[first(&last), second(&last)]);
    let seen_alive = slots("192.0.2.210");
    let seen_dead = slots("192.0.2.211");
    assert_eq!(seen_alive.len(), 400);
    assert_eq!(seen_alive, seen_dead);

    // Added with weight 0 as it is, the node has no slots, and clients move.
    let naive = service("192.0.2.212", &last);
    let mut ops = vec![Op::NewService(Service::from(&naive))];
    ops.extend(
        naive
            .destinations
            .iter()
            .map(|destination| Op::NewDest(naive.key, *destination)),
    );
    table.0.apply(&ops).unwrap();
    let moved = slots("192.0.2.212")
        .iter()
        .filter(|(port, destination)| seen_alive[*port] != **destination)
        .count();
    println!("of 400 clients, {moved} would be elsewhere without the detour over weight 1");
    assert!(moved > 0);

    counters_agree_with_ipvsadm(&mut table, "192.0.2.210");

    let status = Command::new("ip").args(["link", "del", "vips"]).status();
    assert!(status.unwrap().success());
}

/// A large cluster's table from nothing, as a director makes it at its first start.
#[test]
#[ignore = "needs a kernel with ip_vs: run tests/uml/live.sh"]
fn two_thousand_services_of_a_hundred_nodes_in_bulk() {
    let nodes: Vec<(u8, u32)> = (1..=100).map(|node| (node, 1)).collect();
    // What the kernel counts is services: 250 VIPs with 8 ports are 1,000 with 2.
    let mut specs: Vec<ServiceSpec> = (0..250)
        .flat_map(|vip: u16| {
            let vip = format!("198.51.100.{vip}");
            (1..=8)
                .map(|port| spec(&vip, Protocol::Tcp, port, &nodes))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut table = Table::open();
    let free = free_memory();
    let start = Instant::now();
    let ops = plan(&specs, &[]);
    let planned = start.elapsed();
    assert_eq!(ops.len(), 2000 * 102);
    table.0.apply(&ops).unwrap();
    let took = start.elapsed();
    let memory = (free - free_memory()) / 1000;
    println!(
        "200,000 destinations: planned in {planned:?}, all in {took:?}, {memory} KiB of kernel memory per VIP of 2 ports"
    );

    let start = Instant::now();
    let actual = table.0.dump().unwrap();
    println!("read back in {:?}", start.elapsed());
    assert_eq!(plan(&specs, &actual), []);

    // One node is gone from one service of one VIP.
    specs[1000].destinations[50].weight = 0;
    let ops = plan(&specs, &actual);
    let start = Instant::now();
    table.0.apply(&ops).unwrap();
    println!("{} op(s) in {:?}", ops.len(), start.elapsed());
    assert_eq!(ops.len(), 1);
    // Built once per destination, the tables alone take minutes; a generous limit, for UML on a
    // busy machine is slow by some factor.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// In KiB.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("MemFree"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
