use lightship_crds::SpeakerUplink;
use lightship_frames::Mac;

use super::*;

fn facts() -> Facts {
    Facts {
        mode: Some((VipMode::DirectRouting, "IPVS works".into())),
        uplink: Some(Uplink {
            name: "eth0".into(),
            index: 2,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
        }),
        further: vec![3],
        trouble: None,
    }
}

fn none_clash() -> &'static BTreeMap<Mac, BTreeSet<NodeName>> {
    static NONE: BTreeMap<Mac, BTreeSet<NodeName>> = BTreeMap::new();
    &NONE
}

fn untested() -> &'static Verdict {
    static UNTESTED: std::sync::LazyLock<Verdict> = std::sync::LazyLock::new(Verdict::default);
    &UNTESTED
}

fn reading(carrier: bool) -> Reading {
    Reading {
        uplink: SpeakerUplink {
            interface: "eth0".into(),
            ..SpeakerUplink::default()
        },
        carrier,
        answers_for_all: false,
        strict_rp_filter: false,
    }
}

fn ready(seen: &Seen) -> (String, String) {
    let mut conditions = status(seen, None).conditions;
    let condition = conditions.remove(0);
    (condition.status, condition.reason)
}

#[test]
fn the_first_trouble_that_matters_is_named() {
    let (good, bad) = (
        Health::default(),
        Health {
            error: Some("route".into()),
            ..Health::default()
        },
    );
    let (up, down) = (reading(true), reading(false));
    let loud = Reading {
        answers_for_all: true,
        ..reading(true)
    };
    let starting = Facts::default();
    let waiting = Facts {
        trouble: Some(Trouble::new("UplinkMissing", "no interface")),
        ..Facts::default()
    };
    let works = facts();
    for (facts, health, uplink, stopping, expected) in [
        (&works, &good, &up, false, ("True", "Running")),
        (&works, &bad, &up, false, ("False", "DirectorFailing")),
        (&works, &bad, &down, false, ("False", "UplinkDown")),
        (&works, &good, &up, true, ("False", "Stopped")),
        (&works, &good, &loud, false, ("False", "StrictARPOff")),
        (&starting, &good, &up, false, ("False", "Starting")),
        (&waiting, &good, &up, false, ("False", "UplinkMissing")),
    ] {
        let seen = Seen {
            facts,
            health,
            uplink: Some(uplink),
            further: &[],
            used: &[],
            vips: 0,
            verdict: untested(),
            apart: None,
            lost: &BTreeSet::new(),
            clashes: none_clash(),
            stopping,
        };
        let (status, reason) = ready(&seen);
        assert_eq!((&*status, &*reason), expected);
    }
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let lost = BTreeSet::new();
    let (facts, health, up, down) = (facts(), Health::default(), reading(true), reading(false));
    let seen = |uplink| Seen {
        facts: &facts,
        health: &health,
        uplink: Some(uplink),
        further: &[],
        used: &[],
        vips: 3,
        verdict: untested(),
        apart: None,
        lost: &lost,
        clashes: none_clash(),
        stopping: false,
    };
    let mut first = status(&seen(&up), None);
    assert_eq!((first.vips, first.uplinks.len()), (3, 1));
    first.conditions[0].last_transition_time = Time(Timestamp::UNIX_EPOCH);
    let again = status(&seen(&up), Some(&first));
    assert_eq!(again, first);
    let turned = status(&seen(&down), Some(&first));
    assert_ne!(
        turned.conditions[0].last_transition_time.0,
        Timestamp::UNIX_EPOCH
    );
}

#[test]
fn vips_that_the_kernel_refuses_are_named_but_the_speaker_is_ready() {
    let (facts, up) = (facts(), reading(true));
    let reasons = (1..=4).map(|n| (std::net::IpAddr::from([192, 0, 2, n]), "EINVAL".to_owned()));
    let health = Health {
        failing: reasons.collect(),
        ..Health::default()
    };
    let seen = Seen {
        facts: &facts,
        health: &health,
        uplink: Some(&up),
        further: &[],
        used: &[],
        vips: 4,
        verdict: untested(),
        apart: None,
        lost: &BTreeSet::new(),
        clashes: none_clash(),
        stopping: false,
    };
    let conditions = status(&seen, None).conditions;
    assert_eq!(conditions[0].status, "True");
    assert_eq!(conditions[1].type_, CONDITION_DIRECTOR);
    assert_eq!(conditions[1].status, "False");
    let message = &conditions[1].message;
    assert!(
        message.contains("4 VIPs") && message.contains("192.0.2.3: EINVAL; …"),
        "{message}"
    );
}

#[test]
fn what_is_written_equals_what_is_read_back() {
    let (facts, health, up) = (facts(), Health::default(), reading(true));
    let seen = Seen {
        facts: &facts,
        health: &health,
        uplink: Some(&up),
        further: &[],
        used: &[],
        vips: 3,
        verdict: untested(),
        apart: None,
        lost: &BTreeSet::new(),
        clashes: none_clash(),
        stopping: false,
    };
    let written = status(&seen, None);
    let text = serde_json::to_string(&written).unwrap();
    assert_eq!(
        serde_json::from_str::<SpeakerStatus>(&text).unwrap(),
        written
    );
}

#[test]
fn directors_that_differ_are_told_of() {
    let (facts, health, up) = (facts(), Health::default(), reading(true));
    let seen = Seen {
        facts: &facts,
        health: &health,
        uplink: Some(&up),
        further: &[],
        used: &[],
        vips: 0,
        verdict: untested(),
        apart: Some((1, 3)),
        lost: &BTreeSet::new(),
        clashes: none_clash(),
        stopping: false,
    };
    let conditions = status(&seen, None).conditions;
    let found = conditions.iter().find(|c| c.type_ == CONDITION_AGREEMENT);
    let found = found.unwrap();
    assert_eq!((&*found.status, &*found.reason), ("False", "TablesDiffer"));
    assert!(found.message.contains("only 1 of 3"), "{}", found.message);
}

#[test]
fn a_dead_node_is_named_with_the_time_it_was_named_first() {
    let (facts, health, up) = (facts(), Health::default(), reading(true));
    let lost = BTreeSet::from(["node2".into(), "node3".into()]);
    let seen = |stopping| Seen {
        facts: &facts,
        health: &health,
        uplink: Some(&up),
        further: &[],
        used: &[],
        vips: 0,
        verdict: untested(),
        apart: None,
        lost: &lost,
        clashes: none_clash(),
        stopping,
    };
    let mut first = status(&seen(false), None);
    let names: Vec<&str> = first.lost_peers.iter().map(|p| &*p.node).collect();
    assert_eq!(names, ["node2", "node3"]);
    first.lost_peers[0].since = Time(Timestamp::UNIX_EPOCH);
    let again = status(&seen(false), Some(&first));
    assert_eq!(again.lost_peers, first.lost_peers);
    let stopped = status(&seen(true), Some(&first));
    assert_eq!(stopped.lost_peers, [], "nobody would withdraw it later");
}

#[test]
fn a_long_text_is_cut_between_characters() {
    assert_eq!(cut("häfen", 2), "h");
    assert_eq!(cut("häfen", 3), "hä");
    assert_eq!(cut("short", 1024), "short");
}

#[test]
fn a_director_that_the_network_does_not_let_work_is_none_and_the_reason_is_said() {
    use lightship_core::path::Fault;

    let (facts, health) = (facts(), Health::default());
    let up = reading(true);
    let verdict = Verdict {
        fault: Some(Fault::FramesFromDirectorDropped),
        with: ["node2".into()].into(),
        known: 1,
        ..Verdict::default()
    };
    let none = BTreeSet::new();
    let seen = Seen {
        facts: &facts,
        health: &health,
        uplink: Some(&up),
        further: &[],
        used: &[],
        vips: 1,
        verdict: &verdict,
        apart: None,
        lost: &none,
        clashes: none_clash(),
        stopping: false,
    };
    let said = status(&seen, None);
    assert_eq!(said.mode, Some(VipMode::Announce));
    assert!(said.mode_reason.contains("node2"), "{}", said.mode_reason);
    assert!(
        said.mode_reason.contains("forged transmits"),
        "{}",
        said.mode_reason
    );
    let tested = said.conditions.iter().find(|c| c.type_ == CONDITION_PATHS);
    let tested = tested.map(|c| (&*c.status, &*c.reason));
    assert_eq!(tested, Some(("False", "FramesFromDirectorDropped")));
    // The node itself works: it answers for VIPs.
    assert_eq!(said.conditions[0].status, "True");
    let seen = Seen {
        verdict: untested(),
        ..seen
    };
    let said = status(&seen, None);
    assert_eq!(said.mode, Some(VipMode::DirectRouting));
    let tested = said.conditions.iter().find(|c| c.type_ == CONDITION_PATHS);
    assert_eq!(tested.map(|c| &*c.status), Some("Unknown"));
}

#[test]
fn nodes_with_one_mac_are_named() {
    let facts = facts();
    let two = BTreeSet::from(["node1".into(), "node2".into()]);
    let clashes = BTreeMap::from([(Mac([2, 0, 0, 0, 0, 7]), two)]);
    for (clashes, status, part) in [
        (none_clash(), "True", "no two nodes"),
        (&clashes, "False", "node1 and node2 have 02:00:00:00:00:07"),
    ] {
        let seen = Seen {
            facts: &facts,
            health: &Health::default(),
            uplink: None,
            further: &[],
            used: &[],
            vips: 0,
            verdict: untested(),
            apart: None,
            lost: &BTreeSet::new(),
            clashes,
            stopping: false,
        };
        let conditions = super::status(&seen, None).conditions;
        let mut found = conditions.iter().filter(|c| c.type_ == CONDITION_MACS);
        let found = found.next().unwrap();
        assert_eq!(found.status, status);
        assert!(found.message.contains(part), "{}", found.message);
    }
}

#[test]
fn further_uplinks_are_listed_and_a_strict_reverse_path_filter_is_told() {
    let lost = BTreeSet::new();
    let (facts, health) = (facts(), Health::default());
    let strict = Reading {
        strict_rp_filter: true,
        ..reading(true)
    };
    let mut second = reading(true);
    second.uplink.interface = "eth1".into();
    let further = [second];
    for (uplink, used, told) in [
        (&reading(true), &["eth1"][..], false),
        (&strict, &[], false),
        (&strict, &["eth1"], true),
    ] {
        let seen = Seen {
            facts: &facts,
            health: &health,
            uplink: Some(uplink),
            further: &further,
            used,
            vips: 1,
            verdict: untested(),
            apart: None,
            lost: &lost,
            clashes: none_clash(),
            stopping: false,
        };
        let status = status(&seen, None);
        let names = status.uplinks.iter().map(|uplink| &*uplink.interface);
        assert_eq!(names.collect::<Vec<_>>(), ["eth0", "eth1"]);
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|c| c.type_ == CONDITION_RETURN);
        assert_eq!(found.is_some_and(|c| c.status == "False"), told);
        assert!(found.is_none_or(|c| c.message.contains("LANs of eth1")));
        assert_eq!(ready(&seen).0, "True");
    }
}
