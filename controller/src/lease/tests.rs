use super::*;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn elector(instance: &str) -> Elector {
    Elector::new(instance, "1", Timing::default())
}

fn lease(version: u32, holder: &str) -> Sighting {
    Sighting {
        version: version.to_string(),
        holder: holder.to_owned(),
        duration: Some(secs(10.0)),
        transitions: 4,
    }
}

/// Makes it the leader at `now`, with version 1.
fn leader(now: Duration) -> Elector {
    let mut a = elector("a");
    assert_eq!(a.next(now), Step::Look);
    a.looked(None, now, now);
    let Step::Write(put) = a.next(now) else {
        panic!("it does not create the Lease");
    };
    assert_eq!((put.version, put.holder.as_str()), (None, "a_1"));
    assert_eq!(a.acts_until(now), None);
    a.wrote(lease(1, "a_1"), now, now);
    a
}

#[test]
fn times_must_fit() {
    assert!(Timing::default().checked().is_ok());
    let bad = |duration, renew, deadline| {
        let timing = Timing {
            duration: secs(duration),
            renew: secs(renew),
            deadline: secs(deadline),
        };
        timing.checked().unwrap_err()
    };
    assert!(bad(10.0, 0.0, 6.0).contains("--lease-renew-interval"));
    assert!(bad(10.0, 6.0, 6.0).contains("--lease-renew-deadline"));
    assert!(bad(6.0, 2.0, 6.0).contains("--lease-duration"));
}

#[test]
fn a_free_lease_is_taken_at_once() {
    let a = leader(secs(5.0));
    assert_eq!(a.acts_until(secs(5.0)), Some(secs(11.0)));
    let mut b = elector("b");
    b.looked(Some(lease(7, "")), secs(0.0), secs(0.0));
    let Step::Write(put) = b.next(secs(0.0)) else {
        panic!("it waits");
    };
    assert_eq!((put.version.as_deref(), put.transitions), (Some("7"), 5));
    assert!(put.acquires);
}

#[test]
fn the_leader_renews_and_acts_as_long_as_that_succeeds() {
    let mut a = leader(secs(0.0));
    assert_eq!(a.next(secs(0.1)), Step::Wait(secs(2.0)));
    let Step::Write(put) = a.next(secs(2.0)) else {
        panic!("it does not renew");
    };
    assert!(!put.acquires);
    assert_eq!((put.version.as_deref(), put.transitions), (Some("1"), 4));
    // The answer took long: the time counts from the request.
    a.wrote(lease(2, "a_1"), secs(2.0), secs(4.5));
    assert_eq!(a.acts_until(secs(4.5)), Some(secs(8.0)));
    assert!(matches!(a.next(secs(4.5)), Step::Write(_)));
}

#[test]
fn a_leader_that_cannot_renew_stops_in_time_and_takes_the_lease_again() {
    let mut a = leader(secs(0.0));
    a.failed(Refusal::Unknown, secs(3.0), secs(1.0));
    assert_eq!(a.next(secs(3.0)), Step::Wait(secs(4.0)));
    // It may have been written, so it looks.
    assert_eq!(a.next(secs(4.0)), Step::Look);
    a.failed(Refusal::Unknown, secs(5.5), secs(3.0));
    assert_eq!(a.next(secs(5.5)), Step::Wait(secs(6.0)));
    assert_eq!(a.acts_until(secs(5.9)), Some(secs(6.0)));
    assert_eq!(a.acts_until(secs(6.0)), None);
    assert_eq!(a.next(secs(6.0)), Step::Wait(secs(8.5)));
    assert_eq!(a.next(secs(8.5)), Step::Look);
    // Nobody took it meanwhile.
    a.looked(Some(lease(2, "a_1")), secs(8.5), secs(8.6));
    assert!(matches!(a.next(secs(8.6)), Step::Write(put) if put.acquires));
    assert_eq!(a.acts_until(secs(8.6)), None);
    a.wrote(lease(3, "a_1"), secs(8.6), secs(8.7));
    assert_eq!(a.acts_until(secs(8.7)), Some(secs(14.6)));
}

#[test]
fn a_paused_leader_knows_that_its_time_is_over() {
    let mut a = leader(secs(0.0));
    assert_eq!(a.acts_until(secs(60.0)), None);
    assert_eq!(a.next(secs(60.0)), Step::Look);
    a.looked(Some(lease(9, "b_1")), secs(60.0), secs(60.0));
    assert_eq!(a.next(secs(60.0)), Step::Wait(secs(70.0)));
    assert_eq!(a.other_holder(), Some("b_1"));
}

#[test]
fn an_answer_that_comes_too_late_gives_nothing() {
    let mut a = leader(secs(0.0));
    a.wrote(lease(2, "a_1"), secs(2.0), secs(30.0));
    assert_eq!(a.acts_until(secs(30.0)), None);
    assert_eq!(a.next(secs(30.0)), Step::Look);
}

#[test]
fn a_standby_takes_over_when_the_lease_has_not_changed_for_its_duration() {
    let mut b = elector("b");
    b.looked(Some(lease(1, "a_1")), secs(0.0), secs(0.0));
    assert_eq!(b.next(secs(0.0)), Step::Wait(secs(10.0)));
    b.noticed(Some(lease(2, "a_1")), secs(2.0));
    assert_eq!(b.next(secs(2.0)), Step::Wait(secs(12.0)));
    // The same again, as after a broken watch, is no sign of life.
    b.noticed(Some(lease(2, "a_1")), secs(9.0));
    assert_eq!(b.next(secs(11.9)), Step::Wait(secs(12.0)));
    // It reads once more before it takes over: the watch may have been deaf.
    assert_eq!(b.next(secs(12.0)), Step::Look);
    let mut deaf = b.clone();
    deaf.looked(Some(lease(5, "a_1")), secs(12.0), secs(12.1));
    assert_eq!(deaf.next(secs(12.1)), Step::Wait(secs(22.1)));
    b.looked(Some(lease(2, "a_1")), secs(12.0), secs(12.1));
    let Step::Write(put) = b.next(secs(12.1)) else {
        panic!("it waits");
    };
    assert_eq!((put.version.as_deref(), put.transitions), (Some("2"), 5));
}

#[test]
fn a_standby_takes_a_released_or_deleted_lease_at_once() {
    for gone in [Some(lease(2, "")), None] {
        let mut b = elector("b");
        b.looked(Some(lease(1, "a_1")), secs(0.0), secs(0.0));
        b.noticed(gone, secs(1.0));
        assert!(matches!(b.next(secs(1.0)), Step::Write(put) if put.acquires));
    }
}

#[test]
fn the_one_that_comes_second_looks_and_waits() {
    let mut b = elector("b");
    b.looked(None, secs(0.0), secs(0.0));
    b.failed(Refusal::Conflict, secs(0.1), secs(1.0));
    assert_eq!(b.next(secs(0.1)), Step::Look);
    b.looked(Some(lease(1, "a_1")), secs(0.1), secs(0.1));
    assert_eq!(b.next(secs(0.1)), Step::Wait(secs(10.1)));
}

#[test]
fn conflicts_without_end_do_not_spin() {
    let mut b = elector("b");
    b.failed(Refusal::Conflict, secs(0.0), secs(1.0));
    b.failed(Refusal::Conflict, secs(0.0), secs(1.0));
    assert_eq!(b.next(secs(0.0)), Step::Wait(secs(1.0)));
}

#[test]
fn a_leader_that_is_deposed_by_hand_stops() {
    let mut a = leader(secs(0.0));
    // Its own renewals, late, mean nothing.
    a.noticed(Some(lease(1, "a_1")), secs(1.0));
    assert_eq!(a.next(secs(1.0)), Step::Wait(secs(2.0)));
    a.noticed(Some(lease(2, "c_1")), secs(1.0));
    assert_eq!(a.next(secs(1.0)), Step::Look);
    a.looked(Some(lease(2, "c_1")), secs(1.0), secs(1.1));
    assert_eq!(a.acts_until(secs(1.1)), None);
    assert_eq!(a.next(secs(1.1)), Step::Wait(secs(11.1)));
}

#[test]
fn a_leader_whose_lease_is_deleted_makes_it_anew() {
    let mut a = leader(secs(0.0));
    a.noticed(None, secs(1.0));
    assert_eq!(a.next(secs(1.0)), Step::Look);
    a.looked(None, secs(1.0), secs(1.0));
    assert!(matches!(a.next(secs(1.0)), Step::Write(put) if put.version.is_none()));
    assert_eq!(a.acts_until(secs(1.0)), Some(secs(6.0)));
    // Another was faster.
    a.failed(Refusal::Conflict, secs(1.1), secs(1.0));
    a.looked(Some(lease(9, "b_1")), secs(1.1), secs(1.2));
    assert_eq!(a.acts_until(secs(1.2)), None);
}

#[test]
fn an_earlier_run_of_the_same_instance_is_over_but_only_at_first_sight() {
    let mut a = Elector::new("a", "2", Timing::default());
    // The watch may be faster than the first look.
    a.noticed(Some(lease(1, "a_1")), secs(0.0));
    assert_eq!(a.next(secs(0.0)), Step::Look);
    a.looked(Some(lease(1, "a_1")), secs(0.0), secs(0.0));
    assert!(matches!(a.next(secs(0.0)), Step::Write(put) if put.acquires));
    // Two with the same name do not take it from each other for ever.
    a.wrote(lease(2, "a_2"), secs(0.0), secs(0.0));
    a.noticed(Some(lease(3, "a_3")), secs(1.0));
    a.looked(Some(lease(3, "a_3")), secs(1.0), secs(1.0));
    assert_eq!(a.next(secs(1.0)), Step::Wait(secs(11.0)));
    let mut longer = Elector::new("a", "2", Timing::default());
    longer.looked(Some(lease(1, "aa_1")), secs(0.0), secs(0.0));
    assert_eq!(longer.next(secs(0.0)), Step::Wait(secs(10.0)));
}

#[test]
fn only_the_holder_releases() {
    let a = leader(secs(0.0));
    let put = a.release(&lease(3, "a_1")).unwrap();
    assert_eq!(
        (put.version.as_deref(), put.holder.as_str()),
        (Some("3"), "")
    );
    assert_eq!(a.release(&lease(3, "b_1")), None);
}

/// Three replicas with clocks that run from different moments, requests that get lost or are
/// answered late, and pauses: never do two act at once.
#[test]
fn never_do_two_act_at_once() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stored: Option<Sighting> = None;
        let mut version = 0;
        let mut replicas: Vec<(Elector, Duration, Duration)> = (0..3)
            .map(|n| {
                let offset = secs(rng.random_range(0.0..1000.0));
                (elector(&n.to_string()), offset, Duration::ZERO)
            })
            .collect();
        let mut led = [false; 3];
        let mut now = Duration::ZERO;
        while now < secs(300.0) {
            now += secs(0.05);
            for (index, (elector, offset, busy)) in replicas.iter_mut().enumerate() {
                // Standing still, or waiting for an answer.
                if now < *busy {
                    continue;
                }
                let own = now + *offset;
                if rng.random_bool(0.001) {
                    *busy = now + secs(rng.random_range(0.0..30.0));
                    continue;
                }
                let step = elector.next(own);
                if step == Step::Wait(own) {
                    panic!("it spins");
                }
                if matches!(step, Step::Wait(_)) {
                    if rng.random_bool(0.5) {
                        elector.noticed(stored.clone(), own);
                    }
                    continue;
                }
                let took = secs(rng.random_range(0.0..0.5));
                let answered = own + took;
                *busy = now + took;
                if rng.random_bool(0.1) {
                    elector.failed(Refusal::Unknown, answered, secs(0.5));
                    continue;
                }
                match step {
                    Step::Look => elector.looked(stored.clone(), own, answered),
                    Step::Write(put) => {
                        let there = stored.as_ref().map(|lease| lease.version.clone());
                        if put.version != there {
                            elector.failed(Refusal::Conflict, answered, secs(0.5));
                            continue;
                        }
                        version += 1;
                        let written = Sighting {
                            transitions: put.transitions,
                            ..lease(version, &put.holder)
                        };
                        stored = Some(written.clone());
                        // Written, but the answer may be lost.
                        if rng.random_bool(0.1) {
                            elector.failed(Refusal::Unknown, answered, secs(0.5));
                        } else {
                            elector.wrote(written, own, answered);
                        }
                    }
                    Step::Wait(_) => {}
                }
                led[index] |= elector.acts_until(answered).is_some();
            }
            let acting = replicas
                .iter()
                .filter(|(elector, offset, _)| elector.acts_until(now + *offset).is_some());
            assert!(acting.count() <= 1, "seed {seed}: two act at {now:?}");
        }
        assert!(led.iter().any(|led| *led), "seed {seed}: nobody ever led");
    }
}
