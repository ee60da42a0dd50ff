//! A distribution's own kernel, from Debian's package: fetched and unpacked, never installed.
//!
//! The result is kept outside the checkout, in `$XDG_CACHE_HOME/lightship/linux-RELEASE-VERSION/`, with a static
//! busybox beside it (that of this machine is mostly not static). It appears there by rename, so
//! a killed run leaves no half of one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::k8s_build::cache_folder;
use crate::progress::Progress;
use crate::sh;

/// The package that depends on the newest kernel, unless [`CHOICE`] names another.
const META: &str = "linux-image-amd64";

/// The environment variable that names the package to depend on, for instance `linux-image-6.12-amd64`.
const CHOICE: &str = "LIGHTSHIP_LAB_KERNEL";

/// The package of the programs in the initrd.
const BUSYBOX: &str = "busybox-static";

/// What no node has: most of the package's 400 MB.
const UNUSED: &[&str] = &[
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/scsi",
    "drivers/staging",
    "drivers/iio",
    "drivers/usb",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "sound",
];

/// An unpacked kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// What `uname -r` says.
    pub(super) release: String,
    /// The folder that the packages were unpacked in.
    pub(super) root: PathBuf,
}

impl Kernel {
    /// The file that boots.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The folder that is a node's `/lib/modules/RELEASE`.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// A busybox that needs no library.
    pub(super) fn busybox(&self) -> PathBuf {
        // Debian has moved it.
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| self.root.join(place));
        let found = places.iter().find(|place| place.is_file());
        found.unwrap_or(&places[0]).clone()
    }

    /// The files of these modules and of those that they need, in an order in which they can be loaded.
    pub(super) fn module_files(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let mut command = Command::new("modprobe");
            command
                .args([
                    "--show-depends",
                    "--set-version",
                    &self.release,
                    "--dirname",
                ])
                .arg(&self.root)
                .arg(name);
            for line in sh::run(command)?.lines() {
                // Else it is built in.
                if let Some(file) = line.strip_prefix("insmod ") {
                    let file = PathBuf::from(file.trim());
                    if !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
        }
        Ok(files)
    }
}

/// The kernel that this machine's package lists offer, fetched unless it was before.
///
/// # Errors
/// When there is no such package, or it cannot be fetched or unpacked.
pub(super) fn provide(progress: Progress) -> Result<Kernel> {
    let meta = std::env::var(CHOICE).unwrap_or_else(|_| META.to_owned());
    let mut offer = candidate(&meta)?;
    if offer.is_none() {
        progress.step("package lists", update)?;
        offer = candidate(&meta)?;
    }
    let Some((package, version)) = offer else {
        bail!(
            "there is no package {meta} that depends on a kernel: nodes of kind qemu run Debian's (is this another \
             distribution, or another processor? {CHOICE} names another package)"
        );
    };
    let release = package.trim_start_matches("linux-image-").to_owned();
    let cache = cache_folder()?;
    let root = cache.join(format!("linux-{release}-{version}"));
    let kernel = Kernel { release, root };
    if kernel.root.exists() {
        return Ok(kernel);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join(".linux.lock"))?;
    lock.lock()?;
    if kernel.root.exists() {
        return Ok(kernel); // by whom we waited for
    }
    let temporary = Kernel {
        root: cache.join(format!(".linux.{}", std::process::id())),
        ..kernel.clone()
    };
    let outcome = progress.step(&format!("{package} {version} fetched, once"), || {
        fetch(&temporary, &package)
    });
    if let Err(error) = outcome {
        let _ = fs::remove_dir_all(&temporary.root);
        return Err(error);
    }
    fs::rename(&temporary.root, &kernel.root)?;
    Ok(kernel)
}

fn update() -> Result<()> {
    sh::run(sh::command(&["apt-get", "-q", "update"])).map(drop)
}

/// Name and version of the kernel's package, as far as this machine's lists know.
fn candidate(meta: &str) -> Result<Option<(String, String)>> {
    let mut command = sh::command(&["apt-cache", "show", "--no-all-versions", meta]);
    command.env("LC_ALL", "C");
    // It fails when it knows none.
    let output = sh::output(command, None)?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(record: &str) -> Option<(String, String)> {
    let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name));
    let package = field("Depends: ")?.split([' ', ',']).next()?;
    let version = field("Version: ")?.trim();
    package
        .starts_with("linux-image-")
        .then(|| (package.to_owned(), version.to_owned()))
}

fn fetch(kernel: &Kernel, package: &str) -> Result<()> {
    fs::create_dir_all(&kernel.root)?;
    let download = || {
        let mut command = sh::command(&["apt-get", "-q", "download", package, BUSYBOX]);
        command.current_dir(&kernel.root);
        sh::run(command)
    };
    // Lists that are old name files that are gone.
    if download().is_err() {
        update()?;
        download()?;
    }
    for entry in fs::read_dir(&kernel.root)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|end| end == "deb") {
            let mut command = sh::command(&["dpkg-deb", "--extract"]);
            command.arg(&archive).arg(&kernel.root);
            sh::run(command)?;
            fs::remove_file(&archive)?;
        }
    }
    // Debian 13 has its modules in /usr alone.
    let lib = kernel.root.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib)?;
    }
    remove_unused(&kernel.modules())?;
    let mut command = sh::command(&["depmod", "--basedir"]);
    command.arg(&kernel.root).arg(&kernel.release);
    sh::run(command).map(drop)
}

fn remove_unused(modules: &Path) -> Result<()> {
    for folder in UNUSED {
        let folder = modules.join("kernel").join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_the_one_that_the_meta_package_depends_on() {
        let record = "Package: linux-image-amd64\nVersion: 6.1.192-2\nArchitecture: amd64\n\
                      Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSection: kernel\n";
        let (package, version) = parse(record).unwrap();
        assert_eq!(package, "linux-image-6.1.0-56-amd64");
        assert_eq!(version, "6.1.192-2");
        assert_eq!(parse(""), None);
    }
}
