use proptest::prelude::*;

use super::*;
use crate::heartbeat::Flags;

fn beat(sender: &str, boot_id: u64, counter: u64, page: u16) -> Heartbeat {
    Heartbeat {
        sender: sender.into(),
        boot_id,
        counter,
        flags: Flags::default(),
        uplink_mac: [0; 6],
        director_mac: [0; 6],
        mode: 0,
        table_digest: 0,
        page,
        pages: 8,
        interface: "".into(),
        late: Vec::new(),
        networks: [].into(),
        held_boot: None,
        further: [].into(),
        scope: None,
        claims: vec![],
    }
}

#[test]
fn accepts_what_is_newer_and_names_what_is_not() {
    let mut guard = ReplayGuard::new();
    let mut check = |boot, counter, page| guard.check(&beat("node1", boot, counter, page));
    assert_eq!(check(100, 5, 1), Ok(()));
    assert_eq!(check(100, 5, 0), Ok(()));
    assert_eq!(check(100, 5, 255), Ok(()));
    assert_eq!(
        check(100, 5, 1),
        Err(ReplayError::Replayed {
            counter: 5,
            page: 1
        })
    );
    assert_eq!(check(100, 9, 0), Ok(()));
    assert_eq!(
        check(100, 8, 7),
        Err(ReplayError::Stale {
            counter: 8,
            page: 7
        })
    );
    // A restart begins to count anew; the old run is over for good.
    assert_eq!(check(101, 0, 0), Ok(()));
    let error = check(100, 10, 0).unwrap_err();
    assert_eq!(
        error,
        ReplayError::OldBoot {
            got: 100,
            newest: 101
        }
    );
    assert_eq!(error.reason(), "old_boot");
}

#[test]
fn senders_do_not_disturb_each_other() {
    let mut guard = ReplayGuard::new();
    assert_eq!(guard.check(&beat("node1", 900, 900, 0)), Ok(()));
    assert_eq!(guard.check(&beat("node2", 1, 1, 0)), Ok(()));
    guard.retain(|name| &**name != "node1");
    assert_eq!(guard.check(&beat("node1", 1, 1, 0)), Ok(()));
    assert!(guard.check(&beat("node2", 1, 1, 0)).is_err());
}

#[test]
fn what_was_heard_before_a_restart_is_still_refused() {
    let mut guard = ReplayGuard::new();
    guard.check(&beat("node1", 100, 5, 0)).unwrap();
    let mut after = ReplayGuard::new();
    for (name, newest) in guard.newest() {
        after.resume(name.clone(), newest);
    }
    assert!(after.check(&beat("node1", 100, 4, 0)).is_err());
    assert!(after.check(&beat("node1", 100, 5, 1)).is_err());
    assert!(after.check(&beat("node1", 99, 9, 0)).is_err());
    assert_eq!(after.check(&beat("node1", 100, 6, 0)), Ok(()));
}

proptest! {
    #[test]
    fn nothing_is_accepted_twice_and_order_never_goes_back(
        beats in proptest::collection::vec((0u64..3, 0u64..6, 0u16..3), 0..60),
    ) {
        let mut guard = ReplayGuard::new();
        let (mut newest, mut accepted) = (None, std::collections::BTreeSet::new());
        for (boot, counter, page) in beats {
            let expected = Some((boot, counter)) >= newest && !accepted.contains(&(boot, counter, page));
            let ok = guard.check(&beat("node1", boot, counter, page)).is_ok();
            prop_assert_eq!(ok, expected);
            newest = newest.max(Some((boot, counter)));
            if ok {
                accepted.insert((boot, counter, page));
            }
        }
    }
}
