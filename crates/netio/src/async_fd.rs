//! The one place where a file descriptor is given to tokio.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A type that owns its descriptor and shows the same one all its life.
///
/// # Safety
/// `as_raw_fd` must return one open descriptor, the same at each call, which
/// stays open until the value is dropped.
pub(crate) unsafe trait OwnsFd: AsRawFd {}

// SAFETY: socket2::Socket owns its descriptor and closes it only when dropped.
unsafe impl OwnsFd for socket2::Socket {}

// SAFETY: netlink_sys::Socket owns its descriptor and closes it only when dropped.
unsafe impl OwnsFd for netlink_sys::Socket {}

// SAFETY: UdpSocket owns its descriptor and closes it only when dropped.
unsafe impl OwnsFd for std::net::UdpSocket {}

/// Registers a socket, already non-blocking, with the runtime of the caller, to wait for its being readable
/// or writable.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn register<T: OwnsFd>(socket: T) -> io::Result<AsyncFd<T>> {
    register_for(
        socket,
        Interest::READABLE | Interest::WRITABLE | Interest::ERROR,
    )
}

/// Registers one that is never waited for to be writable: else all that leaves it wakes the runtime.
pub(crate) fn register_to_read<T: OwnsFd>(socket: T) -> io::Result<AsyncFd<T>> {
    register_for(socket, Interest::READABLE)
}

fn register_for<T: OwnsFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: by the contract of OwnsFd the descriptor is open, and stays the same
    // until the AsyncFd, which now owns the value, drops it.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

/// Waits until there is something to receive, a pending error included: an error
/// alone (link down, notices lost) does not count as readable for tokio.
pub(crate) async fn readable<T: AsRawFd>(fd: &AsyncFd<T>) -> io::Result<AsyncFdReadyGuard<'_, T>> {
    fd.ready(Interest::READABLE | Interest::ERROR).await
}
