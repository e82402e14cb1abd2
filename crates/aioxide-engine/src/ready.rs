//! The jobs that are ready to run, first in, first out; asyncio's `loop._ready`.
//!
//! Nothing of the host runs while the queue is borrowed: jobs are moved in and out, never dropped or
//! cloned here.

#[cfg(test)]
mod tests;

use std::{cell::RefCell, collections::VecDeque};

/// A queue that grew beyond this many entries gives its memory back when the loop falls idle.
const KEPT_CAPACITY: usize = 16 * 1024;

/// A ring buffer of ready jobs.
pub(crate) struct ReadyQueue<J> {
    /// The jobs, the oldest in front.
    jobs: RefCell<VecDeque<J>>,
}

impl<J> ReadyQueue<J> {
    /// Makes an empty queue.
    pub(crate) fn new() -> Self {
        Self {
            jobs: RefCell::new(VecDeque::with_capacity(64)),
        }
    }

    /// Adds a job at the end.
    #[inline]
    pub(crate) fn push(&self, job: J) {
        self.jobs.borrow_mut().push_back(job);
    }

    /// Adds a job at the front.
    pub(crate) fn push_front(&self, job: J) {
        self.jobs.borrow_mut().push_front(job);
    }

    /// Adds jobs at the end, in their order, and leaves the batch empty.
    pub(crate) fn append(&self, batch: &mut Vec<J>) {
        self.jobs.borrow_mut().extend(batch.drain(..));
    }

    /// Takes the oldest job.
    #[inline]
    pub(crate) fn pop(&self) -> Option<J> {
        self.jobs.borrow_mut().pop_front()
    }

    /// The number of jobs.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.jobs.borrow().len()
    }

    /// Gives back the memory of a burst, if the queue is empty.
    pub(crate) fn trim(&self) {
        let mut jobs = self.jobs.borrow_mut();
        if jobs.is_empty() && jobs.capacity() > KEPT_CAPACITY {
            *jobs = VecDeque::new();
        }
    }

    /// Shows each job to `visit`, or none while the queue is borrowed.
    pub(crate) fn for_each(&self, visit: impl FnMut(&J)) {
        if let Ok(jobs) = self.jobs.try_borrow() {
            jobs.iter().for_each(visit);
        }
    }

    /// Takes all jobs.
    pub(crate) fn take(&self) -> VecDeque<J> {
        self.jobs.take()
    }
}
