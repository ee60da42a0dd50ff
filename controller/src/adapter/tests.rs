use serde_json::{Value, json};

use super::*;

fn view(spec: Value, annotations: Value) -> ServiceView {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "shop", "uid": "u", "annotations": annotations,
                      "labels": { "tier": "front" }, "creationTimestamp": "2026-01-01T00:00:10Z" },
        "spec": spec,
        "status": { "loadBalancer": { "ingress": [ { "ip": "192.0.2.1", "ipMode": "VIP" }, { "hostname": "x" } ] } },
    });
    service(serde_json::from_value(object).unwrap(), &Classes::new(&[]))
}

fn wish(spec: Value, annotations: Value) -> Wish {
    match view(spec, annotations).demand {
        Demand::Addresses(wish) => wish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_service() {
    let view = view(
        json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"] }),
        json!({}),
    );
    assert_eq!(view.id.to_string(), "shop/web");
    assert_eq!(view.created % 60, 10);
    assert_eq!(view.ingress.len(), 2);
    assert!(view.ingress[0].plain && !view.ingress[1].plain);
    let Demand::Addresses(wish) = view.demand else {
        panic!()
    };
    assert_eq!(wish.families, [Family::V4]);
    assert_eq!(
        (wish.policy, wish.addresses.len(), wish.pool),
        (Policy::Single, 0, None)
    );
}

#[test]
fn policies_follow_the_families_the_cluster_gave() {
    for (spec, families, policy) in [
        (
            json!({ "type": "LoadBalancer", "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack" }),
            vec![Family::V6, Family::V4],
            Policy::PreferDual,
        ),
        (
            json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack" }),
            vec![Family::V4],
            Policy::Single,
        ),
        (
            json!({ "type": "LoadBalancer", "clusterIPs": ["2001:db8::1"], "ipFamilyPolicy": "RequireDualStack" }),
            vec![Family::V6],
            Policy::RequireDual,
        ),
    ] {
        let wish = wish(spec, json!({}));
        assert_eq!((wish.families, wish.policy), (families, policy));
    }
}

#[test]
fn annotations_and_the_old_field() {
    let spec = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack" });
    let both = wish(
        spec,
        json!({ ANNOTATION_ADDRESSES: " 192.0.2.1 , 2001:db8::1", ANNOTATION_POOL: "gold" }),
    );
    assert_eq!(both.addresses.len(), 2);
    assert_eq!(both.pool.as_deref(), Some("gold"));

    let field =
        json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"], "loadBalancerIP": "192.0.2.9" });
    assert_eq!(wish(field.clone(), json!({})).addresses.len(), 1);
    let clash = view(field, json!({ ANNOTATION_ADDRESSES: "192.0.2.1" }));
    assert!(matches!(clash.demand, Demand::Unclear(text) if text.contains("remove one of them")));
    let bad = view(
        json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4"] }),
        json!({ ANNOTATION_ADDRESSES: "192.0.2.300" }),
    );
    assert!(matches!(bad.demand, Demand::Unclear(text)
        if text.starts_with("lightship.dev/addresses: \"192.0.2.300\" is no IP address")));
}

#[test]
fn other_types_and_classes_are_nothing() {
    for spec in [
        json!({ "type": "ClusterIP" }),
        json!({ "type": "LoadBalancer", "loadBalancerClass": "example.com/other" }),
    ] {
        assert_eq!(view(spec, json!({})).demand, Demand::Nothing);
    }
    let ours = json!({ "type": "LoadBalancer", "loadBalancerClass": "lightship.dev/l2", "ipFamilies": ["IPv4"] });
    assert_ne!(view(ours, json!({})).demand, Demand::Nothing);
}

#[test]
fn classes_are_configurable() {
    let own = Classes::new(&["example.com/a".into()]);
    assert!(
        own.accept(Some("example.com/a"))
            && !own.accept(None)
            && !own.accept(Some("lightship.dev/l2"))
    );
    let unset = Classes::new(&[String::new()]);
    assert!(unset.accept(None) && !unset.accept(Some("lightship.dev/l2")));
}

#[test]
fn restrictions_close_pools() {
    let service = view(json!({ "type": "LoadBalancer" }), json!({}));
    let labels: LabelSet = [("team".to_owned(), "a".to_owned())].into();
    for (rules, open) in [
        (json!({}), true),
        (json!({ "namespaces": ["shop"] }), true),
        (json!({ "namespaces": ["other"] }), false),
        (
            json!({ "namespaces": ["other"], "namespaceSelectors": [{ "matchLabels": { "team": "a" } }] }),
            true,
        ),
        (
            json!({ "namespaceSelectors": [{ "matchLabels": { "team": "b" } }] }),
            false,
        ),
        (
            json!({ "serviceSelectors": [{ "matchLabels": { "tier": "front" } }] }),
            true,
        ),
        (
            json!({ "namespaces": ["shop"], "serviceSelectors": [{ "matchLabels": { "tier": "back" } }] }),
            false,
        ),
        (
            json!({ "serviceSelectors": [{ "matchExpressions": [{ "key": "tier", "operator": "Bogus" }] }] }),
            false,
        ),
    ] {
        let parsed: ServiceAllocation = serde_json::from_value(rules.clone()).unwrap();
        assert_eq!(
            refused(&parsed, &service, &labels).is_none(),
            open,
            "{rules}"
        );
    }
}
