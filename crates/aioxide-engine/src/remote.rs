//! What other threads hold of a loop; the way of `loop.call_soon_threadsafe`.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    thread,
};

use crate::{
    inbox::{Inbox, WakeUp},
    waker::{ATTEMPTS, WakerReader, WakerWriter, waker},
};

/// A loop's entrance for other threads. It outlives the loop, and is then closed.
pub struct Remote<J> {
    /// The jobs on their way.
    pub(crate) inbox: Inbox<J>,
    /// What ends a blocking wait.
    waker: WakerWriter,
}

impl<J> Remote<J> {
    /// Makes an entrance, and the end of its waker that the loop watches.
    pub(crate) fn new() -> io::Result<(Self, WakerReader)> {
        let (reader, writer) = waker()?;
        let remote = Self {
            inbox: Inbox::new(),
            waker: writer,
        };
        Ok((remote, reader))
    }

    /// Hands a job to the loop and wakes it, or gives the job back if the loop is gone.
    ///
    /// In a forked child the loop is the parent's copy, and nobody is woken.
    pub fn push(&self, job: J) -> Result<(), J> {
        let wake_up = self.inbox.push(job)?;
        self.carry_out(wake_up);
        Ok(())
    }

    /// Ends a wait under way, or else the next one: what the caller did before is seen by the
    /// loop's thread after that wait.
    pub fn wake(&self) {
        self.carry_out(self.inbox.wake());
    }

    /// Closes the entrance and returns the jobs that the loop has not seen.
    pub(crate) fn close(&self) -> Vec<J> {
        self.waker.close();
        if self.waker.is_forked() {
            self.inbox.try_close()
        } else {
            self.inbox.close()
        }
    }

    /// Whether this process is a fork of the one that made the loop.
    pub(crate) fn is_forked(&self) -> bool {
        self.waker.is_forked()
    }

    /// Gives the loop that came from a parent process a waker of its own; gives it back if a thread
    /// that is left in the parent was in the midst of something.
    pub(crate) fn adopt(&self, waker: WakerWriter) -> Result<(), WakerWriter> {
        for _ in 0..ATTEMPTS {
            if self.inbox.is_free() {
                return self.waker.adopt(waker);
            }
            thread::yield_now();
        }
        Err(waker)
    }

    /// The number of the waker's writing end.
    pub(crate) fn wakeup_fd(&self) -> RawFd {
        self.waker.as_raw_fd()
    }

    /// Writes to the waker if needed.
    fn carry_out(&self, wake_up: WakeUp) {
        match wake_up {
            WakeUp::Needed => self.waker.wake(),
            WakeUp::Unneeded => {}
        }
    }
}

#[cfg(test)]
impl<J> Remote<J> {
    /// Makes the loop look like one that came from a parent process.
    pub(crate) fn pretend_fork(&mut self) {
        self.waker.pretend_fork();
    }
}
