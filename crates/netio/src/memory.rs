//! Keeping a daemon's memory small.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::priority;

/// Sizes from which memory that was freed goes back to the kernel, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Has glibc's allocator keep one heap, and give back what is free at its end.
///
/// By default each thread gets a heap of its own, and what one of them does not use any more stays
/// with it: all the more in a process whose pages are locked ([`crate::raise_priority`]), where
/// `madvise(MADV_DONTNEED)` is refused (mm/madvise.c). After a list of many objects was read that
/// would be several times what is kept of it. To be called before other threads are started.
/// Other allocators, musl's for one, are left as they are.
pub fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        // Set by hand these stay; else each large block that is freed raises them.
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, LARGE),
    ] {
        // SAFETY: mallopt takes values only. It may be called at any time; what it refuses stays
        // as it was.
        unsafe { libc::mallopt(what, value) };
    }
}

/// What is not used may be as much as this, in bytes: giving it back takes some milliseconds.
const SLACK: u64 = 2 << 20;

/// What is not used and yet does not come back, in bytes: holes smaller than a page, stacks. At first what could not
/// be given back last time, and then less and less, for what was in holes may have come free since.
static STAYS: AtomicU64 = AtomicU64::new(0);

/// How many bytes were in use when giving back was in vain; 0: it was not.
static IN_VAIN: AtomicU64 = AtomicU64::new(0);

/// Gives the pages of free memory back to the kernel if there are many, and says how many bytes that were.
///
/// A list of a thousand objects that is read in moments leaves the heap full of holes, and glibc gives their
/// pages back only when told to (malloc_trim(3)). Memory that [`crate::raise_priority`] locked is unlocked
/// for the moment. Other allocators are left as they are.
///
/// Whoever allocates meanwhile waits for it, so a thread that must be on time had better call this itself: for
/// another one of normal priority it could wait for as long as that is kept from running.
///
/// # Errors
/// If `/proc` cannot be read. If the memory could not be locked again: the next call tries that again.
pub fn give_back() -> io::Result<Option<u64>> {
    priority::lock_again()?;
    let Some(used) = in_use() else {
        return Ok(None);
    };
    let before = anonymous()?;
    let stays = STAYS.load(Ordering::Relaxed);
    if before < used + stays + SLACK {
        let vain = IN_VAIN.load(Ordering::Relaxed);
        if vain == 0 || used.abs_diff(vain) > SLACK {
            STAYS.store(stays / 2, Ordering::Relaxed);
        }
        return Ok(None);
    }
    priority::unlock_memory();
    trim();
    priority::lock_again()?;
    let after = anonymous()?;
    STAYS.store(
        after.saturating_sub(in_use().unwrap_or(0)),
        Ordering::Relaxed,
    );
    let given = before.saturating_sub(after);
    let vain = if given < SLACK { used } else { 0 };
    IN_VAIN.store(vain, Ordering::Relaxed);
    Ok(Some(given))
}

/// Bytes of this process that are in memory and not of a file (proc(5), `statm`: resident, shared).
fn anonymous() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let mut fields = statm.split(' ').skip(1).map(|n| n.parse().unwrap_or(0));
    let (resident, shared): (u64, u64) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    // SAFETY: takes a number only.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(resident.saturating_sub(shared) * u64::try_from(page).unwrap_or(4096))
}

/// Bytes that are allocated, where the allocator can say so.
#[cfg(target_env = "gnu")]
fn in_use() -> Option<u64> {
    // SAFETY: takes nothing and returns plain numbers.
    let info = unsafe { libc::mallinfo2() };
    Some((info.uordblks + info.hblkhd) as u64)
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: only pages of free chunks are given back.
    unsafe { libc::malloc_trim(0) };
}

// Others cannot be told to.
#[cfg(not(target_env = "gnu"))]
fn in_use() -> Option<u64> {
    None
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_lies_free_between_what_is_used_is_given_back() {
        let _alone = priority::alone();
        // The tests beside this one allocate too, but not as much.
        let many: Vec<Vec<u8>> = (0..32 << 10).map(|n| vec![n as u8; 1000]).collect();
        let kept = many.into_iter().enumerate().filter(|(n, _)| n % 256 == 0);
        let kept: Vec<Vec<u8>> = kept.map(|(_, bytes)| bytes).collect();
        let given = give_back().unwrap().unwrap();
        assert!(given > 16 << 20, "{given}");
        let whole = |(n, bytes): (usize, &Vec<u8>)| bytes[999] == (n * 256) as u8;
        assert!(kept.iter().enumerate().all(whole));
        assert_eq!(give_back().unwrap(), None);
    }
}
