//! What is said on the LAN, as strangers see it; and what is not heard of it.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::{neighbours, scene, vip};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{Lab, sh};

use crate::common::Served;
use crate::modes::one_answers;

const SOON: Duration = Duration::from_secs(10);

/// A MAC address that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

/// A new VIP of each family is announced in forms that tcpdump finds right and that the client's
/// kernel, with its default settings, heeds at once in place of an entry that it has.
pub(crate) fn as_strangers_see_it(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("seen").fresh()
    };
    let object = wish.object();
    let asked = object["metadata"]["annotations"]["lightship.dev/addresses"].as_str();
    let addresses = asked.context("no addresses asked for")?.split(',');
    let addresses: Vec<IpAddr> = addresses.map(str::parse).collect::<Result<_, _>>()?;
    for address in &addresses {
        neighbours::believe(*address, NOBODY)?;
    }
    // 135 and 136: neighbour solicitations and advertisements.
    let filter = "arp or (icmp6 and (ip6[40] = 135 or ip6[40] = 136))";
    let capture = neighbours::Capture::verbose(CLIENT_NETNS, "eth0", filter)?;
    lab.apply(&object.to_string())?;
    let outcome = addresses
        .iter()
        .try_for_each(|address| heeded(lab, *address));
    let frames = capture.end()?;
    let macs = addresses.iter().map(|address| announced(lab, *address));
    let macs: Result<Vec<String>> = macs.collect();
    scene::delete_service(lab, wish.name)?;
    outcome?;
    for (address, mac) in addresses.iter().zip(macs?) {
        read(&frames, *address, &mac)
            .with_context(|| format!("captured:\n{}", frames.join("\n")))?;
    }
    Ok(())
}

fn announced(lab: &Lab, address: IpAddr) -> Result<String> {
    Ok(vip::find(lab, address)?.context("no VirtualIP")?.mac)
}

/// Waits until the client's kernel knows the VIP's MAC address, without having asked.
fn heeded(lab: &Lab, address: IpAddr) -> Result<()> {
    let nodes = lab.node_names().len();
    let vip = vip::wait_settled(lab, address, nodes, Duration::from_secs(30))?;
    sh::wait_for(
        &format!("the client to heed the announcement of {address}"),
        // The last of the burst comes after 5 s.
        Duration::from_secs(10),
        Duration::from_millis(50),
        || Ok((neighbours::cached(lab, address)? == Some(vip.mac.clone())).then_some(())),
    )
}

/// Whether one of the frames has all these parts.
fn one_has(frames: &[String], what: &str, parts: &[&str]) -> Result<()> {
    let has = |frame: &&String| parts.iter().all(|part| frame.contains(part));
    ensure!(
        frames.iter().any(|frame| has(&frame)),
        "no {what}: no frame with {parts:?}"
    );
    Ok(())
}

fn read(frames: &[String], vip: IpAddr, mac: &str) -> Result<()> {
    if vip.is_ipv4() {
        // RFC 5227: first a probe, from no address, then the announcement; RFC 5944: both forms.
        let probe = format!("Request who-has {vip} tell 0.0.0.0");
        one_has(frames, "probe", &["> ff:ff:ff:ff:ff:ff", &probe])?;
        let from = format!("{mac} > ff:ff:ff:ff:ff:ff, ethertype ARP");
        let request = format!("Request who-has {vip} tell {vip}");
        one_has(frames, "gratuitous request", &[&from, &request])?;
        let reply = format!("Reply {vip} is-at {mac}");
        one_has(frames, "gratuitous reply", &[&from, &reply])
    } else {
        // RFC 4862 section 5.4.2; RFC 4861 section 7.2.6.
        let who = format!("neighbor solicitation, length 24, who has {vip}");
        one_has(frames, "probe", &[":: > ff02::1:ff", "icmp6 sum ok", &who])?;
        let from = format!("{mac} > 33:33:00:00:00:01, ethertype IPv6");
        let parts = [
            &from,
            "hlim 255",
            &format!("{vip} > ff02::1: [icmp6 sum ok]"),
            &format!("neighbor advertisement, length 32, tgt is {vip}, Flags [override]"),
            &format!("destination link-address option (2), length 8 (1): {mac}"),
        ];
        one_has(frames, "advertisement", &parts)
    }
}

/// Each form of question that a client's kernel or a probing machine asks is answered to whoever asked,
/// with the flags that make the asker believe it.
pub(crate) fn questions(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("asked")
    };
    Served::during(lab, &wish, |lab, vips| {
        // An announcement that comes while the client's kernel looks for a duplicate ends that
        // before the kernel has asked. The last of the burst comes 5 s after the first.
        thread::sleep(Duration::from_millis(5500));
        let client = lab.client(&["cat", "/sys/class/net/eth0/address"])?.stdout;
        let client = String::from_utf8_lossy(&client).trim().to_owned();
        for vip in vips {
            let mac = announced(lab, *vip)?;
            let filter = "arp or (icmp6 and (ip6[40] = 135 or ip6[40] = 136))";
            let capture = neighbours::Capture::verbose(CLIENT_NETNS, "eth0", filter)?;
            let asked = ask(lab, *vip, &mac);
            let frames = capture.end()?;
            asked
                .and_then(|()| answered(&frames, *vip, &mac, &client))
                .with_context(|| format!("captured:\n{}", frames.join("\n")))?;
        }
        Ok(())
    })
}

/// Asks in each form, and waits for what the client's kernel makes of the answers.
fn ask(lab: &Lab, vip: IpAddr, mac: &str) -> Result<()> {
    neighbours::forget(vip)?;
    // Any packet makes the kernel ask everybody; the discard port is nobody's.
    lab.client(&["bash", "-c", &format!("echo > /dev/udp/{vip}/9")])?;
    let known = || Ok((neighbours::cached(lab, vip)?.as_deref() == Some(mac)).then_some(()));
    let often = Duration::from_millis(50);
    sh::wait_for("an answer to all", SOON, often, known)?;
    // An entry that is to be confirmed is asked for at its own MAC address.
    sh::ip(&format!(
        "-n {CLIENT_NETNS} neigh replace {vip} dev eth0 lladdr {mac} nud probe"
    ))?;
    let shows = |argv: &[&str], word: &str| {
        let text = lab.client(argv)?.stdout;
        Ok(String::from_utf8_lossy(&text).contains(word).then_some(()))
    };
    let text = vip.to_string();
    sh::wait_for("an answer to one", SOON, often, || {
        shows(&["ip", "neigh", "show", &text, "dev", "eth0"], "REACHABLE")
    })?;
    if vip.is_ipv4() {
        let agent = &lab.state().nodes[0].spec.agent;
        let mut argv = vec![agent.as_os_str()];
        let words = ["--target", &text, "--asker", "0.0.0.0", "--rate", "10"];
        argv.extend(["flood"].iter().chain(&words).map(std::ffi::OsStr::new));
        argv.extend(["--duration", "500ms"].map(std::ffi::OsStr::new));
        lab.client_command(&argv).output()?;
        return Ok(());
    }
    // The kernel may not use an address that is somebody's.
    sh::ip(&format!("-n {CLIENT_NETNS} addr add {vip}/128 dev eth0"))?;
    let failed = sh::wait_for("duplicate address detection to fail", SOON, often, || {
        shows(&["ip", "-6", "addr", "show", "dev", "eth0"], "dadfailed")
    });
    sh::ip(&format!("-n {CLIENT_NETNS} addr del {vip}/128 dev eth0"))?;
    failed
}

fn answered(frames: &[String], vip: IpAddr, mac: &str, client: &str) -> Result<()> {
    let to_all = if vip.is_ipv4() {
        format!("{client} > ff:ff:ff:ff:ff:ff")
    } else {
        format!("{client} > 33:33:ff")
    };
    let to_one = format!("{client} > {mac}");
    let answer = format!("{mac} > {client}");
    if vip.is_ipv4() {
        let who = format!("Request who-has {vip}");
        one_has(frames, "broadcast request", &[&to_all, &who])?;
        one_has(frames, "unicast request", &[&to_one, &who])?;
        let is_at = format!("Reply {vip} is-at {mac}");
        one_has(frames, "answer", &[&answer, &is_at])?;
        let probe = format!("Request who-has {vip} tell 0.0.0.0");
        one_has(
            frames,
            "probe",
            &["02:00:00:00:f1:0d > ff:ff:ff:ff:ff:ff", &probe],
        )?;
        let answer = format!("{mac} > 02:00:00:00:f1:0d");
        return one_has(frames, "answer to the probe", &[&answer, &is_at]);
    }
    let who = format!("neighbor solicitation, length 32, who has {vip}");
    one_has(frames, "multicast solicitation", &[&to_all, &who])?;
    one_has(frames, "unicast solicitation", &[&to_one, &who])?;
    let tells = format!("neighbor advertisement, length 32, tgt is {vip}, Flags");
    let option = format!("destination link-address option (2), length 8 (1): {mac}");
    let parts = ["hlim 255", "icmp6 sum ok", &tells, &option];
    let to_asker = [&parts[..], &[&answer, "[solicited, override]"]].concat();
    one_has(frames, "answer", &to_asker)?;
    // 24 bytes, or 32 with the nonce of RFC 7527.
    let who = format!("who has {vip}");
    one_has(
        frames,
        "detection of duplicates",
        &[&to_all, ":: > ff02::1:ff", "neighbor solicitation", &who],
    )?;
    // RFC 4861 section 7.2.4: to all nodes, with Solicited off.
    let to_everybody = [
        &parts[..],
        &["> 33:33:00:00:00:01", "> ff02::1: ", "[override]"],
    ]
    .concat();
    one_has(frames, "answer to all", &to_everybody)
}

/// How many requests for others are sent per second, and for how long.
const RATE: u64 = 10_000;
const SECONDS: u64 = 4;

/// The share of a core that a speaker may use meanwhile: several times what is seen, and less than reading
/// each of the requests would take.
const SHARE: f64 = 0.05;

/// Prints how often the speaker of the node waited and ran on, its processor time in ticks of 10 ms,
/// and the frames that the node's uplink received.
const COUNT: &str = r#"
here=$(readlink /proc/self/ns/net)
for p in /proc/[0-9]*; do
    [ "$(cat $p/comm 2>/dev/null)" = lightship-speak ] || continue
    [ "$(readlink $p/ns/net)" = "$here" ] || continue
    waits=$(awk '/^voluntary/ { n += $2 } END { print n }' $p/task/*/status)
    set -- $(cat $p/stat)
    echo $waits $((${14} + ${15})) $(cat /sys/class/net/eth0/statistics/rx_packets)
done
"#;

fn count(lab: &Lab, node: &str) -> Result<[u64; 3]> {
    let output = lab.exec(node, &["sh", "-c", COUNT])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{node} counted {text:?}"))?;
    numbers
        .try_into()
        .map_err(|numbers| anyhow::anyhow!("{node} counted {numbers:?}"))
}

/// Ten thousand ARP requests for others in a second do not wake the speakers, and what is for
/// a VIP is answered meanwhile.
pub(crate) fn flood(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("flooded"), |lab, vips| {
        let nodes = lab.node_names();
        let start = Instant::now();
        let before: Vec<_> = nodes.iter().map(|n| count(lab, n)).collect::<Result<_>>()?;
        let rate = RATE.to_string();
        let duration = format!("{SECONDS}s");
        let words = ["flood", "--rate", &rate, "--duration", &duration];
        let agent = &lab.state().nodes[0].spec.agent;
        let mut argv = vec![agent.as_os_str()];
        argv.extend(words.map(std::ffi::OsStr::new));
        let mut flood = lab.client_command(&argv);
        let flood = flood
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("cannot start the flood")?;
        let answered = one_answers(lab, vips[0]);
        let sent = flood.wait_with_output()?;
        let sent: u64 = String::from_utf8_lossy(&sent.stdout).trim().parse()?;
        answered?;
        for (node, before) in nodes.iter().zip(before) {
            let after = count(lab, node)?;
            let [waits, ticks, received] = [0, 1, 2].map(|at| after[at] - before[at]);
            let (used, passed) = (ticks * 10, start.elapsed().as_secs_f64());
            let share = used as f64 / 1e3 / passed;
            eprintln!(
                "    {node}: {received} frames received of {sent} sent in {SECONDS} s; its speaker \
                 woke {waits} times and used {used} ms in {passed:.1} s, {:.1} % of a core",
                share * 100.0
            );
            ensure!(
                share < SHARE,
                "{node}: its speaker used {:.1} % of a core",
                share * 100.0
            );
            ensure!(received >= sent * 3 / 4, "{node}: the flood did not arrive");
            ensure!(sent > RATE * SECONDS * 3 / 4, "only {sent} requests sent");
            // Less than one in ten. Without the filter it is woken by each burst of five.
            ensure!(
                waits < sent / 10,
                "{node}: woken {waits} times by {sent} requests"
            );
        }
        Ok(())
    })
}
