//! Many random fault schedules. A failure prints the seed and its timeline.

use lightship_sim::schedule;

#[test]
fn a_hundred_thousand_schedules_hold() {
    if let Err(what) = schedule::run_all(0..100_000) {
        panic!("{what}");
    }
}

#[test]
fn a_run_is_told_by_its_seed_alone() {
    for seed in [7, 982, 1533, 8372] {
        let tell = || schedule::tell(seed).watch.timeline();
        assert_eq!(tell(), tell());
    }
}
