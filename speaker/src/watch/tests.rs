use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;
use lightship_core::world::{Port, Protocol};

fn object<K: DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn slice(name: &str, service: &str, endpoints: serde_json::Value) -> EndpointSlice {
    object(json!({
        "metadata": { "namespace": "shop", "name": name,
            "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": endpoints,
    }))
}

fn node(name: &str) -> core::Node {
    core::Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        ..core::Node::default()
    }
}

fn web() -> ServiceRef {
    ServiceRef::new("shop", "web")
}

#[test]
fn a_list_replaces_what_was_known_in_one_step() {
    let mut state = State::default();
    for event in [
        Event::Init,
        Event::InitApply(node("a")),
        Event::InitApply(node("b")),
    ] {
        state.take(Change::Node(event));
    }
    assert!(state.world.nodes.is_empty(), "half a list is not the truth");
    state.take(Change::Node(Event::InitDone));
    assert_eq!(state.world.nodes.len(), 2);
    // The watch broke; meanwhile a was deleted and c made.
    for event in [
        Event::Init,
        Event::InitApply(node("b")),
        Event::InitApply(node("c")),
    ] {
        state.take(Change::Node(event));
        assert!(state.world.nodes.contains_key("a"));
    }
    state.take(Change::Node(Event::InitDone));
    let names: Vec<_> = state.world.nodes.keys().map(|n| n.to_string()).collect();
    assert_eq!(names, ["b", "c"]);
    state.take(Change::Node(Event::Delete(node("b"))));
    assert_eq!(state.world.nodes.len(), 1);
}

#[test]
fn nodes_are_read_with_both_families_and_their_bars() {
    let node: core::Node = object(json!({
        "metadata": { "name": "n", "labels":
            { "node.kubernetes.io/exclude-from-external-load-balancers": "false" } },
        "status": {
            "addresses": [
                { "type": "Hostname", "address": "n" },
                { "type": "InternalIP", "address": "2001:db8:2::11" },
                { "type": "InternalIP", "address": "192.0.2.11" },
                { "type": "InternalIP", "address": "192.0.2.99" },
            ],
            "conditions": [{ "type": "NetworkUnavailable", "status": "True" }],
        },
    }));
    let node = convert::node(&node);
    assert_eq!(node.v4, Some([192, 0, 2, 11].into()));
    assert_eq!(node.v6, Some("2001:db8:2::11".parse().unwrap()));
    assert!(node.excluded, "the label bars whatever its value is");
    assert!(node.network_unavailable);
}

#[test]
fn a_node_that_is_not_ready_is_read_as_any_other() {
    let node = |ready: &str| -> core::Node {
        object(json!({
            "metadata": { "name": "n" },
            "spec": { "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }] },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": "192.0.2.11" }],
                "conditions": [{ "type": "Ready", "status": ready }],
            },
        }))
    };
    let read = ["True", "False", "Unknown"].map(|ready| convert::node(&node(ready)));
    assert!(read[1] == read[0] && read[2] == read[0]);
    let bars = &read[0];
    assert!(!bars.out_of_service && !bars.cordoned && !bars.network_unavailable);
}

#[test]
fn a_node_that_somebody_says_is_shut_down_or_cordons_is_read_as_such() {
    let node: core::Node = object(json!({
        "metadata": { "name": "n" },
        "spec": {
            "unschedulable": true,
            "taints": [{ "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" }],
        },
    }));
    let node = convert::node(&node);
    assert!(node.out_of_service && node.cordoned && !node.excluded);
}

#[test]
fn endpoints_are_sorted_by_what_they_can_do() {
    let endpoint = |node: Option<&str>, ready: Option<bool>, serving: Option<bool>| {
        json!({ "addresses": ["198.51.100.1"], "nodeName": node,
            "conditions": { "ready": ready, "serving": serving } })
    };
    let read =
        |list: &[serde_json::Value]| convert::slice(&slice("s", "web", json!(list))).unwrap().1;
    let one = read(&[
        endpoint(Some("ready"), Some(true), None),
        endpoint(Some("unsaid"), None, None),
        endpoint(Some("draining"), Some(false), Some(true)),
        endpoint(Some("broken"), Some(false), Some(false)),
    ]);
    let names = |set: &std::collections::BTreeSet<NodeName>| -> Vec<String> {
        set.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&one.ready), ["ready", "unsaid"]);
    assert_eq!(names(&one.draining), ["draining"]);
    assert!(!one.elsewhere);
    assert!(read(&[endpoint(None, Some(true), None)]).elsewhere);
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let service: core::Service = object(json!({ "spec": { "type": "LoadBalancer", "ports": [
        { "name": "http", "port": 80, "targetPort": "web" },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ] } }));
    let service = convert::service(&service).unwrap();
    let named = |protocol, number| service.slice_port(Port { protocol, number });
    assert_eq!(named(Protocol::Tcp, 80), (Protocol::Tcp, "http".to_owned()));
    assert_eq!(named(Protocol::Udp, 53), (Protocol::Udp, "dns".to_owned()));
    let only: core::Service =
        object(json!({ "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } }));
    let only = convert::service(&only).unwrap();
    let port = *only.ports.first().unwrap();
    assert_eq!(only.slice_port(port), (Protocol::Tcp, String::new()));

    let mut of_http = slice("s", "web", json!([]));
    of_http.ports = object(json!([
        { "name": "http", "port": 8080, "protocol": "TCP" },
        { "port": 8081 },
        { "name": "without-number", "protocol": "TCP" },
    ]));
    let ports = convert::slice(&of_http).unwrap().1.ports.unwrap();
    let expected = [
        (Protocol::Tcp, String::new()),
        (Protocol::Tcp, "http".to_owned()),
    ];
    assert_eq!(ports, expected.into());
    let none = convert::slice(&slice("s", "web", json!([]))).unwrap().1;
    assert_eq!(none.ports, Some([].into()), "it serves no port");
}

#[test]
fn slices_are_filed_by_service_and_follow_their_label() {
    let mut state = State::default();
    let ready = json!([{ "addresses": ["198.51.100.1"], "nodeName": "n" }]);
    state.take(Change::Slice(Event::Apply(slice(
        "s1",
        "web",
        ready.clone(),
    ))));
    state.take(Change::Slice(Event::Apply(slice(
        "s2",
        "web",
        ready.clone(),
    ))));
    assert_eq!(state.world.slices[&web()].len(), 2);
    state.take(Change::Slice(Event::Apply(slice(
        "s2",
        "mail",
        ready.clone(),
    ))));
    assert_eq!(state.world.slices[&web()].len(), 1);
    assert_eq!(
        state.world.slices[&ServiceRef::new("shop", "mail")].len(),
        1
    );
    state.take(Change::Slice(Event::Delete(slice(
        "s2",
        "mail",
        ready.clone(),
    ))));
    state.take(Change::Slice(Event::Delete(slice("s1", "web", ready))));
    assert!(state.world.slices.is_empty());
}

#[test]
fn only_services_that_can_hold_a_vip_are_kept() {
    let service = |kind: &str| -> core::Service {
        object(json!({
            "metadata": { "namespace": "shop", "name": "web" },
            "spec": { "type": kind, "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
                "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }] },
        }))
    };
    let mut state = State::default();
    state.take(Change::Service(Event::Apply(service("LoadBalancer"))));
    let read = &state.world.services[&web()];
    assert!(read.local && read.client_ip_affinity);
    assert_eq!(read.ports.len(), 2);
    state.take(Change::Service(Event::Apply(service("ClusterIP"))));
    assert!(state.world.services.is_empty());
    let mut claims = service("ClusterIP");
    let spec = claims.spec.as_mut().unwrap();
    spec.external_ips = Some(vec!["192.0.2.9".into()]);
    state.take(Change::Service(Event::Apply(claims)));
    assert_eq!(state.world.services[&web()].ports.len(), 2);
}

#[test]
fn what_changes_nothing_here_is_no_news_and_other_services_pods_touch_nothing_that_is_shown() {
    let mut state = State::default();
    state.take(Change::Node(Event::Apply(node("a"))));
    assert!(std::mem::take(&mut state.news));
    // Its kubelet reports, and nothing that matters here is another.
    let mut reported = node("a");
    reported.metadata.resource_version = Some("7".into());
    state.take(Change::Node(Event::Apply(reported)));
    state.take(Change::Node(Event::Delete(node("b"))));
    assert!(!state.news);

    let reference = web();
    state.world.services = [(reference.clone(), Service::default())].into();
    let ready = |node: &str| json!([{ "nodeName": node, "addresses": ["10.244.1.2"] }]);
    state.take(Change::Slice(Event::Apply(slice("one", "web", ready("a")))));
    let mut shown = Shown::default();
    let first = shown.of(&state.world);
    assert_eq!(first.slices.len(), 1);
    state.take(Change::Slice(Event::Apply(slice("two", "db", ready("a")))));
    let second = shown.of(&state.world);
    assert!(second.slices.is(&first.slices) && second.nodes.is(&first.nodes));
    state.take(Change::Slice(Event::Apply(slice("one", "web", ready("b")))));
    let third = shown.of(&state.world);
    assert_ne!(third.slices[&reference], first.slices[&reference]);
    assert!(third.services.is(&first.services));
    // A Service that comes to have an address brings its slices, and takes them along.
    let db = ServiceRef::new("shop", "db");
    state.world.services.insert(db.clone(), Service::default());
    let fourth = shown.of(&state.world);
    assert!(fourth.slices.contains_key(&db) && fourth.slices.len() == 2);
    state.world.services.remove(&db);
    assert_eq!(shown.of(&state.world).slices, third.slices);
}

#[test]
fn an_announcement_says_on_which_uplinks_and_by_which_nodes() {
    let selector = |zone: &str| json!({ "matchLabels": { "zone": zone } });
    let announcement = convert::announcement(&object(json!({
        "metadata": { "name": "lan" },
        "spec": {
            "interfaces": ["eth1", "bond*"],
            "nodeSelectors": [selector("a"), selector("b")],
            "preferredNodes": [{ "weight": 7, "nodeSelector": selector("a") }],
        },
    })));
    let node = |zone: &str| [("zone".to_owned(), zone.to_owned())].into();
    for (zone, allowed, preference) in [("a", true, 7), ("b", true, 0), ("c", false, 0)] {
        assert_eq!(announcement.allows_node(&node(zone)), allowed, "{zone}");
        assert_eq!(announcement.preference(&node(zone)), preference, "{zone}");
    }
    for (interface, allowed) in [("eth1", true), ("bond0", true), ("eth0", false)] {
        assert_eq!(announcement.allows_interface(interface), allowed);
    }
}
