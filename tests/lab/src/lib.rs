//! A real Kubernetes cluster on one machine, for tests and for the demo.
//!
//! etcd, kube-apiserver and kube-controller-manager run in the network
//! namespace `ls-lab`; nodes hang off its bridge and run real kube-proxy, real
//! pods and the Lightship speaker; a client host shares their LAN. A node is
//! either a network namespace of this kernel or a User Mode Linux process with a
//! kernel of its own: see [`substrate`].
//!
//! `docs/lab.md` is the guide for users; `cargo xtask lab` is the door to it.

pub mod addressing;
pub mod agent_config;
pub mod substrate;
