//! Programs of this machine that the lab needs, and the packages they come in.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::Progress;
use crate::sh;

/// A program and the Debian or Ubuntu package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Name of the program.
    pub program: &'static str,
    /// Name of the package.
    pub package: &'static str,
}

/// Shorthand for tables of needs.
pub const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What every lab needs.
pub const LAB: &[Need] = &[
    need("ip", "iproute2"),
    need("nft", "nftables"),
    need("iptables", "iptables"),
    need("conntrack", "conntrack"),
    need("ipset", "ipset"),
    need("ipvsadm", "ipvsadm"),
    need("modprobe", "kmod"),
    need("curl", "curl"),
    need("tcpdump", "tcpdump"),
    need("nsenter", "util-linux"),
    need("ping", "iputils-ping"),
    need("ps", "procps"),
];

/// Where a program is: `PATH`, then the folders of system programs, which a user's
/// `PATH` often lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|found| found.is_file()))
}

/// # Errors
/// When this is not root on Linux.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the lab makes network namespaces and needs root: run it as root (for instance in \
             `sudo -i`, or `sudo -E env PATH=\"$PATH\" cargo xtask lab up`)"
        );
    }
    Ok(())
}

/// Installs the packages of those `needs` that are not there, after saying which.
///
/// # Errors
/// When a package is missing and cannot be installed.
pub fn install(needs: &[Need], progress: Progress) -> Result<()> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter(|need| find(need.program).is_none())
        .map(|need| need.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!(
            "these programs are missing: {}. There is no apt-get here to install them with \
             (Debian and Ubuntu call the packages {list}); install them and try again",
            needs
                .iter()
                .filter(|need| find(need.program).is_none())
                .map(|need| need.program)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    progress.say(&format!("Packages to install: {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments);
        sh::run(command)
    };
    progress.step("package lists", || apt(&["update"]))?;
    progress.step(&format!("apt-get install {list}"), || {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&packages);
        apt(&arguments).with_context(|| format!("install {list} by hand and try again"))
    })?;
    match needs.iter().find(|need| find(need.program).is_none()) {
        Some(need) => bail!(
            "{} was installed, yet there is no {}",
            need.package,
            need.program
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_system_folders_and_nowhere_else() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
