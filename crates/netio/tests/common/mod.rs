//! What the kernel tests share: throwaway namespaces, and the system's own tools
//! to check with.
//!
//! The tests need root and a real kernel. Without, they fail; they never skip.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lightship_netio::{Mac, Netns, Rtnl, Veth};
use serde_json::Value;

/// A namespace that goes when this is dropped, also when the test fails.
pub struct TestNs {
    pub name: String,
    pub ns: Netns,
}

impl TestNs {
    pub fn new(role: &str) -> TestNs {
        let name = unused_name(role);
        let ns = Netns::create(&name).expect("create a namespace");
        TestNs { name, ns }
    }

    pub fn rtnl(&self) -> Rtnl {
        Rtnl::open_in(&self.ns).expect("open rtnetlink")
    }

    /// Runs `ip -n NAME ARGS` and returns what it printed.
    pub fn ip(&self, args: &str) -> String {
        run("ip", &format!("-n {} {args}", self.name))
    }

    /// Runs `ip -j -d -n NAME ARGS` and returns the objects it listed.
    pub fn ip_json(&self, args: &str) -> Vec<Value> {
        let text = run("ip", &format!("-j -d -n {} {args}", self.name));
        if text.trim().is_empty() {
            return Vec::new();
        }
        let listed: Vec<Value> = serde_json::from_str(&text).expect("JSON from ip");
        // Older versions print an empty object for each one that was filtered out.
        listed
            .into_iter()
            .filter(|v| v.as_object().is_some_and(|o| !o.is_empty()))
            .collect()
    }

    /// The one object that `ip -j` lists.
    pub fn ip_one(&self, args: &str) -> Value {
        let mut listed = self.ip_json(args);
        assert_eq!(listed.len(), 1, "ip {args}: {listed:?}");
        listed.remove(0)
    }

    pub async fn index(&self, name: &str) -> u32 {
        self.rtnl().require_link(name).await.unwrap().index
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        if let Err(e) = Netns::delete(&self.name) {
            eprintln!("left behind: {e}");
        }
    }
}

/// A name for a namespace that nobody else uses.
pub fn unused_name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    require_root();
    format!(
        "lst-{}-{}-{role}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub fn require_root() {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .expect("CapEff in /proc/self/status");
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    let wanted = NET_ADMIN | NET_RAW | SYS_ADMIN;
    assert!(
        effective & wanted == wanted,
        "these tests make network namespaces and need root \
         (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW); effective capabilities: {effective:#x}"
    );
}

/// Runs a program of the system, which must succeed.
pub fn run(program: &str, args: &str) -> String {
    let out = Command::new(program)
        .args(args.split_whitespace())
        .output()
        .unwrap_or_else(|e| panic!("run {program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("UTF-8")
}

pub const MAC_A: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
pub const MAC_B: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);
pub const MAC_DIRECTOR: Mac = Mac([0x02, 0, 0, 0, 0, 0xd1]);

/// Two namespaces joined by a veth pair, both ends called `eth0` and up.
pub async fn wire() -> (TestNs, TestNs) {
    let (a, b) = (TestNs::new("a"), TestNs::new("b"));
    let spec = Veth {
        name: "eth0".to_owned(),
        mac: MAC_A,
        peer_name: "eth0".to_owned(),
        peer_mac: MAC_B,
        mtu: 1500,
    };
    assert!(a.rtnl().create_veth(&spec, Some(&b.ns)).await.unwrap());
    for ns in [&a, &b] {
        ns.ip("link set lo up");
        ns.ip("link set eth0 up");
    }
    (a, b)
}

/// Waits for something that must happen soon.
pub async fn soon<T>(what: &str, f: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), f).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 10 s"),
    }
}
