//! What the demo shows, in order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::experiment::{Outcome, Traffic};
use lightship_e2e::{scene, vip};
use lightship_lab::progress::Progress;
use lightship_lab::workload::{Service, TrafficPolicy};
use lightship_lab::{How, Lab};
use serde_json::Value;

use super::story::Story;

/// Name of the Service and label of its pods.
const APP: &str = "web";

/// Connections that stand when the node dies.
const FLOWS: usize = 100;

/// How long the effect of the crash is watched.
const WATCH: Duration = Duration::from_secs(5);

/// Tells all of it on a lab that is up.
pub(super) fn tell(lab: &mut Lab, story: &mut Story) -> Result<()> {
    let nodes = lab.node_names();
    story.chapter("A pool of addresses, three pods and a Service");
    let address = service(lab, story)?;
    let vip = vip::find(lab, address)?.context("the VirtualIP is gone")?;
    let directs = vip.mode == "DirectRouting";
    let owner = vip.owner.context("nobody owns the address")?;

    story.chapter("Requests from the client");
    requests(lab, story, address, directs)?;

    story.chapter("A crash");
    let outcome = crash(lab, story, address, &owner, directs)?;

    story.chapter("Who has the address now");
    let moved = vip::wait(
        lab,
        address,
        "has a new owner",
        Duration::from_secs(20),
        |vip| vip.owner.as_deref().is_some_and(|now| now != owner),
    )?;
    story.kubectl(lab, &["get", "vip"])?;
    let (_, to, reason) = moved.moved.context("the move is not recorded")?;
    let takeover = outcome.takeover_ms().context("nobody took over")?;
    story.say(&format!(
        "{to} took over {takeover:.0} ms after the crash; the reason on record is {reason}.\n\
         No API server was asked: the nodes settled it among themselves.\n\
         Kubernetes itself will take most of a minute to notice that the node is dead."
    ));
    ensure!(nodes.len() > 1, "there is no second node to take over");
    Ok(())
}

/// Mends what the demo broke, in a lab that stays; removes its objects if nobody is to look at them.
pub(super) fn clean(lab: &mut Lab, remove: bool) -> Result<()> {
    let steps = Progress::on_stderr();
    steps.step("the crashed node booted again", || scene::heal(lab))?;
    if remove {
        steps.step("the demo's objects deleted", || {
            let selector = format!("app={APP}");
            lab.kubectl(&["delete", "service", APP, "--ignore-not-found"])?;
            lab.kubectl(&["delete", "pod", "--selector", &selector, "--wait=false"])?;
            lab.kubectl(&["delete", "addresspool", scene::POOL, "--ignore-not-found"])
        })?;
    }
    Ok(())
}

fn service(lab: &Lab, story: &Story) -> Result<IpAddr> {
    let steps = Progress::on_stderr();
    let pool = scene::pool_object(lab);
    let ranges = pool["spec"]["addresses"].as_array();
    let ranges: Vec<&str> = ranges
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    story.say(&format!(
        "The pool says which addresses Lightship may give away: {}.\n\
         One pod runs on each node. The Service is of type LoadBalancer with\n\
         externalTrafficPolicy: Local, so that pods see the client's own address.",
        ranges.join(" and ")
    ));
    steps.step("AddressPool created", || lab.apply(&pool.to_string()))?;
    steps.step("a pod on each node Ready", || {
        lab.echo_pods(APP, &lab.node_names())
    })?;
    let wish = Service {
        name: APP,
        policy: TrafficPolicy::Local,
        dual_stack: false,
        annotations: &[],
    };
    let address = steps.step("Service created, and its address assigned", || {
        lab.service(&wish)?;
        let addresses = lab.wait_addresses(APP, Duration::from_secs(20))?;
        addresses[0].parse::<IpAddr>().context("no IP address")
    })?;
    let nodes = lab.node_names().len();
    let vip = steps.step("address announced by one node, known to all", || {
        vip::wait_settled(lab, address, nodes, Duration::from_secs(30))
    })?;
    let serving = if vip.mode == "DirectRouting" {
        nodes
    } else {
        1
    };
    steps.step("kube-proxy has its rules for the Service", || {
        scene::wait_served(lab, address, serving)
    })?;
    story.kubectl(lab, &["get", "svc", APP])?;
    story.kubectl(lab, &["get", "vip"])?;
    story.say(
        "`get svc` shows the EXTERNAL-IP as on any cloud. `get vip` is Lightship's own view:\n\
         who answers for the address (OWNER), how it forwards (MODE), how many nodes serve.",
    );
    if vip.mode != "DirectRouting" {
        story.say(
            "\nMode Announce: these nodes' kernel has no ip_vs, so the owner's kube-proxy takes all\n\
             traffic, as with other providers. Shown here: addresses, announcing, failover.\n\
             Not shown: traffic spread over all nodes, and connections that survive a crash.\n\
             `cargo xtask demo --substrate uml` shows those.",
        );
    }
    Ok(address)
}

fn requests(lab: &Lab, story: &Story, address: IpAddr, directs: bool) -> Result<()> {
    story.say(&format!(
        "The client asks http://{address}/ six times. Each pod tells its node, its name and\n\
         the address it was asked from.\n"
    ));
    let url = format!("http://{address}/");
    let mut nodes = BTreeMap::new();
    for _ in 0..6 {
        let body = story.on_client(lab, &["curl", "-sS", "-m", "3", &url])?;
        let answer: Value = serde_json::from_str(&body).context("not a pod's answer")?;
        let text = |name| answer[name].as_str().unwrap_or("?").to_owned();
        let (node, client) = (text("node"), text("client"));
        let seen = client.rsplit_once(':').map_or("?", |(address, _)| address);
        story.say(&format!("{node}  {}  was asked by {seen}", text("pod")));
        *nodes.entry(node).or_insert(0) += 1;
    }
    story.say(if directs {
        "\nAll came in at one node, whose director spread them by IPVS: only the MAC address of\n\
         each packet was changed. The answers went straight from the pods' nodes to the client."
    } else {
        "\nAll came in at one node, and its own pod answered."
    });
    Ok(())
}

fn crash(
    lab: &mut Lab,
    story: &Story,
    address: IpAddr,
    owner: &str,
    directs: bool,
) -> Result<Outcome> {
    let steps = Progress::on_stderr();
    let mut traffic = steps.step(&format!("{FLOWS} connections opened"), || {
        Traffic::start(lab, address, FLOWS)
    })?;
    let by_node: Vec<String> = traffic
        .by_node()
        .iter()
        .map(|(node, count)| format!("{node}: {count}"))
        .collect();
    story.say(&format!(
        "{FLOWS} connections stand ({}), each with a question every 100 ms;\n\
         and a new one is opened every 20 ms. Now {owner}, which answers for {address},\n\
         is killed with its kernel: no goodbye.",
        by_node.join(", ")
    ));
    let outcome = steps.step(&format!("{owner} killed, and its effect watched"), || {
        traffic.disturb(lab, owner, How::Crash, WATCH)
    })?;
    let takeover = outcome
        .takeover_ms()
        .with_context(|| format!("new connections failed for {} s and more", WATCH.as_secs()))?;
    let lost: Vec<String> = outcome
        .flows
        .lost
        .iter()
        .map(|(how, count)| {
            let error = how
                .rsplit_once(": ")
                .map_or(how.as_str(), |(_, error)| error);
            format!("{count} by {error}")
        })
        .collect();
    story.say(&format!(
        "\nNew connections failed for {takeover:.0} ms after the crash. Of those begun later, {} failed.",
        outcome.later_failures(),
    ));
    if outcome.elsewhere() == 0 {
        story.say("All connections stood on the dead node: in mode Announce it takes all of them.");
    } else {
        story.say(&format!(
            "Connections whose node lives: {} of {} went on as if nothing had happened.",
            outcome.kept_elsewhere(),
            outcome.elsewhere(),
        ));
    }
    story.say(&format!(
        "Connections of the dead node ended: {}, the last {:.0} ms after the crash,\n\
         so that clients connect anew instead of hanging.",
        lost.join(", "),
        outcome.last_lost_ms(),
    ));
    ensure!(
        !directs || outcome.kept_elsewhere() == outcome.elsewhere(),
        "connections were lost though their node lives: {:?}",
        outcome.flows
    );
    ensure!(
        outcome.later_failures() == 0,
        "new connections failed after the takeover: {:?}",
        outcome.stream
    );
    Ok(outcome)
}
