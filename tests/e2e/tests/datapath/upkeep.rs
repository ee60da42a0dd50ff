//! What somebody else changes on a node is put back, what the kernel refuses concerns nobody
//! else, and what a speaker made can be taken away again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{director, metrics, object, probe, timeline, vip};
use lightship_lab::{How, Lab, binaries, sh};

use crate::common::Served;

/// In which drift has to be mended: it is looked for every second or every other, and these machines have
/// other work.
const SOON: Duration = Duration::from_secs(4);

/// In which half of its kinds have to be.
const USUAL: Duration = Duration::from_secs(2);

/// In which what the kernel tells of has to be followed: sooner than the next look at what was made.
const AT_ONCE: Duration = Duration::from_secs(1);

fn dual(name: &str) -> Wish<'_> {
    Wish {
        dual_stack: true,
        ..Wish::local(name)
    }
}

/// Everything of ours that a node's kernel holds, in a fixed order, without what counts
/// or has a life of its own.
fn state(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let outside = lab.shell(
        node,
        "ip rule show; ip -6 rule show; ip route show table 7733; ip -6 route show table 7733; \
         ip -o link show ls-host | sed 's/^[0-9]*: //; s/if[0-9]*//; s/link-netnsid.*//'; \
         ip -o -4 address show dev ls-host | sed 's/^[0-9]*: //'; ip netns list | cut -d' ' -f1; \
         for i in rp_filter forwarding; do cat /proc/sys/net/ipv4/conf/ls-host/$i; done",
    )?;
    let inside = director::run(
        lab,
        node,
        &[
            "sh",
            "-c",
            "ip route show table all proto 76; ip -6 route show table all proto 76; \
             ip neigh show nud permanent; ip -6 neigh show nud permanent; \
             ip -o link show | sed 's/^[0-9]*: //; s/@[^:]*//; s/if[0-9]*//; s/link-netnsid.*//'; \
             ipvsadm -L --timeout; \
             cd /proc/sys/net/ipv4; cat vs/sloppy_tcp vs/conntrack vs/expire_nodest_conn \
             conf/all/arp_ignore conf/ls-dir/rp_filter conf/ls-dir/arp_ignore ip_forward",
        ],
    )?;
    let lines = outside.lines().chain(inside.lines());
    let mut lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    // A service with its destinations is one line: their order counts.
    let table = director::table(lab, node)?;
    lines.extend(table.iter().map(|entry| format!("{entry:?}")));
    lines.sort();
    Ok(lines)
}

/// [`state`], once nothing of the tests before is on its way out of it any more, and the guards of their VIPs.
///
/// Routes of the loop guard stay for a minute after their VIP; so long this does not wait. They are told
/// apart, because each may go at any time, and that is no drift.
fn still(lab: &Lab, node: &str, vips: &[IpAddr]) -> Result<(Vec<String>, Vec<String>)> {
    let guards_another = |line: &String| {
        let guarded = line.strip_prefix("blackhole ");
        let address = guarded.and_then(|rest| rest.split(' ').next()?.parse().ok());
        address.is_some_and(|address| !vips.contains(&address))
    };
    let mut last = Vec::new();
    let mut others = BTreeSet::new();
    let found = sh::wait_for(
        &format!("the director of {node} has only {vips:?}, and stays as it is"),
        lab.within(Duration::from_secs(30)),
        // Longer than a speaker lets pass between two looks at what it made.
        Duration::from_millis(2500),
        || {
            let table = director::table(lab, node)?;
            others = director::addresses(lab, node)?;
            others.extend(table.iter().map(|entry| entry.address.ip()));
            others.retain(|address| !vips.contains(address));
            let now = state(lab, node)?;
            let (guards, whole): (Vec<_>, Vec<_>) = now.into_iter().partition(guards_another);
            let same = whole == last;
            last = whole;
            Ok((same && others.is_empty()).then(|| (last.clone(), guards)))
        },
    );
    found.with_context(|| format!("of others it has {others:?}; last seen: {last:#?}"))
}

/// Each thing that a speaker made and that a person may break by hand.
pub(crate) fn drift(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("drift"), |lab, vips| {
        let node = vip::owner(lab, vips[0])?;
        let (v4, v6) = (vips[0], vips[1]);
        let mut others = lab.state().nodes.iter().filter(|n| n.spec.name != node);
        let peer = others.next_back().context("no other node")?;
        let peer = peer.spec.addresses[0].addr();
        let (whole, guards) = still(lab, &node, vips)?;
        let netns = |line: &str| format!("ip netns exec lightship {line}");
        let mut spans = Vec::new();
        for (line, told) in [
            (netns("ipvsadm -C"), "IPVS"),
            (netns(&format!("ipvsadm -D -t {v4}:80")), "IPVS"),
            (
                netns(&format!("ipvsadm -e -t {v4}:80 -r {peer}:80 -g -w 7")),
                "IPVS",
            ),
            (netns("ipvsadm -A -t 198.51.100.250:81 -s rr"), "IPVS"),
            (netns("ipvsadm --set 10 10 10"), "IPVS timeouts"),
            (
                netns(&format!("ip route del local {v4} table local")),
                "local routes",
            ),
            (
                netns(&format!("ip -6 route del local {v6} table local")),
                "local routes",
            ),
            (netns(&format!("ip route del {peer}")), "route 192.0.2."),
            (
                netns(&format!("ip neigh del {peer} dev ls-dir")),
                "neighbour",
            ),
            (netns("sysctl -qw net.ipv4.vs.sloppy_tcp=0"), "sloppy_tcp"),
            (
                netns("sysctl -qw net.ipv4.conf.ls-dir.arp_ignore=0"),
                "arp_ignore",
            ),
            (netns("ip link set ls-dir down"), "ls-dir up"),
            (netns("ip link del ls-dir"), "link ls-dir"),
            ("ip link del ls-host".to_owned(), "links ls-host"),
            (
                "sysctl -qw net.ipv4.conf.ls-host.rp_filter=1".to_owned(),
                "rp_filter",
            ),
            (
                "ip address del 169.254.255.1/32 dev ls-host".to_owned(),
                "169.254.255.1",
            ),
            ("ip netns delete lightship".to_owned(), "the name lightship"),
            ("ip route flush table 7733".to_owned(), "loop guard"),
            ("ip rule del pref 7733".to_owned(), "loop guard"),
        ] {
            let at = probe::now_ns();
            let start = Instant::now();
            lab.shell(&node, &line)?;
            let mut now = Vec::new();
            let mended = sh::wait_for(
                &format!("{node} is as before after {line}"),
                SOON + SOON,
                Duration::from_millis(100),
                || {
                    // Not even the commands of a namespace work while its name is gone.
                    now = state(lab, &node).unwrap_or_default();
                    now.retain(|line| !guards.contains(line));
                    Ok((now == whole).then_some(()))
                },
            );
            let took = start.elapsed();
            if mended.is_err() {
                let missing: Vec<_> = whole.iter().filter(|l| !now.contains(l)).collect();
                let more: Vec<_> = now.iter().filter(|l| !whole.contains(l)).collect();
                bail!("{line} was not mended: missing {missing:#?}, too much {more:#?}");
            }
            timeline::wait_line(lab, &node, at, &["somebody else", told], SOON)?;
            eprintln!("    {:.1} s  {line}", took.as_secs_f64());
            ensure!(took < SOON, "{line} was mended only after {took:?}");
            spans.push(took);
        }
        spans.sort();
        let median = spans[spans.len() / 2];
        eprintln!("    median of {} kinds: {median:.1?}", spans.len());
        ensure!(median <= USUAL, "drift is mended too slowly: {spans:?}");
        mtu_followed(lab, &node)?;
        for address in vips {
            scene::wait_served(lab, *address, lab.node_names().len())?;
        }
        told(lab, &node)
    })
}

/// The director's links take the uplink's MTU over, a smaller one and a greater one: the kernel itself lowers
/// that of a macvlan, and nothing else.
fn mtu_followed(lab: &Lab, node: &str) -> Result<()> {
    let of = |link: &str| format!("cat /sys/class/net/{link}/mtu");
    let uplink = "eth0";
    let was: u32 = lab.shell(node, &of(uplink))?.trim().parse()?;
    for mtu in [was - 100, was] {
        let start = Instant::now();
        lab.shell(node, &format!("ip link set {uplink} mtu {mtu}"))?;
        let mut last = String::new();
        let followed = sh::wait_for(
            &format!("the director's links on {node} have the MTU {mtu}"),
            SOON + SOON,
            Duration::from_millis(50),
            || {
                let inside = "ip netns exec lightship sh -c";
                let (host, own) = (of("ls-host"), of("ls-*"));
                last = lab.shell(node, &format!("{host}; {inside} '{own}'"))?;
                let all: Vec<&str> = last.lines().collect();
                let right = all.iter().all(|found| *found == mtu.to_string());
                Ok((all.len() == 3 && right).then_some(()))
            },
        );
        let took = start.elapsed();
        let limit = lab.within(AT_ONCE);
        if followed.is_err() || took >= limit {
            lab.shell(node, &format!("ip link set {uplink} mtu {was}"))?;
        }
        followed.with_context(|| format!("ls-host, ls-dir and ls-self: {last:?}"))?;
        eprintln!("    {:.1} s  MTU {mtu} of the uplink", took.as_secs_f64());
        ensure!(took < limit, "MTU {mtu} was followed only after {took:?}");
    }
    Ok(())
}

/// An event on the node's Speaker tells of it; of so many changes, not one each.
fn told(lab: &Lab, node: &str) -> Result<()> {
    let notes = sh::wait_for(
        &format!("an event tells that {node} was changed by hand"),
        Duration::from_secs(20),
        Duration::from_millis(500),
        || {
            let events = lab.kubectl_json(&["get", "events", "-n", "default"])?;
            let events = events["items"].as_array().cloned().unwrap_or_default();
            let ours = events.iter().filter(|event| {
                event["reason"] == "ChangedByHand" && event["involvedObject"]["name"] == node
            });
            let notes: Vec<String> = ours.map(|event| event["message"].to_string()).collect();
            Ok((!notes.is_empty()).then_some(notes))
        },
    )?;
    ensure!(
        notes.iter().all(|note| note.contains("put back")),
        "{notes:?}"
    );
    ensure!(notes.len() < 10, "too many events: {notes:#?}");
    eprintln!("    {} events, such as {}", notes.len(), notes[0]);
    Ok(())
}

/// The kernel of a node refuses a real server of one family: only the VIP of that family lacks
/// it there, its other VIP is complete, and clients notice nothing of either.
pub(crate) fn refused(lab: &mut Lab) -> Result<()> {
    // In the local table it makes IPVS take 192.0.2.12 for no host's address
    // (ip_vs_ctl.c, `ip_vs_add_dest`).
    let route = "broadcast 192.0.2.12 dev ls-dir table local";
    let nodes = lab.node_names();
    let broken = &nodes[0];
    director::run(lab, broken, &["sh", "-c", &format!("ip route add {route}")])?;
    let outcome = refused_on(lab, broken, route);
    let line = format!("ip route del {route} 2>/dev/null; true");
    let mended = director::run(lab, broken, &["sh", "-c", &line]);
    scene::cleared(outcome, [mended.map(drop)])
}

fn refused_on(lab: &mut Lab, broken: &str, route: &str) -> Result<()> {
    // An address that had no service yet: a real server that is still in the kernel's trash
    // is taken out of it without any check.
    let wish = dual("refused").fresh();
    lab.apply(&wish.object().to_string())?;
    let outcome = (|| -> Result<()> {
        let addresses = lab.wait_addresses(wish.name, Duration::from_secs(20))?;
        let (v4, v6): (IpAddr, IpAddr) = (addresses[0].parse()?, addresses[1].parse()?);
        let condition = |kind: &str, wanted: &str| {
            let what = format!("says {kind}={wanted}");
            object::wait(
                lab,
                ("speaker", broken),
                &what,
                Duration::from_secs(40),
                |speaker| object::condition(speaker, kind).is_some_and(|c| c.status == wanted),
            )
        };
        let said = condition("DirectorComplete", "False")?;
        let said = object::condition(&said, "DirectorComplete").context("no condition")?;
        let message = said.message;
        eprintln!("    {message}");
        ensure!(
            message.contains(&v4.to_string()) && !message.contains(&v6.to_string()),
            "{message}"
        );
        let local = director::addresses(lab, broken)?;
        ensure!(local.contains(&v6), "on {broken}: {local:?}");
        let table = director::table(lab, broken)?;
        let complete = |vip: IpAddr| {
            let mut of_vip = table.iter().filter(|e| e.address.ip() == vip);
            of_vip.all(|e| e.destinations.len() == lab.node_names().len())
        };
        ensure!(complete(v6) && !complete(v4), "on {broken}: {table:#?}");
        // The directors' tables differ now, which the VirtualIPs show too.
        let limit = Duration::from_secs(20);
        vip::wait(lab, v6, "shows that tables differ", limit, |vip| {
            vip.ready && vip.mode == "DirectRouting" && !vip.directors.starts_with('3')
        })?;
        condition("DirectorsAgree", "False")?;
        let agreeing = |wanted: f64| {
            let told = || metrics::counted(lab, broken, "directors_agreeing");
            sh::wait_for(
                &format!("directors_agreeing of {broken} to be {wanted}"),
                Duration::from_secs(10),
                Duration::from_millis(200),
                || Ok((told()? == wanted).then_some(())),
            )
        };
        agreeing(1.0)?;
        for address in [v4, v6] {
            let mut last = None;
            let served = sh::wait_for(
                &format!("{address} is served"),
                Duration::from_secs(60),
                Duration::from_millis(200),
                || {
                    let span = Duration::from_secs(1);
                    let seen = probe::stream_for(lab, address, 10, span, false)?;
                    last = Some(seen.clone());
                    Ok((seen.failures == 0).then_some(seen))
                },
            );
            let seen = served.with_context(|| format!("{last:?}"))?;
            let owner = vip::owner(lab, address)?;
            eprintln!("    {address} of {owner}: {:?}", seen.nodes);
        }
        director::run(lab, broken, &["sh", "-c", &format!("ip route del {route}")])?;
        condition("DirectorComplete", "True")?;
        condition("DirectorsAgree", "True")?;
        agreeing(lab.node_names().len() as f64)?;
        let local = director::addresses(lab, broken)?;
        ensure!(local.contains(&v4), "{v4} is not back: {local:?}");
        let settled = vip::wait_settled(lab, v4, lab.node_names().len(), Duration::from_secs(20))?;
        ensure!(settled.mode == "DirectRouting", "{settled:?}");
        Ok(())
    })();
    scene::cleared(outcome, [scene::delete_service(lab, wish.name)])
}

/// `lightship-speaker cleanup` leaves the node as it was, and refuses while a speaker runs.
pub(crate) fn cleanup(lab: &mut Lab) -> Result<()> {
    let program = binaries::build(binaries::Profile::Lab)?
        .speaker
        .display()
        .to_string();
    Served::during(lab, &dual("cleanup"), |lab, vips| {
        let node = vip::owner(lab, vips[0])?;
        let clean = |lab: &Lab| lab.exec(&node, &[&program, "cleanup"]);
        let refused = clean(lab)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && said.contains("stop it first"),
            "it cleaned under a running speaker: {said}"
        );
        lab.fail(&node, How::StopSpeaker)?;
        sh::wait_for(
            "the speaker has ended",
            Duration::from_secs(10),
            Duration::from_millis(200),
            || {
                Ok(lab
                    .shell(&node, "! pidof lightship-speaker")
                    .is_ok()
                    .then_some(()))
            },
        )?;
        // Things that look like ours and are not.
        let theirs = "ip rule add pref 7734 iif eth0 lookup 7734; \
            ip route add blackhole 198.51.100.251 table 7733; ip netns add lightship-other";
        lab.shell(&node, theirs)?;
        let output = clean(lab)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for line in said.lines() {
            eprintln!("    {line}");
        }
        let left = lab.shell(
            &node,
            "ip netns list | grep -x 'lightship\\( .*\\)\\?'; ip -o link show | grep ls-; \
             ip rule show pref 7733; ip -6 rule show pref 7733; ip route show table all proto 76; \
             ip -6 route show table all proto 76; ls /run/lightship 2>/dev/null; true",
        )?;
        ensure!(left.trim().is_empty(), "left behind: {left}");
        let kept = lab.shell(
            &node,
            "ip rule show pref 7734; ip route show table 7733; ip netns list",
        )?;
        ensure!(
            kept.contains("7734") && kept.contains("198.51.100.251") && kept.contains("-other"),
            "it took away what is not ours: {kept}"
        );
        let again = clean(lab)?;
        ensure!(again.status.success(), "a second run fails: {again:?}");
        // As the DaemonSet of `deploy/cleanup.yaml` runs it: until it is told to stop.
        let stays = format!("timeout --preserve-status 3 {program} cleanup --stay");
        let start = Instant::now();
        let said = lab.shell(&node, &stays)?;
        ensure!(
            said.contains("this node is clean") && start.elapsed() >= Duration::from_secs(3),
            "it did not stay, but said: {said}"
        );
        lab.shell(
            &node,
            "ip rule del pref 7734; ip route flush table 7733; ip netns delete lightship-other",
        )?;
        lab.heal(&node)?;
        vip::wait_settled(
            lab,
            vips[0],
            lab.node_names().len(),
            Duration::from_secs(60),
        )?;
        thread::sleep(Duration::from_secs(1));
        let seen = probe::stream_for(lab, vips[0], 10, Duration::from_secs(2), false)?;
        ensure!(seen.failures == 0, "{seen:?}");
        Ok(())
    })
}
