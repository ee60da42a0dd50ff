//! The project's front door: lab, demo, test, bench.

fn main() {}
