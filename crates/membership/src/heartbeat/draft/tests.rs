use super::*;
use crate::heartbeat::decode;
use crate::heartbeat::tests::{beat as any, keys};

fn vip(n: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, n])
}

/// A heartbeat with the claims for these VIPs.
fn beat(vips: impl IntoIterator<Item = u16>) -> Heartbeat {
    let claims = vips.into_iter().map(|n| Claim {
        vip: vip(n),
        epoch: 2,
    });
    Heartbeat {
        networks: [].into(),
        scope: Some(Scope::default()),
        ..any(claims.collect())
    }
}

fn read(datagrams: Vec<Arc<[u8]>>) -> Vec<Heartbeat> {
    let read = datagrams.iter().map(|datagram| {
        assert!(datagram.len() <= MAX_DATAGRAM);
        decode(datagram, &keys()).unwrap()
    });
    read.collect()
}

/// The datagrams of one turn.
fn turn(draft: &mut Draft, turn: u64) -> Vec<Heartbeat> {
    read(draft.due(turn, &keys()))
}

fn vips(beat: &Heartbeat) -> Vec<IpAddr> {
    beat.claims.iter().map(|claim| claim.vip).collect()
}

fn within(vip: &IpAddr, beat: &Heartbeat) -> bool {
    let scope = beat.scope.unwrap();
    scope.from.is_none_or(|from| from <= *vip) && scope.until.is_none_or(|until| *vip < until)
}

#[test]
fn news_ride_on_every_page_and_pages_tell_all_claims_within_their_ends() {
    for (all, news) in [(200, 1), (200, 20), (1000, 21), (1000, 0)] {
        let is_news = |vip: &IpAddr| (0..news).any(|n| *vip == self::vip(n * 9));
        let mut draft = Draft::by_turns(beat(0..all), is_news, &mut Turns::default());
        let mut told = 0;
        for at in 0..draft.pages() as u64 {
            let beats = turn(&mut draft, at);
            let [one] = &beats[..] else {
                panic!("{} datagrams", beats.len());
            };
            assert!(one.scope.unwrap().alone && u64::from(one.page) == at);
            let expected = (0..all)
                .map(vip)
                .filter(|vip| within(vip, one) || is_news(vip));
            assert!(vips(one).into_iter().eq(expected));
            told += (0..all).filter(|n| within(&vip(*n), one)).count();
        }
        assert_eq!(told, usize::from(all));
    }
}

#[test]
fn news_that_take_more_have_datagrams_of_their_own_and_all_pages_are_told_if_they_are_no_more() {
    let count = |all: u16, news: u16| {
        let is_news = |vip: &IpAddr| *vip < self::vip(news);
        let mut draft = Draft::by_turns(beat(0..all), is_news, &mut Turns::default());
        let beats = turn(&mut draft, 3);
        let told: Vec<IpAddr> = beats.iter().flat_map(vips).collect();
        assert!((0..news).all(|n| told.contains(&vip(n))));
        let numbers: Vec<u16> = beats.iter().map(|beat| beat.page).collect();
        assert!((1..numbers.len()).all(|at| !numbers[..at].contains(&numbers[at])));
        // What is no page says nothing of what it does not name.
        for beat in &beats {
            let within = (0..all).map(vip).filter(|vip| within(vip, beat));
            let named = vips(beat);
            assert!(within.into_iter().all(|vip| named.contains(&vip)));
            assert_eq!(beat.scope.unwrap().alone, beats.len() == 1);
        }
        beats.len()
    };
    // 43 claims a datagram, 21 of which may ride.
    assert_eq!(count(1000, 22), 2);
    assert_eq!(count(1000, 43), 2);
    assert_eq!(count(1000, 43 + 21), 2);
    assert_eq!(count(1000, 300), 8);
    assert_eq!(count(1000, 1000), 24);
    assert_eq!(count(100, 100), 3);
    assert_eq!(count(44, 44), 1);
}

#[test]
fn claims_that_fit_one_datagram_go_in_one() {
    for news in [true, false] {
        let mut draft = Draft::by_turns(beat(0..43), |_| news, &mut Turns::default());
        let beats = turn(&mut draft, 7);
        assert_eq!((draft.pages(), beats.len()), (1, 1));
        let scope = beats[0].scope.unwrap();
        assert_eq!((scope.from, scope.until, scope.alone), (None, None, true));
    }
}

/// A release that knows no scope begins to count anew when the number of pages differs.
#[test]
fn layouts_that_follow_each_other_and_differ_have_different_counts() {
    let mut turns = Turns::default();
    let mut last: Option<(Vec<IpAddr>, u16)> = None;
    for step in 0..600u16 {
        // Every now and then a claim comes or goes, and is news for some heartbeats.
        let changes = step / 4;
        let gone = |n: &u16| *n == changes % 100 || changes % 7 > 3 && *n < changes % 50;
        let all = (0..300).filter(|n| !gone(n));
        let news = |vip: &IpAddr| step % 4 < 3 && *vip == self::vip(299 - changes % 200);
        let mut draft = Draft::by_turns(beat(all), news, &mut turns);
        let starts: Vec<IpAddr> = (1..draft.pages() as u64)
            .filter_map(|page| turn(&mut draft, page)[0].scope.unwrap().from)
            .collect();
        let count = turn(&mut draft, 0)[0].pages;
        assert!(usize::from(count) <= draft.pages() + 1);
        if let Some((before, counted)) = &last {
            let first_claim_changed = starts == *before;
            assert!(first_claim_changed || *counted != count, "step {step}");
        }
        last = Some((starts, count));
    }
}

#[test]
fn an_empty_page_says_nothing_of_what_it_does_not_name() {
    let mut turns = Turns::default();
    let count = |vips: std::ops::Range<u16>, turns: &mut Turns| {
        let mut draft = Draft::by_turns(beat(vips), |_| false, turns);
        let pages = turn(&mut draft, 0)[0].pages;
        (pages, draft)
    };
    assert_eq!(count(0..100, &mut turns).0, 3);
    let (pages, mut draft) = count(1..100, &mut turns);
    assert_eq!((pages, draft.pages()), (4, 3));
    let empty = &turn(&mut draft, 3)[0];
    assert!(empty.claims.is_empty() && !(0..200).any(|n| within(&vip(n), empty)));
    // It stays until something changes.
    assert_eq!(count(1..100, &mut turns).0, 4);
    assert_eq!(count(2..100, &mut turns).0, 3);
}

#[test]
fn each_datagram_is_written_once_and_another_for_nodes_that_flap() {
    let mut draft = Draft::by_turns(beat(0..200), |_| false, &mut Turns::default());
    let [first, again] = [1, 1].map(|turn| draft.due(turn, &keys()).remove(0));
    assert!(Arc::ptr_eq(&first, &again));
    let told = turn(&mut draft.holding(), 1).remove(0);
    let plain = turn(&mut draft, 1).remove(0);
    assert!(told.flags.hold && !plain.flags.hold);
    assert_eq!(told.claims, plain.claims);
}
