//! Neighbour caches of clients whose kernels are set otherwise than by default.
//!
//! Linux's settings are those of `Documentation/networking/ip-sysctl.rst`.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{neighbours, vip};
use lightship_lab::{Lab, sh};

use crate::common::Served;

/// What a client knows of the VIP before it moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Where it was, confirmed just now.
    Fresh,
    /// Nothing.
    Nothing,
}

/// What its cache holds once the last announcement of the burst is out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Where the VIP is now, without having asked.
    Now,
    /// Nothing: this client takes no entry from anybody unasked.
    Nothing,
}

struct Row {
    client: &'static str,
    /// Settings below `/proc/sys/net`.
    settings: &'static [(&'static str, &'static str)],
    v6: bool,
    before: Before,
    after: After,
}

const ROWS: [Row; 7] = [
    Row {
        client: "by default, an entry follows",
        settings: &[],
        v6: false,
        before: Before::Fresh,
        after: After::Now,
    },
    // An entry is not changed so soon after its last change (`arp_process` in net/ipv4/arp.c): what
    // is said first is lost on this client.
    Row {
        client: "with a locktime of 3 s, an entry follows later",
        settings: &[("ipv4/neigh/eth0/locktime", "300")],
        v6: false,
        before: Before::Fresh,
        after: After::Now,
    },
    Row {
        client: "by default, none is made",
        settings: &[],
        v6: false,
        before: Before::Nothing,
        after: After::Nothing,
    },
    Row {
        client: "with arp_accept, one is made",
        settings: &[("ipv4/conf/eth0/arp_accept", "1")],
        v6: false,
        before: Before::Nothing,
        after: After::Now,
    },
    Row {
        client: "by default, an IPv6 entry follows",
        settings: &[],
        v6: true,
        before: Before::Fresh,
        after: After::Now,
    },
    Row {
        client: "by default, no IPv6 entry is made",
        settings: &[],
        v6: true,
        before: Before::Nothing,
        after: After::Nothing,
    },
    // RFC 9131: a router learns of new hosts. It counts on one that forwards alone.
    Row {
        client: "with accept_untracked_na, an IPv6 router makes one",
        settings: &[
            ("ipv6/conf/eth0/forwarding", "1"),
            ("ipv6/conf/eth0/accept_untracked_na", "1"),
        ],
        v6: true,
        before: Before::Nothing,
        after: After::Now,
    },
];

/// In which the burst is over: its last announcement comes 5 s after the first.
const BURST: Duration = Duration::from_millis(6500);

/// A VIP moves, and clients of each kind know it as far as their settings let them.
pub(crate) fn caches(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("strangers")
    };
    Served::during(lab, &wish, |lab, vips| {
        for row in &ROWS {
            let found = vips.iter().find(|vip| vip.is_ipv6() == row.v6);
            let vip = *found.context("no address of the family")?;
            let settings = Settings::put(lab, row.settings)?;
            let outcome = judge(lab, row, vip);
            let back = settings.back(lab);
            outcome.with_context(|| row.client.to_owned())?;
            back?;
        }
        Ok(())
    })
}

fn judge(lab: &Lab, row: &Row, vip: IpAddr) -> Result<()> {
    let old = vip::find(lab, vip)?.context("no VirtualIP")?;
    let owner = old.owner.context("no owner")?;
    let nodes = lab.node_names();
    let other = nodes.iter().find(|node| **node != owner);
    let other = other.context("one node only")?;
    neighbours::forget(vip)?;
    if row.before == Before::Fresh {
        // Any packet makes the kernel ask; the discard port is nobody's.
        lab.client(&["bash", "-c", &format!("echo > /dev/udp/{vip}/9")])?;
        let known = || Ok((neighbours::cached(lab, vip)?.as_ref() == Some(&old.mac)).then_some(()));
        let limit = Duration::from_secs(5);
        sh::wait_for("an entry", limit, Duration::from_millis(20), known)?;
    }
    vip::move_to(lab, vip, other)?;
    let moved = vip::wait(lab, vip, "moves", Duration::from_secs(20), |vip| {
        vip.ready && vip.owner.as_ref() == Some(other)
    })?;
    ensure!(moved.mac != old.mac, "both nodes have {}", old.mac);
    match row.after {
        After::Now => {
            let known =
                || Ok((neighbours::cached(lab, vip)? == Some(moved.mac.clone())).then_some(()));
            // A machine with other work says it later.
            let limit = BURST * 2;
            sh::wait_for("the new entry", limit, Duration::from_millis(50), known)
        }
        After::Nothing => {
            thread::sleep(BURST);
            match neighbours::cached(lab, vip)? {
                None => Ok(()),
                Some(mac) => bail!("it has {mac}: the rows where one is made show nothing"),
            }
        }
    }
}

/// Settings of the client's kernel, and what they were.
struct Settings(Vec<(&'static str, String)>);

impl Settings {
    fn put(lab: &Lab, settings: &[(&'static str, &str)]) -> Result<Self> {
        let mut before = Self(Vec::new());
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            let old = lab.client(&["cat", &path])?;
            ensure!(old.status.success(), "the client's kernel has no {name}");
            before
                .0
                .push((name, String::from_utf8_lossy(&old.stdout).trim().to_owned()));
            set(lab, name, value)?;
        }
        Ok(before)
    }

    fn back(self, lab: &Lab) -> Result<()> {
        let mut all = self.0.iter();
        all.try_for_each(|(name, value)| set(lab, name, value))
    }
}

fn set(lab: &Lab, name: &str, value: &str) -> Result<()> {
    let line = format!("echo {value} > /proc/sys/net/{name}");
    sh::run(lab.client_command(&["sh", "-c", &line])).map(drop)
}
