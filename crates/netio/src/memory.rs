//! Keeping a daemon's memory small.

/// Sizes from which memory that was freed goes back to the kernel, in bytes.
#[cfg(target_env = "gnu")]
const GIVE_BACK: libc::c_int = 128 << 10;

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
        (libc::M_MMAP_THRESHOLD, GIVE_BACK),
        (libc::M_TRIM_THRESHOLD, GIVE_BACK),
    ] {
        // SAFETY: mallopt takes values only. It may be called at any time; what it refuses stays
        // as it was.
        unsafe { libc::mallopt(what, value) };
    }
}
