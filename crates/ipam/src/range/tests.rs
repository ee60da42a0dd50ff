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
            "2000::/3",
            "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            1 << 125,
        ),
        // Private, shared, for documentation, and just beside what no host has.
        ("10.0.0.0/8", "10.0.0.0-10.255.255.255", 1 << 24),
        ("100.64.0.0/31", "100.64.0.0-100.64.0.1", 2),
        ("203.0.113.0/31", "203.0.113.0-203.0.113.1", 2),
        (
            "1.0.0.0-126.255.255.255",
            "1.0.0.0-126.255.255.255",
            126 << 24,
        ),
        ("223.255.255.255/32", "223.255.255.255", 1),
        (
            "240.0.0.1-255.255.255.254",
            "240.0.0.1-255.255.255.254",
            (1 << 28) - 2,
        ),
        ("fd00::/127", "fd00::-fd00::1", 2),
    ] {
        let range = parse(text).unwrap();
        assert_eq!((range.to_string(), range.size()), (shown.into(), size));
    }
    let all = [[0; 16], [255; 16]].map(IpAddr::from);
    assert_eq!(AddrRange::new(all[0], all[1]).unwrap().size(), u128::MAX);
}

#[test]
fn what_no_host_has_is_refused_wherever_it_lies_in_the_range() {
    for (text, network) in [
        ("0.0.0.0/0", "0.0.0.0/8"),
        ("0.255.255.255-1.0.0.9", "0.0.0.0/8"),
        ("127.0.0.1/32", "127.0.0.0/8"),
        ("64.0.0.0/2", "127.0.0.0/8"),
        ("169.254.169.254/32", "169.254.0.0/16"),
        ("169.0.0.1-170.0.0.1", "169.254.0.0/16"),
        ("224.0.0.1-224.0.0.9", "224.0.0.0/4"),
        ("255.255.255.254/31", "255.255.255.255/32"),
        ("::1/128", "::/96"),
        ("::/0", "::/96"),
        ("::192.0.2.1/128", "::/96"),
        ("fe80::1-fe80::9", "fe80::/10"),
        ("8000::/1", "fe80::/10"),
        ("ff02::/16", "ff00::/8"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        let said = format!("contains {network}, ");
        assert!(
            error.contains(&said) && error.contains("no host on a LAN has"),
            "{text}: {error}"
        );
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
    assert!(!a.overlaps(&parse("2000::/3").unwrap()));
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
