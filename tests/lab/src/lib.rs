//! A real Kubernetes cluster on one machine, for tests and for the demo.
//!
//! etcd, kube-apiserver and kube-controller-manager run in the network
//! namespace `ls-lab`; nodes hang off its bridge and run real kube-proxy, real
//! pods and the Lightship speaker; a client host shares their LAN. A node is
//! either a network namespace of this kernel, a User Mode Linux process or a virtual
//! machine, both with a kernel of their own: see [`substrate`].
//!
//! [`up`] and [`down`] make and end it; [`Lab`] is what one does with it in
//! between. `docs/lab.md` is the guide for users; `cargo xtask lab` is the door.

pub mod addressing;
pub mod agent_config;
pub mod binaries;
pub mod control_plane;
pub mod deps;
pub mod k8s_build;
pub mod options;
pub mod process;
pub mod progress;
pub mod sh;
pub mod state;
pub mod status;
pub mod substrate;
pub mod workload;

mod down;
mod faults;
mod lab;
mod lightship;
mod net;
mod nodes;
mod pki;
mod up;

pub use down::down;
pub use faults::How;
pub use lab::Lab;
pub use nodes::control_address;
pub use up::up;
