//! Kernel modules.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// What [`load_module`] found or did, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleState {
    /// It was there already, loaded or built in.
    Present,
    /// `modprobe` loaded it, or says it is built in.
    Loaded,
    /// It is not there and could not be loaded. The feature may still work: a
    /// built-in module without parameters shows nowhere. Try the feature.
    Unavailable {
        /// Why not, in one line.
        reason: String,
    },
}

impl fmt::Display for ModuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleState::Present => f.write_str("present"),
            ModuleState::Loaded => f.write_str("loaded"),
            ModuleState::Unavailable { reason } => write!(f, "unavailable: {reason}"),
        }
    }
}

/// Sees to it that the kernel module `name` is loaded, if that can be done.
///
/// Looks in `/sys/module` and `/proc/modules`, then runs `modprobe`, which needs
/// CAP_SYS_MODULE and the host's `/lib/modules`. Waits for `modprobe` to end: call
/// it at start, or from a blocking task.
pub fn load_module(name: &str) -> ModuleState {
    // The kernel writes names with underscores; file names may have dashes.
    let kernel_name = name.replace('-', "_");
    if is_present(&kernel_name) {
        return ModuleState::Present;
    }
    // `--` so that no name can be taken for an option.
    match Command::new("modprobe").arg("--").arg(name).output() {
        Ok(out) if out.status.success() => ModuleState::Loaded,
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stderr);
            let line = text.lines().next().unwrap_or_default().trim();
            ModuleState::Unavailable {
                reason: if line.is_empty() {
                    format!("modprobe: {}", out.status)
                } else {
                    line.to_owned()
                },
            }
        }
        Err(e) => ModuleState::Unavailable {
            reason: format!("run modprobe: {e}"),
        },
    }
}

fn is_present(kernel_name: &str) -> bool {
    if Path::new("/sys/module").join(kernel_name).is_dir() {
        return true;
    }
    std::fs::read_to_string("/proc/modules").is_ok_and(|list| lists(&list, kernel_name))
}

fn lists(proc_modules: &str, kernel_name: &str) -> bool {
    proc_modules.lines().any(|line| {
        let mut fields = line.split(' ');
        // name size refcount users state address; "Unloading" is as good as gone.
        fields.next() == Some(kernel_name) && fields.nth(3) != Some("Unloading")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_modules() {
        let list = "ip_vs_mh 16384 3 - Live 0x0000000000000000\n\
                    ip_vs 221184 5 ip_vs_mh, Live 0x0000000000000000\n\
                    macvlan 28672 0 - Unloading 0x0000000000000000\n";
        assert!(lists(list, "ip_vs"));
        assert!(lists(list, "ip_vs_mh"));
        assert!(!lists(list, "ip"));
        assert!(!lists(list, "macvlan"));
    }

    #[test]
    fn a_module_that_does_not_exist_is_unavailable_with_a_reason() {
        match load_module("lightship_no_such_module") {
            ModuleState::Unavailable { reason } => assert!(!reason.is_empty()),
            other => panic!("{other}"),
        }
    }
}
