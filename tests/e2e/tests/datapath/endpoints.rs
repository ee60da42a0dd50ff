//! What endpoints a Service has, and what clients get.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lightship_e2e::director;
use lightship_e2e::probe::{self, Flows, Probe};
use lightship_e2e::scene::{self, APP, Wish};
use lightship_lab::workload::{self, POD_PORT, TrafficPolicy};
use lightship_lab::{Lab, sh};
use serde_json::{Value, json};

use crate::common::Served;

/// In which a change has to show: kube-proxy starts programs to write its rules, which takes long
/// in User Mode Linux.
const SOON: Duration = Duration::from_secs(60);

/// Connections that stand while a pod terminates.
const FLOWS: usize = 30;

/// Pods that get unready, are published all the same, terminate and are gone, under policy `Local`: who serves,
/// and what each node's health check port says of it.
pub(crate) fn followed(lab: &mut Lab) -> Result<()> {
    let wish = Wish::local("followed").fresh();
    let mut object = wish.object();
    object["spec"]["selector"] = json!({ "app": "followed" });
    let outcome = lab
        .echo_pods("followed", &lab.node_names())
        .and_then(|()| lab.apply(&object.to_string()))
        .and_then(|_| follow(lab, &wish));
    lab.kubectl(&["delete", "pod", "-l", "app=followed", "--wait=false"])?;
    lab.kubectl(&["delete", "endpointslice", OWN_SLICE, "--ignore-not-found"])?;
    outcome.and(scene::delete_service(lab, wish.name))
}

fn follow(lab: &Lab, wish: &Wish) -> Result<()> {
    let address: IpAddr = lab.wait_addresses(wish.name, Duration::from_secs(20))?[0].parse()?;
    let nodes = lab.node_names();
    let [first, second, third] = &nodes[..] else {
        anyhow::bail!("three nodes are needed, not {nodes:?}");
    };
    let pod = format!("followed-{first}");
    served_by(lab, address, &[first, second, third], "all are ready")?;
    healthy(lab, wish.name, &[first, second, third])?;
    scene::set_ready(lab, &pod, false)?;
    served_by(lab, address, &[second, third], "one is not ready")?;
    healthy(lab, wish.name, &[second, third])?;
    scene::patch_service(lab, wish.name, &json!({ "publishNotReadyAddresses": true }))?;
    served_by(lab, address, &[first, second, third], "all are published")?;
    scene::patch_service(
        lab,
        wish.name,
        &json!({ "publishNotReadyAddresses": false }),
    )?;
    served_by(lab, address, &[second, third], "they are not any more")?;
    scene::set_ready(lab, &pod, true)?;
    served_by(lab, address, &[first, second, third], "it is ready again")?;

    // It goes on serving what it has until the end of its grace time.
    let mut flows = Probe::flows(lab, address, FLOWS)?;
    let pod = format!("followed-{second}");
    lab.kubectl(&["delete", "pod", &pod, "--wait=false"])?;
    served_by(lab, address, &[first, third], "one terminates")?;
    let flows: Flows = flows.end()?;
    ensure!(
        flows.kept == FLOWS && flows.changed_node == 0,
        "connections were lost: {flows:?}"
    );
    ensure!(
        flows.nodes.get(second).is_some_and(|count| *count > 0),
        "{second} had none: {flows:?}"
    );
    lab.kubectl(&["wait", "--for=delete", "pod", &pod, "--timeout=60s"])?;
    served_by(lab, address, &[first, third], "it is gone")?;
    emptied(lab, wish.name, address, second)?;
    served_by(lab, address, &[first, third], "its slice is empty")
}

/// Under policy `Local`, Pods that are the last ones go on serving while they terminate, also new connections: directors and
/// kube-proxy fall back to endpoints that serve yet.
pub(crate) fn last_ones(lab: &mut Lab) -> Result<()> {
    const NAME: &str = "last";
    let nodes = lab.node_names();
    let [first, second, _] = &nodes[..] else {
        anyhow::bail!("three nodes are needed, not {nodes:?}");
    };
    let wish = Wish::local(NAME).fresh();
    let mut object = wish.object();
    object["spec"]["selector"] = json!({ "app": NAME });
    let pods = [first, second].map(|node| {
        let mut pod = workload::pod(NAME, &format!("{NAME}-{node}"), node);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(60);
        // As workloads have it that are told to end before all know that they will.
        pod["spec"]["containers"][0]["lifecycle"] =
            json!({ "preStop": { "sleep": { "seconds": 25 } } });
        pod
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods });
    let selector = format!("app={NAME}");
    let outcome = (|| {
        lab.apply(&list.to_string())?;
        lab.apply(&object.to_string())?;
        let address: IpAddr = lab.wait_addresses(NAME, Duration::from_secs(20))?[0].parse()?;
        served_by(lab, address, &[first, second], "two have a pod each")?;
        lab.kubectl(&["delete", "pod", "-l", &selector, "--wait=false"])?;
        let limit = Duration::from_secs(10);
        sh::wait_for(
            "both to terminate",
            limit,
            Duration::from_millis(100),
            || Ok((terminating(lab, NAME)? == 2).then_some(())),
        )?;
        // So that those follow who would.
        thread::sleep(lab.within(Duration::from_secs(2)));
        served_by(lab, address, &[first, second], "both terminate")?;
        let left = terminating(lab, NAME)?;
        ensure!(left == 2, "{left} were left: the machine is too slow");
        Ok(())
    })();
    let delete = ["delete", "pod", "-l", &selector, "--force", "--wait=false"];
    let steps = [
        lab.kubectl(&delete).map(drop),
        scene::delete_service(lab, NAME),
    ];
    scene::cleared(outcome, steps)
}

/// How many endpoints of a Service terminate and serve.
fn terminating(lab: &Lab, service: &str) -> Result<usize> {
    let selector = format!("kubernetes.io/service-name={service}");
    let slices = lab.kubectl_json(&["get", "endpointslices", "-l", &selector])?;
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let conditions = endpoints.map(|endpoint| &endpoint["conditions"]);
    Ok(conditions
        .filter(|c| c["terminating"] == true && c["serving"] == true && c["ready"] == false)
        .count())
}

/// A slice that no controller writes.
const OWN_SLICE: &str = "followed-by-hand";

/// A node with one endpoint, in a slice of its own, loses it by one write: so soon no director sends it anything
/// new. The time counts from the write's end, as its begin is a client's that starts.
fn emptied(lab: &Lab, service: &str, address: IpAddr, node: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(500);
    let pod = lab.kubectl_json(&["get", "pod", &format!("{APP}-{node}")])?;
    let slice = |endpoints: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": OWN_SLICE,
                "namespace": "default",
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "tcp", "port": POD_PORT, "protocol": "TCP" }],
            "endpoints": endpoints,
        })
        .to_string()
    };
    lab.apply(&slice(json!([{
        "addresses": [pod["status"]["podIP"]],
        "nodeName": node,
        "conditions": { "ready": true },
    }])))?;
    let own = lab.state().node(node)?.spec.addresses[0].addr();
    let own = format!("{own}:80");
    let target = probe::target(address);
    let limit = Duration::from_secs(10);
    director::wait_alike(lab, &lab.node_names(), "serve it", limit, |table| {
        let of_vip = table.iter().filter(|e| e.address == target);
        let mut all = of_vip.flat_map(|e| &e.destinations);
        all.any(|d| d.address == own && d.weight == 1)
    })?;
    // Each node watches its own table, and a client of the API that has started waits for its input:
    // to start either takes longer than what is measured.
    let shown = format!("ipvsadm -Ln -t {target} | grep -q '{own} *Route *0 '");
    let script = format!("until {shown}; do sleep 0.03; done");
    // One that is removed instead of set to 0 never shows.
    let watch = ["timeout", "30", "ip", "netns", "exec", director::NETNS];
    let watch = [&watch[..], &["sh", "-c", &script]].concat();
    let watch: Vec<String> = watch.into_iter().map(str::to_owned).collect();
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{OWN_SLICE}");
    let mut watches = Vec::new();
    for node in lab.node_names() {
        let command = lab.exec_command(&node, &watch)?;
        watches.push((
            node,
            thread::spawn(move || (sh::output(command, None), Instant::now())),
        ));
    }
    let mut write = lab.kubectl_command(&["replace", "--raw", &path, "-f", "-"]);
    let mut write = write.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    let mut input = write.stdin.take().context("no input")?;
    input.write_all(slice(json!([])).as_bytes())?;
    drop(input);
    ensure!(write.wait()?.success(), "the slice cannot be written");
    let written = start.elapsed();
    for (node, watch) in watches {
        let (output, end) = watch.join().map_err(|_| anyhow!("a watch panicked"))?;
        ensure!(output?.status.success(), "the watch on {node} failed");
        ensure!(end > start, "{node} was at weight 0 before");
        let took = end - start;
        eprintln!(
            "    weight 0 on {node} {took:.2?} after the write began, which took {written:.2?}"
        );
        ensure!(
            took < written + LIMIT,
            "{node} followed only after {took:?}, the write took {written:?}"
        );
    }
    Ok(())
}

/// Waits until new connections succeed, on exactly these nodes.
fn served_by(lab: &Lab, address: IpAddr, nodes: &[&String], when: &str) -> Result<()> {
    let wanted: BTreeSet<&String> = nodes.iter().copied().collect();
    let mut last = None;
    let seen = sh::wait_for(
        &format!("{address} is served by {nodes:?} when {when}"),
        SOON,
        Duration::from_millis(100),
        || {
            let seen = probe::stream_for(lab, address, 10, Duration::from_millis(700), false)?;
            let right = seen.failures == 0 && seen.nodes.keys().collect::<BTreeSet<_>>() == wanted;
            last = Some(seen);
            Ok(right.then_some(()))
        },
    );
    seen.with_context(|| format!("{last:?}"))?;
    eprintln!("    {when}: {nodes:?}");
    Ok(())
}

/// Waits until the health check ports of exactly these nodes say that they have endpoints.
fn healthy(lab: &Lab, name: &str, nodes: &[&String]) -> Result<()> {
    let service = lab.kubectl_json(&["get", "service", name])?;
    let port = service["spec"]["healthCheckNodePort"].as_u64();
    let port = port.context("no healthCheckNodePort")?;
    let mut last = Vec::new();
    let seen = sh::wait_for(
        &format!("the health checks of {nodes:?} alone succeed"),
        SOON,
        Duration::from_millis(200),
        || {
            last.clear();
            for node in &lab.state().nodes {
                let url = format!("http://{}:{port}/healthz", node.spec.addresses[0].addr());
                let ask = [
                    "curl",
                    "-s",
                    "-m",
                    "2",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &url,
                ];
                let output = lab.client(&ask)?;
                let code = String::from_utf8_lossy(&output.stdout).into_owned();
                last.push((node.spec.name.clone(), code));
            }
            let right = last.iter().all(|(node, code)| {
                let wanted = if nodes.contains(&node) { "200" } else { "503" };
                code == wanted
            });
            Ok(right.then_some(()))
        },
    );
    seen.with_context(|| format!("{last:?}"))
}

const ZONE: &str = "topology.kubernetes.io/zone";

/// `trafficDistribution` beside policy `Cluster`: every node serves, and each prefers its own pods.
pub(crate) fn preferred(lab: &mut Lab) -> Result<()> {
    for (index, node) in lab.node_names().iter().enumerate() {
        let zone = format!("{ZONE}=zone{index}");
        lab.kubectl(&["label", "--overwrite", "node", node, &zone])?;
    }
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        ..Wish::local("preferred").fresh()
    };
    let outcome = Served::during(lab, &wish, |lab, vips| {
        crossing(lab, vips[0], |crossed| crossed > 0, "without a preference")?;
        for preference in ["PreferSameNode", "PreferSameZone"] {
            scene::patch_service(
                lab,
                "preferred",
                &json!({ "trafficDistribution": preference }),
            )?;
            crossing(lab, vips[0], |crossed| crossed == 0, preference)?;
            scene::patch_service(lab, "preferred", &json!({ "trafficDistribution": null }))?;
            crossing(lab, vips[0], |crossed| crossed > 0, "without a preference")?;
        }
        // A node without a pod of its own has a fallback.
        scene::patch_service(
            lab,
            "preferred",
            &json!({ "trafficDistribution": "PreferSameNode" }),
        )?;
        crossing(lab, vips[0], |crossed| crossed == 0, "before")?;
        let pod = format!("{APP}-{}", lab.node_names()[0]);
        scene::set_ready(lab, &pod, false)?;
        let fallback = crossing(lab, vips[0], |crossed| crossed > 0, "one node has no pod");
        scene::set_ready(lab, &pod, true)?;
        fallback
    });
    for node in lab.node_names() {
        lab.kubectl(&["label", "node", &node, &format!("{ZONE}-")])?;
    }
    outcome
}

/// Waits until as many connections go on to a pod of another node than the director chose as `wanted`
/// says, and none fails. kube-proxy hides the client behind the node: its address on the LAN, or
/// towards a pod of its own another one.
fn crossing(lab: &Lab, address: IpAddr, wanted: impl Fn(usize) -> bool, when: &str) -> Result<()> {
    let lan: ipnet::IpNet = "192.0.2.0/24".parse()?;
    let mut last = None;
    let seen = sh::wait_for(
        &format!("the share that crosses is right {when}"),
        SOON,
        Duration::from_millis(200),
        || {
            let seen = probe::stream_for(lab, address, 10, Duration::from_secs(1), false)?;
            let crossed = seen.clients.iter().filter(|(client, _)| {
                client
                    .parse()
                    .is_ok_and(|client: IpAddr| lan.contains(&client))
            });
            let crossed = crossed.map(|(_, count)| count).sum();
            let right = seen.failures == 0 && wanted(crossed);
            last = Some(seen);
            Ok(right.then_some(crossed))
        },
    );
    let crossed = seen.with_context(|| format!("{last:?}"))?;
    eprintln!("    {when}: {crossed} connections went on to another node");
    Ok(())
}
