//! The selector of macOS and the BSDs; the stdlib's `selectors.KqueueSelector`.
//!
//! A direction is a filter of its own, and is told of by itself. The end of a connection, and an
//! error, make ready what is watched. The kernel drops the filters of a descriptor that is closed,
//! also if a duplicate lives on, so a number used again starts with none; adding a filter that is
//! there updates it.
//!
//! A kqueue is not inherited by a forked child: its number there is free, or some other file's.

#[cfg(test)]
mod tests;

use std::{
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, OwnedFd, RawFd},
    process, ptr,
};

use rustix::{
    event::kqueue::{self, EventFilter, EventFlags, kqueue},
    io::{Errno, FdFlags, fcntl_setfd},
};

use super::{Event, interest::Interest};
use crate::sys::{kevent_change, kevent_wait};

/// The most events taken at a time.
pub(crate) const CAPACITY: usize = 128;

/// What is said to an attempt to watch a file for something that it does not have; `PIPE` of a pipe
/// without reader.
pub(crate) const REFUSALS: &[Errno] = &[
    Errno::PERM,
    Errno::PIPE,
    Errno::INVAL,
    Errno::NODEV,
    Errno::OPNOTSUPP,
    Errno::NOTSUP,
];

/// A kqueue descriptor.
pub(crate) struct Poller {
    /// The descriptor, closed on exec; `None` only while dropped.
    kqueue: Option<OwnedFd>,
    /// The process that has it.
    process_id: u32,
}

impl Poller {
    /// Makes a selector that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let kqueue = kqueue()?;
        fcntl_setfd(&kqueue, FdFlags::CLOEXEC)?;
        Ok(Self {
            kqueue: Some(kqueue),
            process_id: process::id(),
        })
    }

    /// Watches a descriptor for `interest` and nothing else, where it was watched for `old`.
    pub(crate) fn set(
        &self,
        fd: RawFd,
        generation: u32,
        old: Interest,
        interest: Interest,
    ) -> io::Result<()> {
        // What is new comes first: if it is refused, what was watched keeps its generation.
        for new in [true, false] {
            for direction in [Interest::READ, Interest::WRITE] {
                if !interest.intersects(direction) || old.intersects(direction) == new {
                    continue;
                }
                let added = self.change(fd, direction, EventFlags::ADD, generation);
                if added.is_err() {
                    self.narrow(fd, generation, old);
                    return added;
                }
            }
        }
        if old | interest != interest {
            self.narrow(fd, generation, interest);
        }
        Ok(())
    }

    /// Watches a descriptor for less than before. It may be closed, or another one by now: then
    /// nothing is watched.
    pub(crate) fn narrow(&self, fd: RawFd, generation: u32, interest: Interest) {
        for direction in [Interest::READ, Interest::WRITE] {
            if !interest.intersects(direction) {
                let _ = self.change(fd, direction, EventFlags::DELETE, generation);
            }
        }
    }

    /// Stops watching a descriptor. Fails if it is closed or was not watched.
    pub(crate) fn remove(&self, fd: RawFd) -> io::Result<()> {
        let read = self.change(fd, Interest::READ, EventFlags::DELETE, 0);
        let write = self.change(fd, Interest::WRITE, EventFlags::DELETE, 0);
        read.or(write)
    }

    /// Waits up to a timeout in nanoseconds, and appends what is ready.
    pub(crate) fn wait(&self, ready: &mut Vec<Event>, timeout_ns: Option<u64>) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; CAPACITY];
        let events = kevent_wait(self.kqueue()?.as_fd(), &mut buffer, timeout_ns)?;
        ready.extend(events.iter().filter_map(ready_event));
        Ok(())
    }

    /// Makes one change, to the filter of one direction.
    fn change(
        &self,
        fd: RawFd,
        direction: Interest,
        action: EventFlags,
        generation: u32,
    ) -> io::Result<()> {
        if fd < 0 {
            return Err(Errno::BADF.into());
        }
        let filter = if direction == Interest::READ {
            EventFilter::Read(fd)
        } else {
            EventFilter::Write(fd)
        };
        let data = ptr::without_provenance_mut(generation as usize);
        kevent_change(
            self.kqueue()?.as_fd(),
            kqueue::Event::new(filter, action, data),
        )
    }

    /// The descriptor.
    fn kqueue(&self) -> io::Result<&OwnedFd> {
        self.kqueue.as_ref().ok_or_else(|| Errno::BADF.into())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if process::id() != self.process_id {
            // The number is not ours to close.
            mem::forget(self.kqueue.take());
        }
    }
}

/// Reads an event of a filter that we added.
fn ready_event(event: &kqueue::Event) -> Option<Event> {
    let (fd, readiness) = match event.filter() {
        EventFilter::Read(fd) => (fd, Interest::READ),
        EventFilter::Write(fd) => (fd, Interest::WRITE),
        _ => return None,
    };
    let generation = u32::try_from(event.udata().addr()).ok()?;
    Some(Event {
        fd,
        generation,
        readiness,
    })
}
