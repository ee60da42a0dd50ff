//! Keeping a thread on time on a busy node.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Round robin at the lowest real-time priority: before all normal threads, after
/// everything that others gave a real-time priority on purpose.
const RT_PRIORITY: i32 = 1;

const CAP_IPC_LOCK: u32 = 14;

/// What [`raise_priority`] got. Neither part is needed for correct work; without
/// them a starved node is late with its heartbeats more often.
#[derive(Debug)]
pub struct PriorityReport {
    /// Real-time scheduling of the calling thread.
    pub scheduler: io::Result<()>,
    /// Memory of the process locked against paging.
    pub memory: io::Result<()>,
}

/// Tries to give the calling thread real-time scheduling (`SCHED_RR`, priority 1)
/// and to lock the memory of the process.
///
/// Threads and processes that the thread starts later are normal ones again.
/// Needs CAP_SYS_NICE and CAP_IPC_LOCK, or the matching resource limits.
pub fn raise_priority() -> PriorityReport {
    PriorityReport {
        scheduler: real_time(),
        memory: lock_memory(),
    }
}

fn real_time() -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: RT_PRIORITY,
    };
    // SAFETY: `param` is a valid sched_param that outlives the call; pid 0 is the
    // calling thread.
    let done =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &param) };
    check(done)
}

/// Memory is to be locked, and is.
static WANTED: AtomicBool = AtomicBool::new(false);
static LOCKED: AtomicBool = AtomicBool::new(false);

fn lock_memory() -> io::Result<()> {
    // With a limit and without the capability, MCL_FUTURE would make allocations
    // fail later, once the limit is reached. Then better not at all.
    if !may_lock_without_limit()? {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    WANTED.store(true, Ordering::Relaxed);
    lock_again()
}

/// Locks the memory if it was locked once and is not now.
pub(crate) fn lock_again() -> io::Result<()> {
    if !WANTED.load(Ordering::Relaxed) || LOCKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // ONFAULT: pages are locked when first used; thread stacks and arenas stay
    // as small as they are.
    // SAFETY: the call takes flags only and touches no memory of ours.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    check(done)?;
    LOCKED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Lets the memory go until [`lock_again`].
pub(crate) fn unlock_memory() {
    if LOCKED.swap(false, Ordering::Relaxed) {
        // SAFETY: takes no arguments and touches no memory.
        unsafe { libc::munlockall() };
    }
}

/// For tests that lock the process's memory or look at it.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn may_lock_without_limit() -> io::Result<bool> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit to write to for the time of the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) })?;
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return Ok(true);
    }
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    Ok(has_capability(&status, CAP_IPC_LOCK))
}

fn has_capability(proc_status: &str, bit: u32) -> bool {
    proc_status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & (1 << bit) != 0)
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_effective_capabilities() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000004000\n";
        assert!(has_capability(status, CAP_IPC_LOCK));
        assert!(!has_capability(status, CAP_IPC_LOCK + 1));
        assert!(!has_capability("", CAP_IPC_LOCK));
    }

    #[test]
    fn gives_real_time_or_says_why_not() {
        let _alone = alone();
        // On a thread of its own, so that the test runner keeps its priority.
        std::thread::spawn(|| {
            let report = raise_priority();
            // SAFETY: takes a pid only; 0 is the calling thread.
            let policy = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
            match report.scheduler {
                Ok(()) => assert_eq!(policy, libc::SCHED_RR),
                Err(e) => {
                    assert_eq!(policy, libc::SCHED_OTHER);
                    assert!(e.raw_os_error().is_some());
                }
            }
            if report.memory.is_ok() {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let locked = status.lines().find(|l| l.starts_with("VmLck:")).unwrap();
                assert!(!locked.ends_with(" 0 kB"), "{locked}");
                WANTED.store(false, Ordering::Relaxed);
                unlock_memory();
            }
        })
        .join()
        .unwrap();
    }
}
