//! `epoll_wait` with timeouts in nanoseconds.
//!
//! rustix uses `epoll_pwait`, whose timeouts are whole milliseconds, unless the whole program asks
//! it to need Linux 5.11. So timeouts go to `epoll_pwait2` from here, and to rustix if that call
//! does not exist or a sandbox forbids it; then they are rounded up.

#[cfg(test)]
mod tests;

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{event::epoll, io::Errno};

use super::timespec::{split, timespec};

/// Whether `epoll_pwait2` was found not to work.
static LACKS_PWAIT2: AtomicBool = AtomicBool::new(false);

/// Waits for events, up to a timeout in nanoseconds, and returns those that happened.
pub(crate) fn epoll_wait<'buffer>(
    epoll: BorrowedFd<'_>,
    buffer: &'buffer mut [MaybeUninit<epoll::Event>],
    timeout_ns: Option<u64>,
) -> io::Result<&'buffer [epoll::Event]> {
    if let Some(timeout_ns @ 1..) = timeout_ns
        && !LACKS_PWAIT2.load(Ordering::Relaxed)
    {
        match epoll_pwait2(epoll, buffer, timeout_ns) {
            Ok(count) => {
                let events: *const epoll::Event = buffer.as_ptr().cast();
                // SAFETY: The kernel filled so many entries of the buffer.
                return Ok(unsafe { std::slice::from_raw_parts(events, count) });
            }
            Err(Errno::NOSYS | Errno::PERM) => LACKS_PWAIT2.store(true, Ordering::Relaxed),
            Err(error) => return Err(error.into()),
        }
    }
    let timeout = timeout_ns.map(timespec);
    let (events, _) = epoll::wait(epoll, buffer, timeout.as_ref())?;
    Ok(events)
}

/// The kernel's `struct __kernel_timespec`, the same on all platforms.
#[repr(C)]
struct KernelTimespec {
    /// Whole seconds.
    tv_sec: i64,
    /// The nanoseconds of the last second.
    tv_nsec: i64,
}

/// Calls `epoll_pwait2`, which libc wraps only in newer versions, and returns how many entries of
/// the buffer it filled.
fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<epoll::Event>],
    timeout_ns: u64,
) -> Result<usize, Errno> {
    let (seconds, nanoseconds) = split(timeout_ns);
    let timeout = KernelTimespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let capacity = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: The buffer has room for `capacity` events, of which rustix promises the kernel's
    // layout; the timeout outlives the call; no signal mask is given, so its size is not read.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            buffer.as_mut_ptr(),
            capacity,
            &raw const timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    usize::try_from(count)
        .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
