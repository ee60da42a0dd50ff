use super::*;

fn parse(text: &str) -> Result<AddrRange, RangeError> {
    text.parse()
}

#[test]
fn cidrs_and_ranges() {
    for (text, shown, size) in [
        ("192.0.2.0/24", "192.0.2.0-192.0.2.255", 256),
        ("192.0.2.8/31", "192.0.2.8-192.0.2.9", 2),
        ("192.0.2.7/32", "192.0.2.7", 1),
        (" 192.0.2.10 - 192.0.2.20 ", "192.0.2.10-192.0.2.20", 11),
        ("192.0.2.10-192.0.2.10", "192.0.2.10", 1),
        ("2001:db8::/126", "2001:db8::-2001:db8::3", 4),
        ("2001:db8::a-2001:db8::f", "2001:db8::a-2001:db8::f", 6),
        (
            "::/0",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            u128::MAX,
        ),
    ] {
        let range = parse(text).unwrap();
        assert_eq!((range.to_string(), range.size()), (shown.into(), size));
    }
}

#[test]
fn errors_name_the_fix() {
    for (text, fix) in [
        (
            "192.0.2.7/24",
            "write 192.0.2.0/24 for the whole network, 192.0.2.7/32",
        ),
        (
            "2001:db8::1/64",
            "write 2001:db8::/64 for the whole network, 2001:db8::1/128",
        ),
        ("192.0.2.20-192.0.2.10", "write 192.0.2.10-192.0.2.20"),
        ("192.0.2.7", "write 192.0.2.7/32"),
        ("2001:db8::7", "write 2001:db8::7/128"),
        ("192.0.2.1-2001:db8::1", "one range per family"),
        ("::ffff:192.0.2.1-::ffff:192.0.2.9", "write it as IPv4"),
        ("192.0.2.0/33", "neither a CIDR nor a range"),
        ("192.0.2.1-", "neither a CIDR nor a range"),
        ("pool", "neither a CIDR nor a range"),
        ("", "neither a CIDR nor a range"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(fix), "{text}: {error}");
    }
}

#[test]
fn overlap_is_symmetric_and_per_family() {
    let a = parse("192.0.2.0/28").unwrap();
    let b = parse("192.0.2.15-192.0.2.30").unwrap();
    let c = parse("192.0.2.16/28").unwrap();
    assert!(a.overlaps(&b) && b.overlaps(&a));
    assert!(!a.overlaps(&c) && !c.overlaps(&a));
    assert!(!a.overlaps(&parse("::/0").unwrap()));
}

#[test]
fn buggy_addresses_are_counted() {
    for (text, count) in [
        ("192.0.2.0/24", 2),
        ("192.0.2.0/32", 1),
        ("192.0.2.255/32", 1),
        ("192.0.2.1-192.0.2.254", 0),
        ("192.0.2.254-192.0.3.1", 2),
        ("192.0.2.0-192.0.3.255", 4),
        ("2001:db8::/64", 0),
    ] {
        assert_eq!(parse(text).unwrap().buggy(), count, "{text}");
    }
}
