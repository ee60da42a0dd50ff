//! Announces virtual IPs and directs their traffic on one node.

fn main() {}
