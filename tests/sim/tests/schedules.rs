//! Thousands of random fault schedules. A failure prints the seed and its timeline.

use lightship_sim::schedule;

/// Runs `seeds` on two threads.
fn hold(seeds: std::ops::Range<u64>) {
    let middle = (seeds.start + seeds.end) / 2;
    std::thread::scope(|scope| {
        let halves = [seeds.start..middle, middle..seeds.end];
        for half in halves {
            scope.spawn(move || {
                for seed in half {
                    if let Err(what) = schedule::run(seed) {
                        panic!("{what}");
                    }
                }
            });
        }
    });
}

#[test]
fn two_thousand_schedules_hold() {
    hold(0..2000);
}

#[test]
fn a_run_is_told_by_its_seed_alone() {
    for seed in [7, 982, 1533, 8372] {
        let tell = || schedule::run(seed).unwrap().watch.timeline();
        assert_eq!(tell(), tell());
    }
}
