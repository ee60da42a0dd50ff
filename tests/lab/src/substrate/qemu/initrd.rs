//! The first files of a node: a static busybox, the modules that reach this machine's files, and a script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::sh;

/// Name of the share that is this machine's root.
pub(super) const ROOT_TAG: &str = "root";

/// Word of the kernel's command line that names the program which becomes process 1.
pub(super) const INIT_WORD: &str = "lab.init=";

/// What it takes to mount the root, and the network's driver.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net"];

/// This machine's files, read-only, under a tmpfs that takes what the node writes. Three mounts go along:
/// below this machine's own /proc, /sys and /dev a node would see nothing of itself.
const SCRIPT: &str = r#"#!/bin/busybox sh
# First program of a lab node; made by the lab.
set -e
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for file in $($b cat /modules/order); do $b insmod "/modules/$file"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 ROOT_TAG /lower
$b mount -t tmpfs -o mode=755 tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new
for folder in proc sys dev; do $b mount --move "/$folder" "/new/$folder"; done
init=
for word in $($b cat /new/proc/cmdline); do
    case $word in INIT_WORD*) init=${word#INIT_WORD} ;; esac
done
exec $b switch_root /new "$init"
"#;

/// Makes it, for nodes with that kernel. The folder `staging` is made for it and removed.
///
/// # Errors
/// When a part is missing.
pub(super) fn build(kernel: &Kernel, staging: &Path, target: &Path) -> Result<()> {
    for folder in [
        "bin", "modules", "proc", "sys", "dev", "lower", "upper", "new",
    ] {
        fs::create_dir_all(staging.join(folder))?;
    }
    fs::copy(kernel.busybox(), staging.join("bin/busybox"))
        .context("there is no static busybox")?;
    let mut order = String::new();
    for file in kernel.module_files(MODULES)? {
        let name = unpack(&file, &staging.join("modules"))?;
        order.push_str(&name);
        order.push('\n');
    }
    fs::write(staging.join("modules/order"), order)?;
    let init = staging.join("init");
    fs::write(&init, script())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut command = sh::command(&[
        "sh",
        "-c",
        "find . | cpio --quiet --create --format=newc > \"$1\"",
        "sh",
    ]);
    command.arg(target).current_dir(staging);
    sh::run(command).context("cannot make the initrd")?;
    fs::remove_dir_all(staging)?;
    Ok(())
}

fn script() -> String {
    SCRIPT
        .replace("ROOT_TAG", ROOT_TAG)
        .replace("INIT_WORD", INIT_WORD)
}

/// Puts a module's plain file into `folder` and gives its name. Newer packages have them compressed.
fn unpack(file: &Path, folder: &Path) -> Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (plain, tool) = match name.rsplit_once('.') {
        Some((plain, "xz")) => (plain, "xz"),
        Some((plain, "zst")) => (plain, "zstd"),
        Some((_, "ko")) => {
            fs::copy(file, folder.join(&*name))?;
            return Ok(name.into_owned());
        }
        _ => bail!("{} is no kernel module", file.display()),
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{tool} -dc \"$1\" > \"$2\""), "sh"])
        .args([file, &folder.join(plain)]);
    sh::run(command)?;
    Ok(plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_that_a_shell_accepts() {
        let script = script();
        let checked = sh::command(&["sh", "-n", "-c", &script]).status().unwrap();
        assert!(checked.success());
        assert!(script.contains("case $word in lab.init=*)"), "{script}");
        assert!(script.contains(",msize=512000 root /lower"), "{script}");
    }

    #[test]
    fn a_module_is_taken_as_it_is_or_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a.ko");
        fs::write(&plain, "module").unwrap();
        let target = folder.path().join("out");
        fs::create_dir(&target).unwrap();
        assert_eq!(unpack(&plain, &target).unwrap(), "a.ko");
        assert_eq!(fs::read(target.join("a.ko")).unwrap(), b"module");
        unpack(&folder.path().join("a.txt"), &target).unwrap_err();
    }
}
