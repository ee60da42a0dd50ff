use super::*;
use crate::model::{Protocol, Scheduler, ServiceFlags};

fn spec(port: u16, nodes: &[u8]) -> ServiceSpec {
    ServiceSpec {
        key: ServiceKey::new([192, 0, 2, 200].into(), Protocol::Tcp, port),
        scheduler: Scheduler::MH,
        flags: ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT,
        destinations: nodes
            .iter()
            .map(|node| Destination::direct([192, 0, 2, *node].into(), port, 1))
            .collect(),
    }
}

#[test]
fn fnv1a_matches_its_published_vectors() {
    // draft-eastlake-fnv, appendix C.
    for (input, expected) in [
        ("", 0xcbf2_9ce4_8422_2325),
        ("a", 0xaf63_dc4c_8601_ec8c),
        ("foobar", 0x8594_4171_f739_67e8),
    ] {
        let mut hash = Fnv1a::default();
        hash.bytes(input.as_bytes());
        assert_eq!(hash.0, expected, "{input:?}");
    }
}

/// Two versions of the speaker on one cluster compare digests, so this number
/// may only change together with the heartbeat's version.
#[test]
fn the_encoding_is_pinned() {
    assert_eq!(digest(&[]), 0xcbf2_9ce4_8422_2325);
    assert_eq!(
        digest(&[spec(443, &[11, 12, 13])]),
        4_351_273_510_418_036_242
    );
}

#[test]
fn the_order_of_services_does_not_count_but_that_of_destinations_does() {
    let (a, b) = (spec(80, &[11, 12]), spec(443, &[11, 12]));
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b, a]));
    assert_ne!(
        digest(&[spec(80, &[11, 12])]),
        digest(&[spec(80, &[12, 11])])
    );
}

#[test]
fn one_by_one_is_the_same_as_all_at_once() {
    let specs = [spec(80, &[11, 12]), spec(443, &[12])];
    let mut digester = Digester::default();
    specs.iter().for_each(|spec| digester.add(spec));
    assert_eq!(digester.finish(), digest(&specs));
}

#[test]
fn duplicates_count_as_the_plan_reads_them() {
    assert_eq!(
        digest(&[spec(80, &[11, 12, 11])]),
        digest(&[spec(80, &[11, 12])])
    );
    assert_eq!(
        digest(&[spec(80, &[11]), spec(80, &[12])]),
        digest(&[spec(80, &[11])])
    );
}

#[test]
fn every_field_counts() {
    let base = spec(80, &[11, 12]);
    let mut variants = vec![base.clone()];
    let mut vary = |change: &dyn Fn(&mut ServiceSpec)| {
        let mut variant = base.clone();
        change(&mut variant);
        variants.push(variant);
    };
    vary(&|spec| spec.key = ServiceKey::new([192, 0, 2, 201].into(), Protocol::Tcp, 80));
    vary(&|spec| spec.key = ServiceKey::new([192, 0, 2, 200].into(), Protocol::Udp, 80));
    vary(&|spec| {
        spec.key = ServiceKey::FwMark {
            family: Family::V4,
            mark: 80,
        }
    });
    vary(&|spec| {
        spec.key = ServiceKey::FwMark {
            family: Family::V6,
            mark: 80,
        }
    });
    vary(&|spec| spec.scheduler = Scheduler::SH);
    vary(&|spec| spec.flags = ServiceFlags::MH_FALLBACK);
    vary(&|spec| spec.destinations[1].weight = 0);
    vary(&|spec| spec.destinations[1].port = 81);
    vary(&|spec| spec.destinations[1].upper_threshold = 1);
    vary(&|spec| spec.destinations[1].lower_threshold = 1);
    vary(&|spec| spec.destinations[1].forward = Forward::Masquerade);
    vary(&|spec| spec.destinations[1].forward = Forward::Tunnel(crate::model::Tunnel::IPIP));
    vary(&|spec| {
        spec.destinations[1].forward = Forward::Tunnel(crate::model::Tunnel {
            kind: TunnelKind::Gue,
            port: 6080,
            flags: 1,
        });
    });
    vary(&|spec| spec.destinations.truncate(1));
    let digests: std::collections::BTreeSet<u64> = variants
        .iter()
        .map(|variant| digest(std::slice::from_ref(variant)))
        .collect();
    assert_eq!(digests.len(), variants.len());
}
