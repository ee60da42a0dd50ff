use super::*;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn many(third: u8, count: u16) -> impl Iterator<Item = IpAddr> {
    (0..count).map(move |n| IpAddr::from([198, third + (n >> 8) as u8, 100, n as u8]))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs the schedule as the core does and returns what went out when.
fn run(schedule: &mut Schedule, until: Duration) -> Vec<(Duration, Kind, IpAddr)> {
    let mut said = Vec::new();
    let mut pace = Pace::default();
    while let Some(at) = schedule.next_deadline(&pace).filter(|at| *at <= until) {
        let before = said.len();
        for kind in [Kind::First, Kind::Repeat, Kind::Refresh] {
            let due = schedule.due(kind, &mut pace, at);
            said.extend(due.into_iter().map(|vip| (at, kind, vip)));
        }
        assert!(
            said.len() > before || schedule.next_deadline(&pace) > Some(at),
            "a turn for nothing would be followed by another at once"
        );
    }
    said
}

fn times(schedule: &mut Schedule, vip: IpAddr, until: Duration) -> Vec<Duration> {
    let said = run(schedule, until);
    let of = said.into_iter().filter(|(_, _, which)| *which == vip);
    of.map(|(at, _, _)| at).collect()
}

#[test]
fn a_burst_follows_the_documented_steps_then_refreshes_each_minute() {
    let mut schedule = Schedule::default();
    schedule.burst(ip(1), Urgency::Lost, ms(1_000));
    let times = times(&mut schedule, ip(1), ms(200_000));
    let burst: Vec<_> = times[..6].iter().map(|t| *t - ms(1_000)).collect();
    assert_eq!(burst, BURST);
    for pair in times[5..].windows(2) {
        let gap = pair[1] - pair[0];
        assert!((ms(54_000)..=ms(66_000)).contains(&gap), "{gap:?}");
    }
    assert!(times.len() >= 8);
}

#[test]
fn a_thousand_vips_are_all_announced_within_a_second_of_a_crash_and_again_past_the_locktime() {
    let mut schedule = Schedule::default();
    for vip in many(51, 1_000) {
        schedule.burst(vip, Urgency::Lost, Duration::ZERO);
    }
    let said = run(&mut schedule, ms(20_000));
    let first = said.iter().filter(|(_, kind, _)| *kind == Kind::First);
    let first: BTreeMap<IpAddr, Duration> = first.map(|(at, _, vip)| (*vip, *at)).collect();
    assert_eq!(first.len(), 1_000);
    // What is left of a second once a crash has been noticed.
    assert!(first.values().all(|at| *at < ms(700)));
    for (vip, first) in first {
        let later = ms(1_000) + first..=ms(10_000);
        let again = |(at, _, of): &(Duration, Kind, IpAddr)| *of == vip && later.contains(at);
        assert!(said.iter().any(again), "{vip}");
    }
}

#[test]
fn the_documented_rates_hold_in_every_second() {
    let mut schedule = Schedule::default();
    for vip in many(51, 1_000) {
        schedule.burst(vip, Urgency::Lost, Duration::ZERO);
    }
    for vip in many(60, 1_000) {
        schedule.resume(vip, Duration::ZERO);
    }
    let said = run(&mut schedule, ms(90_000));
    for second in 0..90 {
        let within = |at: &Duration| at.as_secs() == second;
        let count = |kind: Option<Kind>| {
            let all = said.iter().filter(|(at, _, _)| within(at));
            let frames = all.filter(|(_, k, _)| kind.is_none_or(|kind| *k == kind));
            frames.count() * 2
        };
        assert!(count(None) <= 3_060, "{second}");
        assert!(count(Some(Kind::Repeat)) <= 510, "{second}");
        assert!(count(Some(Kind::Refresh)) <= 52, "{second}");
    }
}

#[test]
fn what_a_dead_node_had_comes_before_planned_moves_new_vips_repeats_and_refreshes() {
    let mut schedule = Schedule::default();
    // Three slots of each, entered in the wrong order.
    for vip in many(10, 90) {
        schedule.resume(vip, Duration::ZERO);
    }
    for vip in many(20, 90) {
        schedule.burst(vip, Urgency::New, ms(200));
    }
    run(&mut schedule, ms(299));
    // All of these are to be repeated when the rest comes.
    let now = ms(1_100);
    for (third, urgency) in [
        (30, Urgency::New),
        (40, Urgency::Moved),
        (50, Urgency::Lost),
    ] {
        for vip in many(third, 90) {
            schedule.burst(vip, urgency, now);
        }
    }
    let said = run(&mut schedule, now + ms(400));
    let later = said.into_iter().filter(|(at, _, _)| *at >= now);
    let group = |vip: IpAddr| match vip {
        IpAddr::V4(v4) => v4.octets()[1],
        IpAddr::V6(_) => 0,
    };
    let order: Vec<u8> = later.map(|(_, _, vip)| group(vip)).collect();
    let first: Vec<u8> = order
        .iter()
        .copied()
        .filter(|g| *g >= 30)
        .take(270)
        .collect();
    assert_eq!(first, [[50; 90], [40; 90], [30; 90]].concat());
    // And nothing else comes in between, since the slots are full.
    assert_eq!(order[..270], first);
}

#[test]
fn one_more_word_does_not_begin_a_burst_anew() {
    let mut schedule = Schedule::default();
    schedule.burst(ip(1), Urgency::Lost, Duration::ZERO);
    run(&mut schedule, ms(10_000));
    schedule.once(ip(1), ms(10_000));
    assert_eq!(times(&mut schedule, ip(1), ms(50_000)), [ms(10_000)]);
    // Within a burst its steps stay where they were.
    schedule.burst(ip(2), Urgency::Lost, ms(60_000));
    run(&mut schedule, ms(60_200));
    schedule.once(ip(2), ms(60_300));
    let next = times(&mut schedule, ip(2), ms(61_100));
    assert_eq!(next, [ms(60_300), ms(60_500), ms(61_100)]);
    // Of what is not announced at all there is nothing to repeat.
    schedule.once(ip(3), ms(61_200));
    assert!(times(&mut schedule, ip(3), ms(70_000)).is_empty());
}

#[test]
fn a_resumed_vip_has_the_later_steps_of_a_burst_and_a_stopped_one_is_silent() {
    let mut schedule = Schedule::default();
    schedule.resume(ip(1), ms(100));
    let said = times(&mut schedule, ip(1), ms(30_000));
    let steps = [200, 600, 1_200, 2_300, 5_100].map(ms);
    assert_eq!(said, steps);
    schedule.stop(ip(1));
    assert_eq!(schedule.next_deadline(&Pace::default()), None);
    assert!(run(&mut schedule, ms(90_000)).is_empty());
}
