//! The early word of a dead node: its pods get no more connections long before Kubernetes itself
//! finds out.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lightship_e2e::experiment::{self, PACE, Plan};
use lightship_e2e::scene::{APP, Wish};
use lightship_e2e::{object, scene, vip};
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{How, Lab, sh};

use crate::common::Served;

/// The controller trusts nobody before it has seen the nodes' Leases renewed, which their
/// kubelets do every 10 s.
const TRUST: Duration = Duration::from_secs(11);

/// When new connections should have stopped failing, in milliseconds after the crash: detection,
/// the mark, the EndpointSlices and kube-proxy together take about two seconds.
const OVER: Duration = Duration::from_secs(10);

/// What is watched after that. Kubernetes finds out after 40 s at the earliest.
const WATCH: Duration = Duration::from_secs(16);

/// A node crashes under policy Cluster; connections fail for seconds, not until Kubernetes knows,
/// and everything is as before when the node is back.
pub(crate) fn crash(lab: &mut Lab) -> Result<()> {
    lab.early_node_failure(true)?;
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        ..Wish::local("early").fresh()
    };
    let outcome = Served::during(lab, &wish, |lab, vips| {
        thread::sleep(TRUST);
        let plan = Plan {
            flows: 10,
            how: How::Crash,
            watch: WATCH,
            api_stopped: false,
        };
        let owner = vip::owner(lab, vips[0])?;
        let outcome = experiment::run(lab, vips[0], plan)?;
        let over = OVER.as_secs_f64() * 1000.0;
        let (soon, later) = (
            outcome.failures_between(0.0, over),
            outcome.failures_between(over, f64::MAX),
        );
        let node = lab.kubectl_json(&["get", "node", &owner])?;
        let known = object::condition(&node, "Ready").is_none_or(|ready| ready.status != "True");
        eprintln!(
            "    {owner} crashed: {soon} of {} new connections failed in the first {OVER:?}, {later} later",
            outcome.stream.requests,
        );
        ensure!(
            !known,
            "Kubernetes itself knows already: the machine is too slow"
        );
        // Without it a third of those begun later would fail. A few may hit a port whose former
        // connection the nodes still send to the dead pod.
        let begun = (WATCH - OVER).as_millis() / u128::from(PACE);
        ensure!(
            u128::try_from(later)? * 20 < begun,
            "{later} of about {begun} failed after {OVER:?}: {:?}",
            outcome.stream
        );
        let marked = pod_ready(lab, &owner)?;
        ensure!(marked.as_deref() == Some("False"), "the pod was not marked");
        let note = told(lab, &owner, "PodsMarkedNotReady")?;
        ensure!(note.contains("2 of 2 witnesses"), "{note}");
        heal(lab, vips[0])?;
        cut_off(lab)?;
        heal(lab, vips[0])
    });
    lab.early_node_failure(false)?;
    outcome
}

/// A node that only its peers have lost has its pods back from its kubelet, as it goes on renewing its Lease.
fn cut_off(lab: &mut Lab) -> Result<()> {
    let node = lab.node_names().remove(0);
    // The next renewal is then seconds away, the mark one or two.
    let renewed = renewed(lab, &node)?;
    sh::wait_for(
        &format!("{node} renews its Lease"),
        Duration::from_secs(20),
        Duration::from_millis(100),
        || Ok((self::renewed(lab, &node)? != renewed).then_some(())),
    )?;
    lab.fail(&node, How::Partition { also_api: false })?;
    sh::wait_for(
        &format!("the pod of {node} is marked"),
        Duration::from_secs(9),
        Duration::from_millis(50),
        || Ok((pod_ready(lab, &node)?.as_deref() == Some("False")).then_some(())),
    )?;
    let note = told(lab, &node, "NodeFailureHeldBack")?;
    ensure!(note.contains("renewed its Lease"), "{note}");
    let pod = format!("{APP}-{node}");
    object::wait(
        lab,
        ("pod", &pod),
        "is ready",
        Duration::from_secs(20),
        |pod| object::condition(pod, "Ready").is_some_and(|ready| ready.status == "True"),
    )?;
    // The kubelet's next renewals keep it so.
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(300));
        let ready = pod_ready(lab, &node)?;
        ensure!(ready.as_deref() == Some("True"), "marked again");
    }
    Ok(())
}

fn heal(lab: &mut Lab, address: IpAddr) -> Result<()> {
    scene::heal(lab)?;
    let nodes = lab.node_names().len();
    vip::wait_settled(lab, address, nodes, Duration::from_secs(60))?;
    scene::wait_served(lab, address, nodes)
}

/// When a node last renewed its Lease.
fn renewed(lab: &Lab, node: &str) -> Result<String> {
    let lease = lab.kubectl_json(&["get", "lease", node, "-n", "kube-node-lease"])?;
    Ok(lease["spec"]["renewTime"].to_string())
}

fn pod_ready(lab: &Lab, node: &str) -> Result<Option<String>> {
    let pod = lab.kubectl_json(&["get", "pod", &format!("{APP}-{node}")])?;
    Ok(object::condition(&pod, "Ready").map(|ready| ready.status.to_owned()))
}

/// What the Node's event of that reason says.
fn told(lab: &Lab, node: &str, reason: &str) -> Result<String> {
    let note = sh::wait_for(
        &format!("an event {reason} of {node}"),
        Duration::from_secs(20),
        Duration::from_millis(200),
        || {
            let events = lab.kubectl_json(&["get", "events"])?;
            let mut events = events["items"].as_array().into_iter().flatten();
            let found = events
                .find(|event| event["involvedObject"]["name"] == node && event["reason"] == reason);
            Ok(found.and_then(|event| Some(event["message"].as_str()?.to_owned())))
        },
    )?;
    eprintln!("    {node}: {note}");
    Ok(note)
}
