//! The selector of Linux; the stdlib's `selectors.EpollSelector`.
//!
//! The kernel keeps a registration for a pair of number and open file. A number closed behind our
//! back and used again is another pair, so changing is tried both ways: modify, else add. Events
//! carry the number and the registration's generation.

#[cfg(test)]
mod tests;

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd, RawFd},
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

use super::{Event, interest::Interest};
use crate::sys::{borrow_fd, epoll_wait};

/// The most events taken at a time.
pub(crate) const CAPACITY: usize = 256;

/// What is said to an attempt to watch a file that is always ready.
pub(crate) const REFUSALS: &[Errno] = &[Errno::PERM];

/// An epoll descriptor.
pub(crate) struct Poller {
    /// The descriptor, closed on exec.
    epoll: OwnedFd,
}

impl Poller {
    /// Makes a selector that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Watches a descriptor for `interest` and nothing else, where it was watched for `old`.
    pub(crate) fn set(
        &self,
        fd: RawFd,
        generation: u32,
        old: Interest,
        interest: Interest,
    ) -> io::Result<()> {
        let source = borrow_fd(fd)?;
        let data = data(fd, generation);
        let flags = flags(interest);
        let add = || epoll::add(&self.epoll, source, data, flags);
        let modify = || epoll::modify(&self.epoll, source, data, flags);
        let outcome = if old.is_empty() {
            match add() {
                Err(Errno::EXIST) => modify(),
                outcome => outcome,
            }
        } else {
            match modify() {
                Err(Errno::NOENT) => add(),
                outcome => outcome,
            }
        };
        Ok(outcome?)
    }

    /// Watches a descriptor for less than before. It may be closed, or another one by now: then
    /// nothing is watched.
    pub(crate) fn narrow(&self, fd: RawFd, generation: u32, interest: Interest) {
        if let Ok(source) = borrow_fd(fd) {
            let data = data(fd, generation);
            let _ = epoll::modify(&self.epoll, source, data, flags(interest));
        }
    }

    /// Stops watching a descriptor. Fails if it is closed or was not watched.
    pub(crate) fn remove(&self, fd: RawFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, borrow_fd(fd)?)?)
    }

    /// Waits up to a timeout in nanoseconds, and appends what is ready.
    pub(crate) fn wait(&self, ready: &mut Vec<Event>, timeout_ns: Option<u64>) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; CAPACITY];
        let events = epoll_wait(self.epoll.as_fd(), &mut buffer, timeout_ns)?;
        ready.extend(events.iter().map(|event| Event::from(*event)));
        Ok(())
    }
}

impl From<epoll::Event> for Event {
    fn from(event: epoll::Event) -> Self {
        let flags = event.flags;
        let data = event.data.u64();
        // CPython: an error or a hang-up makes both directions ready.
        let mut readiness = Interest::NONE;
        if flags.intersects(EventFlags::IN.complement()) {
            readiness = readiness | Interest::WRITE;
        }
        if flags.intersects(EventFlags::OUT.complement()) {
            readiness = readiness | Interest::READ;
        }
        Self {
            fd: RawFd::try_from(data & u64::from(u32::MAX)).unwrap_or(-1),
            generation: u32::try_from(data >> 32).unwrap_or(0),
            readiness,
        }
    }
}

/// What the kernel hands back with an event. The number is not negative.
fn data(fd: RawFd, generation: u32) -> EventData {
    EventData::new_u64((u64::from(generation) << 32) | u64::from(fd.unsigned_abs()))
}

/// The kernel's form of an interest.
fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.intersects(Interest::READ));
    flags.set(EventFlags::OUT, interest.intersects(Interest::WRITE));
    flags
}
