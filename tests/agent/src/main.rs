//! What runs inside a lab node: a small kubelet, pods, probes.

fn main() {}
