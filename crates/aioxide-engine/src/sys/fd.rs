//! Descriptor numbers of the host.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

use rustix::io::Errno;

/// Lends a descriptor to one call that tells the selector about it. Whether it is open, the
/// kernel says.
pub(crate) fn borrow_fd<'call>(fd: RawFd) -> io::Result<BorrowedFd<'call>> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: The number is not -1. It may be closed: the only use is a call of `epoll_ctl`, which
    // neither reads, writes nor closes the descriptor, and fails with EBADF if it is not open.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}
