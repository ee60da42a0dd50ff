use super::*;

fn vip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn claims(list: &[(u8, u64)]) -> Vec<Claim> {
    let claims = list.iter().map(|(last, epoch)| Claim {
        vip: vip(*last),
        epoch: *epoch,
    });
    claims.collect()
}

/// Of a node that claims `all`, with these ends.
fn scope(from: Option<u8>, until: Option<u8>, all: &[(u8, u64)]) -> Scope {
    Scope {
        from: from.map(vip),
        until: until.map(vip),
        digest: digest(all.iter().map(|(last, epoch)| (vip(*last), *epoch))),
    }
}

fn known(table: &PeerClaims) -> Vec<(u8, u64)> {
    let known = table.iter().map(|claim| match claim.vip {
        IpAddr::V4(v4) => (v4.octets()[3], claim.epoch),
        IpAddr::V6(_) => unreachable!(),
    });
    known.collect()
}

/// A peer with three claims, of which all is known.
fn table() -> PeerClaims {
    let mut table = PeerClaims::default();
    assert!(table.told(&claims(ALL), &scope(None, None, ALL)));
    assert!(table.complete());
    table
}

const ALL: &[(u8, u64)] = &[(1, 2), (2, 2), (3, 4)];

#[test]
fn a_page_tells_at_once_what_is_gone_within_its_ends_and_nothing_of_what_is_not() {
    let mut table = table();
    // 2 is gone, and 3 too, which this page says nothing of.
    let now = &[(1, 2)];
    assert!(table.told(&claims(now), &scope(None, Some(3), now)));
    assert_eq!(known(&table), [(1, 2), (3, 4)]);
    assert!(!table.knows_all(&scope(None, Some(3), now)));
    assert!(table.told(&[], &scope(Some(3), None, now)));
    assert_eq!(known(&table), now);
    assert!(table.knows_all(&scope(Some(3), None, now)));
}

#[test]
fn news_count_whatever_page_brings_them() {
    let mut table = table();
    let now = &[(1, 2), (2, 6), (9, 2)];
    let news = &[(2, 6), (3, ENDED), (9, 2)];
    let scope = scope(Some(20), None, now);
    assert!(table.told(&claims(news), &scope));
    assert_eq!(known(&table), now);
    assert!(table.knows_all(&scope) && !table.told(&claims(news), &scope));
    // An end that begins where it ends is of no claims; so is one that a stranger to this release turned around.
    for (from, until) in [(2, 2), (200, 1)] {
        let scope = Scope {
            from: Some(vip(from)),
            until: Some(vip(until)),
            digest: 0,
        };
        assert!(!table.told(&[], &scope));
        assert_eq!(known(&table), now);
    }
}

#[test]
fn all_is_known_of_a_node_once_the_digest_says_so_or_a_datagram_names_all() {
    let mut table = PeerClaims::default();
    let [first, second] = [(None, Some(2)), (Some(2), None)].map(|(a, b)| scope(a, b, ALL));
    assert!(table.told(&claims(&ALL[..1]), &first));
    assert!(!table.complete() && !table.knows_all(&first));
    assert!(table.told(&claims(&ALL[1..]), &second));
    assert!(table.complete() && table.knows_all(&second));
    let mut table = PeerClaims::default();
    assert!(table.told(&[], &scope(None, None, &[])));
    assert!(table.complete());
}

#[test]
fn a_claim_for_a_vip_that_has_gone_is_forgotten_when_the_peer_says_that_it_makes_none() {
    for (from, until, gone) in [(None, Some(2), true), (Some(2), None, false)] {
        let mut table = table();
        table.make_past(&vip(1));
        assert_eq!((known(&table).len(), table.past(&vip(1))), (2, Some(2)));
        // The page of another one of whose claims one is missing too.
        let now = &[(2, 2), (3, 4), (200, 2)];
        let named = if gone { &[][..] } else { &now[..2] };
        table.told(&claims(named), &scope(from, until.or(Some(100)), now));
        assert_eq!(table.past(&vip(1)).is_none(), gone);
    }
    // Its digest says so as well; and one that makes it still has it known again.
    let mut table = table();
    table.make_past(&vip(1));
    table.told(&[], &scope(Some(9), Some(9), &ALL[1..]));
    assert_eq!(table.past(&vip(1)), None);
    table.make_past(&vip(2));
    table.told(&claims(&[(2, 2)]), &scope(Some(9), Some(9), &ALL[1..]));
    assert_eq!((table.past(&vip(2)), known(&table).len()), (None, 2));
}

#[test]
fn a_node_that_goes_back_to_an_older_release_is_understood_and_one_that_comes_from_it() {
    let mut table = table();
    for _ in 0..2 {
        assert_eq!(known(&table), ALL);
        table.page(0, 2, &claims(&ALL[..1]));
        table.page(1, 2, &claims(&ALL[2..]));
    }
    let now = &[(1, 2), (3, 4)];
    assert_eq!(known(&table), now);
    assert!(table.knows_all(&scope(None, None, now)));
    assert!(!table.told(&claims(&now[..1]), &scope(None, Some(3), now)));
    assert!(table.told(&[], &scope(None, None, &[])));
    assert_eq!(known(&table), []);
}
