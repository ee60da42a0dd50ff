//! Named network namespaces, as `ip netns` makes them: a file below
//! [`NETNS_DIR`] on which the namespace is bind-mounted. Such a namespace lives
//! until it is deleted, whatever becomes of the process that made it.
//!
//! Nothing here changes the namespace of a thread that goes on to do other work:
//! the switch happens on threads of our own.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::{Error, Result};

/// Where named network namespaces are mounted.
pub const NETNS_DIR: &str = "/run/netns";

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// An open handle on a network namespace; the namespace lives at least as long.
#[derive(Debug)]
pub struct Netns {
    label: String,
    file: File,
}

impl Netns {
    /// Makes the namespace `name`, or opens it if it is there already.
    ///
    /// Makes [`NETNS_DIR`] too, and a shared mount of it, so that the namespace
    /// shows in all mount namespaces that receive the host's mounts.
    ///
    /// # Errors
    /// A name with a slash in it, no CAP_SYS_ADMIN, or a read-only [`NETNS_DIR`].
    pub fn create(name: &str) -> Result<Netns> {
        let path = path_of(name)?;
        if let Ok(ns) = Netns::open(name) {
            return Ok(ns);
        }
        let lock = lock_netns_dir()?;
        if let Ok(ns) = Netns::open(name) {
            return Ok(ns);
        }
        touch(&path)?;
        let made = on_thread("netns-create", || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::errno(format!("create netns {name}"), e))?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|e| Error::errno(format!("mount netns {name} on {}", path.display()), e))
        });
        if let Err(e) = made {
            // Best effort: the first error is the one that matters.
            let _ = fs::remove_file(&path);
            return Err(e);
        }
        drop(lock);
        Netns::open(name)
    }

    /// Opens the namespace `name`.
    ///
    /// # Errors
    /// There is none ([`Error::is_not_found`]), or no permission.
    pub fn open(name: &str) -> Result<Netns> {
        let path = path_of(name)?;
        let ns = Netns::open_path(&path, format!("netns {name}"))?;
        // Not opened by mistake: a plain file whose mount is gone.
        match fstatfs(&ns.file) {
            Ok(stat) if stat.filesystem_type() == NSFS_MAGIC => Ok(ns),
            Ok(_) => Err(Error::Missing {
                what: format!("netns {name}: {} is a plain file", path.display()),
            }),
            Err(e) => Err(Error::errno(format!("open netns {name}"), e)),
        }
    }

    /// Gives the namespace `ns` its name back, if that is gone (`ip netns delete`) or is now
    /// another one's. Returns whether it had to.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn restore(name: &str, ns: &Netns) -> Result<bool> {
        if Netns::open(name).is_ok_and(|named| named.is_same(ns)) {
            return Ok(false);
        }
        let path = path_of(name)?;
        let lock = lock_netns_dir()?;
        Netns::delete(name)?;
        touch(&path)?;
        // The descriptor's entry stands for the namespace itself, as /proc/PID/ns/net does.
        let handle = format!("/proc/self/fd/{}", ns.as_raw_fd());
        let mounted = mount(
            Some(handle.as_str()),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        );
        if let Err(e) = mounted {
            let _ = fs::remove_file(&path);
            let what = format!("mount netns {name} on {}", path.display());
            return Err(Error::errno(what, e));
        }
        drop(lock);
        Ok(true)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Netns> {
        Netns::open_path(
            Path::new("/proc/thread-self/ns/net"),
            "current netns".to_owned(),
        )
    }

    /// Whether a namespace of this name is there.
    pub fn exists(name: &str) -> bool {
        Netns::open(name).is_ok()
    }

    /// Deletes the name, and with it the namespace unless a process or a handle
    /// still holds it. Returns whether there was such a name.
    ///
    /// # Errors
    /// No CAP_SYS_ADMIN, or a read-only [`NETNS_DIR`].
    pub fn delete(name: &str) -> Result<bool> {
        let path = path_of(name)?;
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: not a mount, a left-over file.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(e) => return Err(Error::errno(format!("unmount netns {name}"), e)),
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::os(format!("delete netns {name}"), e)),
        }
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> Result<Netns> {
        Ok(Netns {
            label: self.label.clone(),
            file: self
                .file
                .try_clone()
                .map_err(|e| Error::os(format!("duplicate {}", self.label), e))?,
        })
    }

    /// Whether both handles are on one namespace.
    pub fn is_same(&self, other: &Netns) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), other.file.metadata()) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }

    fn open_path(path: &Path, label: String) -> Result<Netns> {
        let file = File::open(path).map_err(|e| Error::os(format!("open {label}"), e))?;
        Ok(Netns { label, file })
    }

    fn enter(&self) -> Result<()> {
        setns(self, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::errno(format!("enter {}", self.label), e))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `f` in `ns` on a thread of its own and waits for it.
///
/// Sockets that `f` opens belong to `ns` for good. Called within a tokio
/// runtime, `f` is within it too, so it may open the sockets of this crate; but
/// it must be short, for the calling thread waits. A panic of `f` goes on in the
/// caller.
///
/// # Errors
/// The namespace cannot be entered (no CAP_SYS_ADMIN), or no thread can be made.
pub fn run_in<T, F>(ns: &Netns, f: F) -> Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let runtime = tokio::runtime::Handle::try_current().ok();
    on_thread("run-in-netns", || {
        ns.enter()?;
        let _in_runtime = runtime.as_ref().map(|handle| handle.enter());
        Ok(f())
    })
}

/// Starts an OS thread called `name` in `ns` that runs the future made by `f` on
/// a single-threaded tokio runtime, and returns once the thread is in `ns`.
///
/// Everything the future opens, and the tasks it spawns open, belongs to `ns`;
/// only blocking tasks (`spawn_blocking`, name look-ups) run elsewhere. The
/// future need not be [`Send`].
///
/// # Errors
/// The namespace cannot be entered, or the thread or its runtime cannot be made.
pub fn spawn_thread_in<F, Fut>(ns: &Netns, name: &str, f: F) -> Result<NetnsThread<Fut::Output>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future,
    Fut::Output: Send + 'static,
{
    let ns = ns.try_clone()?;
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let what = format!("start thread {name}");
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = ns.enter().and_then(|()| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|e| Error::os("create runtime", e))
            });
            // The thread itself holds the namespace from here on.
            drop(ns);
            match runtime {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    Some(runtime.block_on(f()))
                }
                Err(e) => {
                    let _ = ready.send(Err(e));
                    None
                }
            }
        })
        .map_err(|e| Error::os(&what, e))?;
    started.recv().unwrap_or(Err(Error::Closed { what }))?;
    Ok(NetnsThread(thread))
}

/// A thread made by [`spawn_thread_in`]. Dropping this leaves the thread running.
#[derive(Debug)]
pub struct NetnsThread<T>(thread::JoinHandle<Option<T>>);

impl<T> NetnsThread<T> {
    /// Waits for the thread's future to end and returns its output.
    ///
    /// # Errors
    /// The payload of the panic, if it panicked.
    pub fn join(self) -> thread::Result<T> {
        // None only comes from a thread that failed to start, for which no
        // handle was ever given out.
        self.0
            .join()?
            .ok_or_else(|| Box::new("thread did not start") as Box<dyn std::any::Any + Send>)
    }

    /// Whether the thread has ended, so that [`Self::join`] would not wait.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::Invalid {
            what: format!("netns name {name:?}"),
            why: "must be a plain file name",
        });
    }
    Ok(Path::new(NETNS_DIR).join(name))
}

/// Makes [`NETNS_DIR`] and locks it: two makers at once would mount two namespaces on one
/// name. `ip netns` takes the same lock. Closing the file gives it back.
fn lock_netns_dir() -> Result<File> {
    share_netns_dir()?;
    File::open(NETNS_DIR)
        .and_then(|dir| dir.lock().map(|()| dir))
        .map_err(|e| Error::os(format!("lock {NETNS_DIR}"), e))
}

/// Makes the file that a namespace is mounted on. One left by a namespace whose mount is gone
/// (reboot, another mount namespace) is taken over: it holds nothing.
fn touch(path: &Path) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map(drop)
        .map_err(|e| Error::os(format!("create {}", path.display()), e))
}

/// Makes [`NETNS_DIR`] a shared mount: the same steps as `ip netns add`.
fn share_netns_dir() -> Result<()> {
    fs::create_dir_all(NETNS_DIR).map_err(|e| Error::os(format!("create {NETNS_DIR}"), e))?;
    let share = || {
        mount(
            None::<&str>,
            NETNS_DIR,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    let done = match share() {
        // EINVAL: a directory, not yet a mount of its own.
        Err(Errno::EINVAL) => mount(
            Some(NETNS_DIR),
            NETNS_DIR,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .and_then(|()| share()),
        other => other,
    };
    done.map_err(|e| Error::errno(format!("make {NETNS_DIR} a shared mount"), e))
}

fn on_thread<T: Send>(name: &str, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, f)
            .map_err(|e| Error::os(format!("start thread {name}"), e))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
