//! Descriptor numbers of the host.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

use rustix::io::Errno;

/// Lends a descriptor to one call. Whether it is open, the kernel says.
pub(crate) fn borrow_fd<'call>(fd: RawFd) -> io::Result<BorrowedFd<'call>> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: The number is not -1. The host's objects (Python's sockets) own the descriptors that
    // the engine works on, and the host may close one behind its back: then a call fails with
    // EBADF, or acts on what the number means by now, as any program's call with a stale number
    // would. Memory is not at stake: no call here is given a pointer that depends on the
    // descriptor, and none closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}
