//! Nodes with a distribution's stock kernel, as virtual machines.
//!
//! Each node is one QEMU process inside [`LAB_NETNS`], with two taps as [`super::uml`] has them. The kernel is
//! Debian's package ([`kernel`]), the root is this machine's files under a tmpfs ([`initrd`]). With KVM
//! a node is as fast as this machine; without, QEMU emulates the processor ([`accel`]), and
//! everything on a node takes several times as long: [`EMULATED`].
//!
//! What it is for: kube-proxy's nftables mode and a director in one kernel.

mod accel;
mod init;
mod initrd;
mod kernel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use self::accel::Accel;
use super::{LAB_NETNS, NodeSpec, Substrate, guest};
use crate::agent_config::AgentConfig;
use crate::deps::{self, Need, need};
use crate::progress::Progress;
use crate::{net, process};

/// Memory of a node.
const MEMORY: &str = "512M";

/// How many times longer than usual everything may take on an emulated processor.
const EMULATED: u32 = 3;

/// Words of the kernel's command line. The nodes' programs are trusted, and guarding against
/// what they could read by a processor's faults is dear on an emulated one.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off";

/// A machine with nothing but what is named besides. The console is on standard output; a panic ends
/// the process.
const MACHINE: [&str; 11] = [
    "-machine",
    "q35",
    "-cpu",
    "max",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-serial",
    "stdio",
    "-no-reboot",
];

/// Nodes as virtual machines.
#[derive(Clone, Copy, Debug)]
pub struct Qemu;

/// What [`Qemu::provide`] found, for [`Qemu::prepare`].
#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    image: PathBuf,
    initrd: PathBuf,
    modules: PathBuf,
    accel: String,
    processors: usize,
}

impl Parts {
    fn file(folder: &Path) -> PathBuf {
        folder.join("qemu.json")
    }
}

impl Substrate for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn needs(&self) -> &'static [Need] {
        const NEEDS: &[Need] = &[
            need("qemu-system-x86_64", "qemu-system-x86"),
            need("cpio", "cpio"),
            need("depmod", "kmod"),
            need("timeout", "coreutils"),
        ];
        NEEDS
    }

    fn has_management(&self) -> bool {
        true
    }

    fn provide(&self, folder: &Path, progress: Progress) -> Result<u32> {
        let kernel = kernel::provide(progress)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let initrd = folder.join("initrd");
        initrd::build(&kernel, &folder.join("initrd.files"), &initrd)?;
        let accel = accel::find(&kernel)?;
        let there = thread::available_parallelism().map_or(1, usize::from);
        let (pace, processors) = match &accel {
            Accel::Kvm => {
                progress.say("Nodes run on this machine's processors (KVM).");
                (1, there.min(2))
            }
            Accel::Tcg(why) => {
                progress.say(&format!(
                    "Nodes run on emulated processors ({why}): everything on them takes several \
                     times as long."
                ));
                (EMULATED, 1)
            }
        };
        let parts = Parts {
            image: kernel.image(),
            modules: kernel.modules(),
            initrd,
            accel: accel.option().to_owned(),
            processors,
        };
        let file = Parts::file(folder);
        fs::write(&file, serde_json::to_vec_pretty(&parts)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(pace)
    }

    fn prepare(&self, node: &NodeSpec) -> Result<Command> {
        let config = AgentConfig::read(&node.config)?;
        guest::check_visible(node, &config)?;
        let file = Parts::file(node.dir.parent().unwrap_or(&node.dir));
        let parts = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let parts: Parts = serde_json::from_slice(&parts)?;
        let shares: Vec<(String, PathBuf)> = guest::writable(node, &config)
            .into_iter()
            .enumerate()
            .map(|(number, folder)| (format!("w{number}"), folder))
            .collect();
        let script = init::Script {
            name: &node.name,
            modules: &parts.modules,
            writable: &shares,
            folder: &node.dir,
            ipvs_mode: guest::wants_ipvs_mode(&config),
            agent: &node.agent,
            config: &node.config,
        };
        let script = guest::write_script(node, &script.text())?;
        let script = script.display().to_string();
        if script.contains(char::is_whitespace) {
            bail!("{script} has a blank in its name: choose another folder (LIGHTSHIP_LAB_DIR)");
        }
        let qemu = deps::find("qemu-system-x86_64").context("qemu-system-x86_64 is missing")?;
        guest::add_taps(node)?;

        let mut command = net::command_in(LAB_NETNS, &["sh", "-c", guest::BOOT, "boot"]);
        command
            .arg(qemu)
            .args(["-name", &node.name])
            // The console is the log, and the end of the agent is a panic.
            .args(MACHINE)
            .args(["-accel", &parts.accel])
            .args(["-smp", &parts.processors.to_string(), "-m", MEMORY])
            .arg("-kernel")
            .arg(&parts.image)
            .arg("-initrd")
            .arg(&parts.initrd)
            .arg("-append")
            .arg(format!("{COMMAND_LINE} {}{script}", initrd::INIT_WORD))
            .args(share(initrd::ROOT_TAG, Path::new("/"), false));
        for (tag, folder) in &shares {
            command.args(share(tag, folder, true));
        }
        // By the order of their places on the bus they become eth0 and eth1.
        command.args(card("uplink", 16, &node.port(), &node.mac));
        command.args(card(
            "management",
            17,
            &node.management_port(),
            &guest::management_mac(node.index),
        ));
        Ok(command)
    }

    fn crash(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        process::send(pid, Signal::SIGKILL)
    }

    fn pause(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        process::send(pid, Signal::SIGSTOP)
    }

    fn resume(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        process::send(pid, Signal::SIGCONT)
    }

    fn clear(&self, node: &NodeSpec) -> Result<()> {
        guest::remove_taps(node)
    }

    fn exec(&self, node: &NodeSpec, _: u32, argv: &[String]) -> Result<Command> {
        Ok(guest::exec(node, argv))
    }
}

/// Options that show a folder of this machine to a node. `multidevs`: a tree of several
/// file systems must not have two files of one number.
fn share(tag: &str, folder: &Path, writable: bool) -> [String; 4] {
    // QEMU's way to write a comma.
    let path = folder.display().to_string().replace(',', ",,");
    let read_only = if writable { "off" } else { "on" };
    [
        "-fsdev".into(),
        format!(
            "local,id={tag},path={path},security_model=none,readonly={read_only},multidevs=remap"
        ),
        "-device".into(),
        format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]
}

/// Options of a network card that is a tap of the lab; without the programs to boot from it.
fn card(id: &str, slot: u8, tap: &str, mac: &str) -> [String; 4] {
    [
        "-netdev".into(),
        format!("tap,id={id},ifname={tap},script=no,downscript=no"),
        "-device".into(),
        format!("virtio-net-pci,netdev={id},mac={mac},addr=0x{slot:x},romfile="),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_only_unless_they_are_the_nodes_own() {
        let [_, root, ..] = share("root", Path::new("/"), false);
        assert!(root.contains(",readonly=on,"), "{root}");
        let [_, own, _, device] = share("w0", Path::new("/srv/a,b"), true);
        assert!(own.contains(",path=/srv/a,,b,"), "{own}");
        assert!(own.contains(",readonly=off,"), "{own}");
        assert_eq!(device, "virtio-9p-pci,fsdev=w0,mount_tag=w0");
    }

    #[test]
    fn cards_have_their_place_on_the_bus() {
        let [_, backend, _, device] = card("uplink", 16, "node1", "02:1a:b0:00:00:01");
        assert!(backend.contains(",ifname=node1,"), "{backend}");
        assert!(device.contains(",addr=0x10,"), "{device}");
    }
}
