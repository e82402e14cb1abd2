//! A descriptor that tells when a child process ends; what `os.pidfd_open` gives asyncio's watchers.
//!
//! Linux has such descriptors (5.3 and later, unless a sandbox forbids them). Elsewhere it is a
//! kqueue of its own with one filter, which the loop's kqueue watches like any other descriptor.
//! Apple's systems tell of the end a moment before the child can be waited for.

#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{io::Errno, process::Pid};

/// Watches for the end of a process, which is when its descriptor can be read. Nothing of the
/// process is taken: its parent still has to wait for it.
pub struct ExitWatch {
    /// The descriptor; `None` only while dropped.
    fd: Option<OwnedFd>,
    /// The process that made it: a kqueue is not inherited by a fork.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    owner: u32,
}

impl ExitWatch {
    /// Watches a child that was not waited for yet.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn new(pid: i32) -> io::Result<Self> {
        use rustix::process::{PidfdFlags, pidfd_open};
        let fd = pidfd_open(checked(pid)?, PidfdFlags::empty())?;
        Ok(Self { fd: Some(fd) })
    }

    /// Watches a child that was not waited for yet. Fails on Apple's systems if it has ended
    /// already.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn new(pid: i32) -> io::Result<Self> {
        use std::{os::fd::AsFd, process, ptr};

        use rustix::{
            event::kqueue::{Event, EventFilter, EventFlags, ProcessEvents, kqueue},
            io::{FdFlags, fcntl_setfd},
        };

        let filter = EventFilter::Proc {
            pid: checked(pid)?,
            flags: ProcessEvents::EXIT,
        };
        let fd = kqueue()?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        crate::sys::kevent_change(
            fd.as_fd(),
            Event::new(filter, EventFlags::ADD, ptr::null_mut()),
        )?;
        Ok(Self {
            fd: Some(fd),
            owner: process::id(),
        })
    }
}

impl AsRawFd for ExitWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Drop for ExitWatch {
    fn drop(&mut self) {
        if std::process::id() != self.owner {
            // The number is not ours to close.
            std::mem::forget(self.fd.take());
        }
    }
}

/// The number of one process; 0 and below mean something else.
fn checked(pid: i32) -> io::Result<Pid> {
    if pid <= 0 {
        return Err(Errno::SRCH.into());
    }
    Pid::from_raw(pid).ok_or_else(|| Errno::SRCH.into())
}
