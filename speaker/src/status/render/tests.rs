use std::time::{Duration, Instant};

use lightship_crds::VirtualIPStatus;

use std::sync::Arc;

use super::*;
use lightship_core::core::Placement;

fn identity() -> Identity {
    Identity {
        node: "node1".into(),
        interface: "eth0".into(),
        director_mac: "02:00:00:00:00:01".into(),
        uplink_mac: "02:00:00:00:00:02".into(),
        origin: Instant::now(),
    }
}

fn report() -> VipReport {
    VipReport {
        epoch: 4,
        announced: true,
        further: None,
        direct_routing: true,
        backends: Arc::new([("node1".into(), 1), ("node2".into(), 0)].into()),
        moved: Some(Move {
            epoch: 4,
            from: Some("node2".into()),
            reason: "OwnerDied".into(),
            at: Duration::ZERO,
        }),
        trouble: None,
        refused: None,
        conflict: None,
        placement: None,
        moved_to: None,
        off_link: None,
        stranded: BTreeMap::new(),
    }
}

fn ready(status: &Value) -> (&str, &str) {
    let ready = &status["conditions"][0];
    (
        ready["status"].as_str().unwrap(),
        ready["reason"].as_str().unwrap(),
    )
}

#[test]
fn a_first_status_waits_for_the_announcement_but_not_for_long() {
    use super::super::{FIRST, first_wait};
    let taken = Duration::from_secs(7);
    let moved = report().moved.map(|moved| Move { at: taken, ..moved });
    let report = VipReport {
        announced: false,
        moved,
        ..report()
    };
    let conflict = Some(lightship_frames::Mac([2, 0, 0, 0, 0, 7]));
    let known = [
        VipReport {
            announced: true,
            ..report.clone()
        },
        VipReport {
            conflict,
            ..report.clone()
        },
        VipReport {
            trouble: Some("no carrier".into()),
            ..report.clone()
        },
        // From before this process.
        VipReport {
            moved: None,
            ..report.clone()
        },
    ];
    for known in known {
        assert_eq!(first_wait(&known, taken), None);
    }
    assert_eq!(first_wait(&report, taken), Some(FIRST));
    assert_eq!(first_wait(&report, taken + FIRST / 4), Some(FIRST * 3 / 4));
    assert_eq!(first_wait(&report, taken + FIRST), None);
}

#[test]
fn a_vip_on_a_further_uplink_tells_of_that() {
    let report = VipReport {
        further: Some(("eth1".into(), lightship_frames::Mac([2, 0, 0, 0, 0, 7]))),
        ..report()
    };
    let value = owned(&identity(), &report, &Ownership::default(), None);
    assert_eq!(value["interface"], "eth1");
    assert_eq!(value["mac"], "02:00:00:00:00:07");
}

#[test]
fn what_the_kernel_refuses_is_said_and_how_the_vip_is_served_meanwhile() {
    let all = Ownership::default();
    for (direct_routing, how) in [(true, "does not hold all"), (false, "kube-proxy alone")] {
        let report = VipReport {
            direct_routing,
            refused: Some("EINVAL".into()),
            ..report()
        };
        let value = owned(&identity(), &report, &all, None);
        assert_eq!(ready(&value), ("True", "DirectorRefused"));
        let message = value["conditions"][0]["message"].as_str().unwrap();
        assert!(
            message.contains(how) && message.contains("EINVAL"),
            "{message}"
        );
    }
}

#[test]
fn an_address_of_another_lan_is_announced_and_told_beside_ready() {
    let all = Ownership::default();
    let on_link = owned(&identity(), &report(), &all, None);
    assert_eq!(on_link["conditions"].as_array().unwrap().len(), 1);
    for (off_link, reason) in [
        (OffLink::Everywhere, "RoutedAddress"),
        (OffLink::Here, "OtherLan"),
    ] {
        let report = VipReport {
            off_link: Some(off_link),
            ..report()
        };
        let value = owned(&identity(), &report, &all, None);
        assert_eq!(ready(&value), ("True", "Announced"));
        let told = &value["conditions"][1];
        assert_eq!(told["type"], "OnLink");
        assert_eq!(
            (&told["status"], &told["reason"]),
            (&json!("False"), &json!(reason))
        );
        assert!(told["message"].as_str().unwrap().contains("eth0"), "{told}");
    }
}

#[test]
fn endpoints_on_another_lan_are_told_with_what_to_do() {
    let nodes = (1..=7).map(|n| NodeName::from(format!("node{n}")));
    let report = VipReport {
        backends: Default::default(),
        stranded: [(ServiceRef::new("shop", "web"), nodes.collect())].into(),
        ..report()
    };
    let value = owned(&identity(), &report, &Ownership::default(), None);
    assert_eq!(ready(&value), ("False", "NoBackends"));
    let told = &value["conditions"][1];
    let is = |key: &str, text: &str| assert_eq!(told[key], text);
    is("type", "Backends");
    is("status", "False");
    is("reason", "EndpointsOffLink");
    let message = told["message"].as_str().unwrap();
    for part in ["shop/web", "node1", "node5 and 2 more", "Cluster"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_status_is_what_the_crd_takes() {
    let all = Ownership {
        directors: 2,
        directors_agreeing: 2,
        ..Ownership::default()
    };
    let value = owned(&identity(), &report(), &all, None);
    let typed: VirtualIPStatus = serde_json::from_value(value).unwrap();
    assert_eq!(typed.owner.as_deref(), Some("node1"));
    assert_eq!(typed.backends_ready.as_deref(), Some("1/2"));
    assert_eq!(typed.directors.as_deref(), Some("2/2"));
    assert_eq!(typed.conditions[0].status, "True");
    let moved = typed.last_move.unwrap();
    assert_eq!(moved.from.as_deref(), Some("node2"));
}

#[test]
fn the_time_of_a_move_stays_what_it_was_first_said_to_be() {
    let (id, all) = (identity(), Ownership::default());
    let first = owned(&id, &report(), &all, None);
    std::thread::sleep(Duration::from_millis(2));
    let second = owned(&id, &report(), &all, Some(&first));
    assert_eq!(first["lastMove"], second["lastMove"]);
    let mut next = report();
    next.epoch = 6;
    let moved = next.moved.as_mut().unwrap();
    (moved.epoch, moved.at) = (6, Duration::from_millis(1));
    let third = owned(&id, &next, &all, Some(&second));
    assert_ne!(first["lastMove"]["time"], third["lastMove"]["time"]);
}

#[test]
fn a_vip_that_nobody_owns_loses_what_its_owner_wrote() {
    let report = Unowned {
        message: "no node can answer for it: …".into(),
        backends: Arc::new([("node1".into(), 1)].into()),
    };
    let value = unowned(&report, None);
    // What is not stated goes when it is applied.
    let stated: Vec<_> = value.as_object().unwrap().keys().collect();
    assert_eq!(stated, ["backends", "backendsReady", "conditions"]);
    assert_eq!(ready(&value), ("False", "NoCandidate"));
    assert_eq!(unowned(&report, Some(&value)), value);
    // Only what the object said of it stays.
    let mut written = value.clone();
    for field in Carried::LastOwner.fields() {
        written[field] = json!("as before");
    }
    assert_eq!(unowned(&report, Some(&written)), written);
}

#[test]
fn a_move_before_the_speaker_started_is_told_on() {
    let adopted = VipReport {
        moved: None,
        ..self::report()
    };
    let all = Ownership::default();
    let id = identity();
    let mut written = owned(&id, &adopted, &all, None);
    assert!(written.get("lastMove").is_none());
    written["lastMove"] = json!({ "to": "node1", "reason": "NodeFailed" });
    let again = owned(&id, &adopted, &all, Some(&written));
    assert_eq!(again["lastMove"], written["lastMove"]);
}

#[test]
fn a_condition_keeps_its_transition_time_until_it_changes() {
    let all = Ownership::default();
    let mut first = owned(&identity(), &report(), &all, None);
    first["conditions"][0]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
    let second = owned(&identity(), &report(), &all, Some(&first));
    assert_eq!(
        second["conditions"][0]["lastTransitionTime"],
        "2020-01-01T00:00:00Z"
    );
    let silent = VipReport {
        announced: false,
        ..report()
    };
    let third = owned(&identity(), &silent, &all, Some(&second));
    assert_ne!(
        third["conditions"][0]["lastTransitionTime"],
        "2020-01-01T00:00:00Z"
    );
    assert_eq!(ready(&third), ("False", "NotAnnounced"));
}

#[test]
fn an_owner_in_trouble_and_a_wish_not_granted_are_told() {
    let report = VipReport {
        trouble: Some("eth0 has no carrier".into()),
        placement: Some(Placement {
            placed: false,
            reason: "NoSuchNode",
            message: "there is no such node".into(),
        }),
        ..report()
    };
    let value = owned(&identity(), &report, &Ownership::default(), None);
    assert_eq!(ready(&value), ("False", "OwnerNotEligible"));
    let message = value["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("eth0 has no carrier"), "{message}");
    assert_eq!(value["conditions"][1]["type"], "Placed");
    assert_eq!(value["conditions"][1]["reason"], "NoSuchNode");
}

#[test]
fn another_user_of_the_address_is_named() {
    let stranger = lightship_frames::Mac([2, 9, 9, 9, 9, 9]);
    for announced in [true, false] {
        let report = VipReport {
            announced,
            conflict: Some(stranger),
            ..report()
        };
        let value = owned(&identity(), &report, &Ownership::default(), None);
        assert_eq!(ready(&value), ("False", "AddressConflict"));
        let message = value["conditions"][0]["message"].as_str().unwrap();
        assert!(message.contains("02:09:09:09:09:09"), "{message}");
    }
}

#[test]
fn without_a_move_of_its_own_the_recorded_one_is_left_alone() {
    let resumed = VipReport {
        moved: None,
        ..report()
    };
    let value = owned(&identity(), &resumed, &Ownership::default(), None);
    assert!(value.get("lastMove").is_none());
}

#[test]
fn of_very_many_backends_those_are_listed_that_take_nothing_new_and_all_are_counted() {
    let name = |n: u32| NodeName::from(format!("node{n:03}"));
    let all = (0..500).map(|n| (name(n), u32::from(n != 321)));
    let report = VipReport {
        backends: Arc::new(all.collect()),
        ..report()
    };
    let value = owned(&identity(), &report, &Ownership::default(), None);
    let listed = value["backends"].as_array().unwrap();
    assert_eq!(listed.len(), LISTED);
    assert_eq!(
        (&listed[0]["node"], &listed[0]["weight"]),
        (&json!("node000"), &json!(1))
    );
    assert_eq!(
        (&listed[63]["node"], &listed[63]["weight"]),
        (&json!("node321"), &json!(0))
    );
    assert_eq!(value["backendsReady"], "499/500");
}
