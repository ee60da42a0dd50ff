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
    let dialect = Dialect {
        classes: Classes::new(&[]),
        metallb: false,
    };
    service(serde_json::from_value(object).unwrap(), &dialect)
}

/// The annotation that names a pool, and the pool.
fn named(wish: &Wish) -> Option<(&str, &str)> {
    let pool = wish.pool.as_ref()?;
    Some((pool.by, &pool.name))
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
    assert_eq!(named(&both), Some((ANNOTATION_POOL, "gold")));

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

#[test]
fn metallb_annotations_count_where_ours_are_missing_and_only_if_asked_to() {
    let object = |annotations: Value| -> Service {
        let object = json!({
            "metadata": { "name": "web", "annotations": annotations },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{ "port": 80 }] },
        });
        serde_json::from_value(object).unwrap()
    };
    let view = |annotations: Value, metallb: bool| {
        let classes = Classes::new(&[]);
        service(object(annotations), &Dialect { classes, metallb })
    };
    let theirs = json!({
        "metallb.io/loadBalancerIPs": "192.0.2.7",
        "metallb.universe.tf/address-pool": "gold",
        "metallb.io/allow-shared-ip": "k",
        "metallb.universe.tf/allow-shared-ip": "old",
    });
    let honoured = view(theirs.clone(), true);
    let Demand::Addresses(wish) = honoured.demand else {
        panic!()
    };
    assert_eq!(wish.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        named(&wish),
        Some(("metallb.universe.tf/address-pool", "gold"))
    );
    assert_eq!(honoured.sharing.key.as_deref(), Some("k"));
    let ignored = view(theirs, false);
    let Demand::Addresses(wish) = ignored.demand else {
        panic!()
    };
    assert!(wish.addresses.is_empty() && wish.pool.is_none() && ignored.sharing.key.is_none());
    let both = json!({ "metallb.io/address-pool": "theirs", ANNOTATION_POOL: "ours" });
    let Demand::Addresses(wish) = view(both, true).demand else {
        panic!()
    };
    assert_eq!(named(&wish), Some((ANNOTATION_POOL, "ours")));
    let bad = view(json!({ "metallb.io/loadBalancerIPs": "x" }), true);
    let Demand::Unclear(fault) = bad.demand else {
        panic!()
    };
    assert!(
        fault.starts_with("metallb.io/loadBalancerIPs: \"x\""),
        "{fault}"
    );
}

#[test]
fn sharing_claims_and_our_condition() {
    let object = json!({
        "metadata": { "name": "dns", "namespace": "shop", "annotations": { ANNOTATION_SHARED_KEY: " k " } },
        "spec": {
            "type": "ClusterIP", "externalTrafficPolicy": "Local", "selector": { "b": "2", "a": "1" },
            "externalIPs": ["192.0.2.9", "2001:db8::9", "192.0.2.9"],
            "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53 }],
        },
        "status": { "conditions": [
            { "type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": CONDITION_ASSIGNED, "status": "False", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:10Z" },
        ] },
    });
    let dialect = Dialect {
        classes: Classes::new(&[]),
        metallb: false,
    };
    let view = service(serde_json::from_value(object).unwrap(), &dialect);
    assert_eq!(view.demand, Demand::Nothing);
    assert_eq!(view.claims.len(), 2);
    assert_eq!(view.sharing.key.as_deref(), Some("k"));
    assert_eq!(view.sharing.backends, Backends::Local("a=1,b=2".into()));
    assert_eq!(view.sharing.ports.len(), 2);
    let told = view.told.unwrap();
    assert_eq!((told.verdict.met, &*told.verdict.message), (false, "m"));
    assert_eq!(told.since.as_second() % 60, 10);
}
