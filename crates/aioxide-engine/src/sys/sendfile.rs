//! `sendfile` of Apple's systems and FreeBSD, which tells of a failure and of bytes that went out
//! before it at once.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use rustix::io::Errno;

/// Sends bytes of a file, from `offset` on, and returns how many; 0 at the file's end.
pub(crate) fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    if count == 0 {
        // To the kernel it would mean the rest of the file.
        return Ok(0);
    }
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
    // Apple's systems read there how many there are to send.
    let mut sent = if cfg!(target_vendor = "apple") {
        libc::off_t::try_from(count).map_err(|_| Errno::INVAL)?
    } else {
        0
    };
    // SAFETY: Both descriptors are open, the count outlives the call, and there are no headers.
    #[cfg(target_vendor = "apple")]
    let status = unsafe {
        libc::sendfile(
            file.as_raw_fd(),
            socket.as_raw_fd(),
            offset,
            &raw mut sent,
            ptr::null_mut(),
            0,
        )
    };
    // SAFETY: Both descriptors are open, the count outlives the call, and there are no headers.
    #[cfg(not(target_vendor = "apple"))]
    let status = unsafe {
        libc::sendfile(
            file.as_raw_fd(),
            socket.as_raw_fd(),
            offset,
            count,
            ptr::null_mut(),
            &raw mut sent,
            0,
        )
    };
    let sent = usize::try_from(sent).unwrap_or(0);
    if status == 0 {
        return Ok(sent);
    }
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN | Errno::BUSY | Errno::INTR) if sent > 0 => Ok(sent),
        _ => Err(error),
    }
}
