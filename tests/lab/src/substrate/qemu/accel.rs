//! Whether nodes run on this machine's processor (KVM) or on one that QEMU emulates.
//!
//! That `/dev/kvm` opens, or even makes a machine, does not tell that one can run: where this
//! machine is itself a guest, a processor may stand still for good. So a kernel is started.

use std::fs;
use std::fs::OpenOptions;
use std::process::Command;

use anyhow::Result;

use super::MACHINE;
use super::kernel::Kernel;
use crate::sh;

/// How long, in seconds, a kernel may take to come as far as it can without a root. With KVM it takes one or two.
const LIMIT: &str = "15";

/// What a kernel without a root says last.
const LAST_WORDS: &str = "Kernel panic";

/// How processors are had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Accel {
    /// Those of this machine.
    Kvm,
    /// Emulated, and why.
    Tcg(String),
}

impl Accel {
    /// QEMU's option `-accel`.
    pub(super) fn option(&self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            // The buffer for translated code counts as memory of the node.
            Self::Tcg(_) => "tcg,tb-size=256",
        }
    }
}

/// Finds out.
///
/// # Errors
/// When a program cannot be started.
pub(super) fn find(kernel: &Kernel) -> Result<Accel> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = device {
        return Ok(Accel::Tcg(format!("/dev/kvm: {error}")));
    }
    if !has_virtualization(&fs::read_to_string("/proc/cpuinfo")?) {
        let why = "this machine's processor shows neither vmx nor svm";
        return Ok(Accel::Tcg(why.to_owned()));
    }
    let mut command = Command::new("timeout");
    command
        .args([LIMIT, "qemu-system-x86_64", "-accel", "kvm"])
        .args(MACHINE)
        .args(["-m", "256", "-kernel"])
        .arg(kernel.image())
        .args(["-append", "console=ttyS0 panic=-1"]);
    let output = sh::output(command, None)?;
    if String::from_utf8_lossy(&output.stdout).contains(LAST_WORDS) {
        return Ok(Accel::Kvm);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or("it stood still");
    Ok(Accel::Tcg(format!(
        "a kernel does not run with KVM: {said}"
    )))
}

/// Whether the processor can run guests at all, by its flags in `/proc/cpuinfo`.
fn has_virtualization(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| line.split_whitespace().any(|f| f == "vmx" || f == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_for_guests_are_told_by_a_flag() {
        assert!(has_virtualization("model : x\nflags\t\t: fpu vmx de\n"));
        assert!(has_virtualization("flags\t\t: fpu svm\n"));
        assert!(!has_virtualization("vmx flags\t: x\nflags\t\t: fpu\n"));
    }
}
