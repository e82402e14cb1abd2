//! The blocking piece of a turn.

use std::{fmt, io, sync::Arc};

use rustix::io::Errno;

use crate::selector::{CAPACITY, Event, Poller};

/// A look at the selector: made by [`Scheduler::plan`](crate::Scheduler::plan), carried out by
/// [`block`](Self::block), evaluated by [`Scheduler::finish`](crate::Scheduler::finish).
///
/// It may be carried out in another thread, and dropped instead of finished: what was ready is then
/// found by the next one.
#[must_use = "a wait does nothing until it blocks, and its events are lost unless finished"]
pub struct Wait {
    /// What is asked.
    pub(crate) poller: Arc<Poller>,
    /// What was ready.
    pub(crate) events: Vec<Event>,
    /// How long to wait for something, in nanoseconds.
    pub(crate) timeout_ns: Option<u64>,
    /// The selector's count of changes when the wait was planned.
    pub(crate) changes: u64,
    /// The time when the wait was planned, if it was read and the wait does not block.
    pub(crate) now_ns: Option<u64>,
    /// Whether a signal ended the wait.
    pub(crate) interrupted: bool,
}

impl Wait {
    /// Makes a wait for what is ready at once.
    pub(crate) fn new(poller: Arc<Poller>) -> Self {
        Self {
            poller,
            events: Vec::new(),
            timeout_ns: Some(0),
            changes: 0,
            now_ns: None,
            interrupted: false,
        }
    }

    /// How long the wait lasts at most, in nanoseconds; `None` is until something happens.
    pub fn timeout_ns(&self) -> Option<u64> {
        self.timeout_ns
    }

    /// Whether the wait may block, so that it is worth letting go of locks.
    pub fn may_block(&self) -> bool {
        self.timeout_ns != Some(0)
    }

    /// Whether a signal ended the wait.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Waits until a descriptor is ready, the loop is woken, the timeout is over, or a signal is
    /// handled by this thread.
    pub fn block(&mut self) -> io::Result<()> {
        self.events.clear();
        self.interrupted = false;
        match self.poller.wait(&mut self.events, self.timeout_ns) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {
                self.interrupted = true;
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Whether there may be more events than were taken.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= CAPACITY
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Wait")
            .field("timeout_ns", &self.timeout_ns)
            .field("interrupted", &self.interrupted)
            .finish_non_exhaustive()
    }
}
