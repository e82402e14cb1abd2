//! `kevent`, which rustix calls unsafe because an event may name a closed descriptor.

use std::{io, mem::MaybeUninit, os::fd::BorrowedFd};

use rustix::{
    event::kqueue::{Event, kevent_timespec},
    io::Errno,
};

use super::timespec::timespec;

/// Makes one change to what a kqueue watches.
pub(crate) fn kevent_change(kqueue: BorrowedFd<'_>, change: Event) -> io::Result<()> {
    let nothing: &mut [MaybeUninit<Event>] = &mut [];
    // SAFETY: The event has a filter for reading, for writing, or for the end of a process. The
    // kernel checks its descriptor or process now, and drops the filter when the descriptor is
    // closed or the process gone; it follows no pointer of ours.
    match unsafe { kevent_timespec(kqueue, &[change], nothing, None) } {
        // A signal ends the wait, if at all, that follows the change.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for events, up to a timeout in nanoseconds, and returns those that happened.
pub(crate) fn kevent_wait<'buffer>(
    kqueue: BorrowedFd<'_>,
    buffer: &'buffer mut [MaybeUninit<Event>],
    timeout_ns: Option<u64>,
) -> io::Result<&'buffer [Event]> {
    let timeout = timeout_ns.map(timespec);
    // SAFETY: Nothing is changed, so no descriptor is named.
    let (events, _) = unsafe { kevent_timespec(kqueue, &[], buffer, timeout.as_ref()) }?;
    Ok(events)
}
