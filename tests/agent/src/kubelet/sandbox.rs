//! A pod's network namespace: a veth pair, addresses from the node's pod networks,
//! and the way to start a process in it.
//!
//! Pods hang off the node one by one (a host route to each, the gateway's
//! address on each veth), as the CNI plugin `ptp` does it: no bridge is needed.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use lightship_lab::agent_config::AgentConfig;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};

use crate::node::network::{ip_batch, no_dad};

/// Where `ip netns` looks for names.
const NAMED: &str = "/run/netns";

/// A place for a pod on the node: its number within each of the node's pod networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u8);

impl Slot {
    /// 0 is the network, 1 the gateway, 15 the broadcast address of an IPv4 /28.
    const USABLE: std::ops::Range<u8> = 2..15;

    /// The place that the pod's status names, if it is free (so that a pod keeps
    /// its address over a restart of the node), or else the lowest free one.
    pub(super) fn choose(config: &AgentConfig, pod: &Pod, taken: &[Self]) -> Option<Self> {
        let earlier = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref());
        let free = || Self::USABLE.map(Self).filter(|slot| !taken.contains(slot));
        free()
            .find(|slot| {
                let addresses = slot.addresses(config);
                addresses.first().map(ToString::to_string).as_ref() == earlier
            })
            .or_else(|| free().next())
    }

    /// The pod's addresses, in the order of the node's pod networks.
    pub(super) fn addresses(self, config: &AgentConfig) -> Vec<IpAddr> {
        let nets = config.pod_cidrs.iter();
        nets.map(|network| nth(network, self.0)).collect()
    }

    /// The pod's interface on the node.
    fn interface(self) -> String {
        format!("pod{}", self.0)
    }
}

fn nth(network: &IpNet, number: u8) -> IpAddr {
    match network.network() {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(number)).to_be_bytes()),
        IpAddr::V6(address) => {
            IpAddr::from((u128::from(address) + u128::from(number)).to_be_bytes())
        }
    }
}

/// A network namespace that exists; [`Sandbox::remove`] ends it.
#[derive(Clone)]
pub(super) struct Sandbox {
    name: String,
    slot: Slot,
}

impl Sandbox {
    /// Makes namespace, veth pair, addresses and routes. Blocks for some tens of milliseconds.
    pub(super) fn create(name: &str, slot: Slot, config: &AgentConfig) -> Result<Self> {
        let sandbox = Self {
            name: name.to_owned(),
            slot,
        };
        // Leftovers of an agent that was killed on a node that lived on.
        sandbox.remove();
        let make = || -> Result<()> {
            sandbox.make_namespace()?;
            let (on_node, inside) = commands(name, slot, config);
            ip_batch(None, &on_node)?;
            ip_batch(Some(name), &inside)
        };
        make()
            .inspect_err(|_| sandbox.remove())
            .with_context(|| format!("cannot make the network of pod {name}"))?;
        Ok(sandbox)
    }

    fn make_namespace(&self) -> Result<()> {
        fs::create_dir_all(NAMED)?;
        let path = self.path();
        File::create(&path)?;
        on_own_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let bind = Some("/proc/thread-self/ns/net");
            mount(bind, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("cannot name the namespace {}", path.display()))
        })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(NAMED).join(&self.name)
    }

    /// Runs `work` on a thread inside the namespace.
    pub(super) fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path();
        on_own_thread(move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Removes the namespace's name and the veth pair. The namespace itself ends with its last process.
    pub(super) fn remove(&self) {
        let path = self.path();
        if path.exists() {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(&path);
        }
        let interface = self.slot.interface();
        if if_nametoindex(interface.as_str()).is_ok() {
            let _ = ip_batch(None, &format!("link del {interface}\n"));
        }
    }
}

/// What `ip` is to do on the node, and then inside the namespace.
fn commands(name: &str, slot: Slot, config: &AgentConfig) -> (String, String) {
    let outside = slot.interface();
    let mut on_node = format!(
        "link add {outside} type veth peer name eth0 netns {name}\nlink set {outside} up\n"
    );
    let mut inside = String::from("link set lo up\nlink set eth0 up\n");
    for network in &config.pod_cidrs {
        let gateway = nth(network, 1);
        let address = nth(network, slot.0);
        let no_dad = no_dad(gateway);
        let (gateway_net, address_net) = (IpNet::from(gateway), IpNet::from(address));
        on_node += &format!(
            "addr add {gateway_net} dev {outside}{no_dad}\n\
             route replace {address_net} dev {outside}\n"
        );
        inside += &format!(
            "addr add {address_net} dev eth0{no_dad}\n\
             route add {gateway_net} dev eth0\n\
             route add default via {gateway} dev eth0\n"
        );
    }
    (on_node, inside)
}

/// A namespace belongs to a thread: work in another one needs a thread of its own.
fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    thread::spawn(work)
        .join()
        .map_err(|_| anyhow!("a thread in a pod's namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_network() {
        let v4: IpNet = "198.51.100.16/28".parse().unwrap();
        let v6: IpNet = "2001:db8:100:1::/64".parse().unwrap();
        assert_eq!(nth(&v4, 2).to_string(), "198.51.100.18");
        assert_eq!(nth(&v6, 14).to_string(), "2001:db8:100:1::e");
    }
}
