//! Where other threads hand over jobs, and the protocol that wakes a waiting loop for them.
//!
//! The jobs are in a vector under a short lock; one atomic, the state, has three bits:
//!
//! - `QUEUED`: the vector is not empty. It changes only under the lock, so it is exact whenever
//!   the lock is free, and the loop's thread asks it without the lock.
//! - `WOKEN`: somebody called [`Inbox::wake`]; the next wait must not block.
//! - `ASLEEP`: the loop is about to block, blocks, or has not noticed yet that it was woken.
//!
//! The loop's thread sets `ASLEEP` before it blocks and blocks only if neither other bit was
//! set. Another thread sets `QUEUED` or `WOKEN`, and writes a byte to the waker exactly if the
//! state was `ASLEEP` and nothing else:
//!
//! ```text
//!   loop's thread                          another thread
//!   old = fetch_or(ASLEEP)                 lock; push; old = fetch_or(QUEUED); unlock
//!   old has QUEUED or WOKEN: do not block  old == ASLEEP: write a byte
//!   else block until the byte comes        else: somebody else wrote, or the loop is awake
//!   fetch_and(!(ASLEEP | WOKEN))
//!   drain the bytes, then the vector
//! ```
//!
//! - *No wake-up is lost.* Both sides change the same atomic, so one of the two comes first: if
//!   it is `QUEUED`, the loop sees it and does not block; if it is `ASLEEP`, the other thread
//!   sees it and writes.
//! - *One write a batch.* After the first thread the state is more than `ASLEEP`, until the loop
//!   is up and clears it.
//! - *A late byte does no harm.* The loop may wake for another reason while the byte is still
//!   on its way; it then cuts one later wait short. The loop drains bytes before the vector, so
//!   a byte drained early belongs to jobs that are drained now.
//! - *Order.* The loop's thread drains the inbox before it pushes a job of its own, so a job that
//!   was handed over before a local push also runs before it.
//!
//! A closed inbox takes no job. The lock is never held while a job is dropped.

#[cfg(test)]
mod tests;

use std::sync::{PoisonError, TryLockError};

use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};

/// The queue has jobs.
const QUEUED: u8 = 1;
/// The next wait must not block.
const WOKEN: u8 = 2;
/// The loop may be blocked.
const ASLEEP: u8 = 4;

/// Whether the caller has to write to the waker.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// The loop may be blocked and nobody else writes: write a byte.
    Needed,
    /// The loop is awake, or another thread writes.
    Unneeded,
}

/// Whether the loop's thread may block.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Yes: whoever brings work from now on wakes the loop.
    Allowed,
    /// No: work came in, or somebody asked for a turn.
    Denied,
}

/// What the lock protects.
struct Queue<J> {
    /// The jobs, in the order they were handed over.
    jobs: Vec<J>,
    /// Whether jobs are still taken.
    open: bool,
}

/// Jobs from other threads.
pub struct Inbox<J> {
    /// The jobs.
    queue: Mutex<Queue<J>>,
    /// The bits of the protocol.
    state: AtomicU8,
}

impl<J> Inbox<J> {
    /// Makes an empty inbox of a loop that is awake.
    pub fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: Vec::new(),
                open: true,
            }),
            state: AtomicU8::new(0),
        }
    }

    /// Hands over a job, or gives it back if the inbox is closed. Called by any thread.
    pub fn push(&self, job: J) -> Result<WakeUp, J> {
        let mut queue = self.lock();
        if !queue.open {
            return Err(job);
        }
        queue.jobs.push(job);
        // Once queued, nothing changes until the loop drains: the others need no atomic write.
        Ok(if queue.jobs.len() == 1 {
            self.announce(QUEUED)
        } else {
            WakeUp::Unneeded
        })
    }

    /// Makes sure that a wait under way, or else the next one, ends. Called by any thread.
    pub fn wake(&self) -> WakeUp {
        self.announce(WOKEN)
    }

    /// Whether jobs wait in here. Called by the loop's thread.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.state.load(Ordering::Acquire) & QUEUED != 0
    }

    /// Takes the jobs, in exchange for an empty vector. Called by the loop's thread.
    pub fn take(&self, empty: Vec<J>) -> Vec<J> {
        debug_assert!(empty.is_empty());
        let mut queue = self.lock();
        self.state.fetch_and(!QUEUED, Ordering::AcqRel);
        std::mem::replace(&mut queue.jobs, empty)
    }

    /// Asks whether the loop may block. Called by the loop's thread, which calls
    /// [`rise`](Self::rise) afterwards if it may.
    pub fn fall_asleep(&self) -> Sleep {
        let old = self.state.fetch_or(ASLEEP, Ordering::AcqRel);
        if old & (QUEUED | WOKEN) == 0 {
            Sleep::Allowed
        } else {
            self.rise();
            Sleep::Denied
        }
    }

    /// Says that the loop is awake, and counts what was asked of it by [`wake`](Self::wake) as
    /// done. Called by the loop's thread.
    pub fn rise(&self) {
        self.state.fetch_and(!(ASLEEP | WOKEN), Ordering::AcqRel);
    }

    /// Takes no more jobs, and returns those not drained yet.
    pub fn close(&self) -> Vec<J> {
        self.close_locked(self.lock())
    }

    /// Like [`close`](Self::close), but does nothing if another thread holds the lock; in a
    /// forked child that thread does not exist, and the lock stays held forever.
    pub fn try_close(&self) -> Vec<J> {
        self.try_lock()
            .map_or_else(Vec::new, |queue| self.close_locked(queue))
    }

    /// Shows each job to `visit`, or none while another thread holds the lock.
    pub fn for_each(&self, visit: impl FnMut(&J)) {
        if let Some(queue) = self.try_lock() {
            queue.jobs.iter().for_each(visit);
        }
    }

    /// Whether no thread holds the lock at the moment.
    pub fn is_free(&self) -> bool {
        self.try_lock().is_some()
    }

    /// Sets a bit that ends a wait.
    fn announce(&self, bit: u8) -> WakeUp {
        if self.state.fetch_or(bit, Ordering::AcqRel) == ASLEEP {
            WakeUp::Needed
        } else {
            WakeUp::Unneeded
        }
    }

    /// Closes the queue and takes its jobs.
    fn close_locked(&self, mut queue: MutexGuard<'_, Queue<J>>) -> Vec<J> {
        queue.open = false;
        self.state.fetch_and(!QUEUED, Ordering::AcqRel);
        std::mem::take(&mut queue.jobs)
    }

    /// Takes the lock. Nothing under it panics, so a poisoned queue is a whole one.
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if it is free.
    fn try_lock(&self) -> Option<MutexGuard<'_, Queue<J>>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<J> Default for Inbox<J> {
    fn default() -> Self {
        Self::new()
    }
}
