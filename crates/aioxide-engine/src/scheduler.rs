//! One loop: what is ready, what waits, and the turns; the stdlib's
//! `BaseEventLoop._run_once`.
//!
//! A turn runs in asyncio's order: descriptors first, then jobs from other threads, then timers
//! that are due, and the host runs the jobs counted at that moment. It looks at the selector with
//! timeout zero if work is ready, else until the next timer. Two things differ:
//!
//! - While work is ready the selector is looked at only when the [`PollBudget`] is spent, in the
//!   first turn of a run, and when the host is stopping.
//! - The clock is read only if there are timers or a look between turns of ready work, and once.
//!   A turn that blocks reads it before and after.
//!
//! Each borrow of a part ends before a job is dropped, handed back, or run: see the crate page.

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use crate::{
    clock::monotonic_ns,
    inbox::Sleep,
    job::Job,
    poll_budget::PollBudget,
    ready::ReadyQueue,
    remote::Remote,
    selector::{Direction, Selector, WakerState},
    timers::{TimerHeap, TimerId},
    wait::Wait,
    waker::{WakerReader, waker},
};

/// Turns without a wait after which the host is told to look for signals.
const SIGNAL_CHECK_TURNS: u32 = 16;

/// The longest wait, a day in nanoseconds; a turn without events follows it.
const LONGEST_WAIT_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// The vector that the inbox is drained into is kept up to this capacity.
const KEPT_BATCH_CAPACITY: usize = 4096;

/// What the host does next.
#[must_use]
#[derive(Debug)]
pub enum Plan {
    /// Run the ready jobs; the selector is not looked at in this turn.
    Run {
        /// Whether to look for signals: it is some turns since a wait would have noticed them.
        check_signals: bool,
    },
    /// Carry out the wait, give it to [`Scheduler::finish`], then run the ready jobs.
    Wait(Wait),
}

/// A loop that runs jobs of type `J`, used by one thread.
pub struct Scheduler<J: Job> {
    /// Jobs to run.
    ready: ReadyQueue<J>,
    /// Jobs to run at a time.
    timers: RefCell<TimerHeap<J>>,
    /// Jobs to run when a descriptor is ready.
    selector: RefCell<Selector<J>>,
    /// Jobs from other threads.
    remote: Arc<Remote<J>>,
    /// What other threads' wake-ups arrive at.
    waker: WakerReader,
    /// When to look at the selector although jobs are ready.
    budget: Cell<PollBudget>,
    /// How many turns were planned.
    turns: Cell<u64>,
    /// Turns since the host last had an occasion to look for signals.
    unchecked_turns: Cell<u32>,
    /// The last wait, kept for its memory.
    idle_wait: Cell<Option<Wait>>,
    /// The last batch from the inbox, empty, kept for its memory.
    idle_batch: Cell<Vec<J>>,
}

impl<J: Job> Scheduler<J> {
    /// Makes a loop with nothing to do.
    pub fn new() -> io::Result<Self> {
        let (remote, waker) = Remote::new()?;
        Ok(Self {
            ready: ReadyQueue::new(),
            timers: RefCell::new(TimerHeap::new()),
            selector: RefCell::new(Selector::new(&waker)?),
            remote: Arc::new(remote),
            waker,
            budget: Cell::new(PollBudget::new()),
            turns: Cell::new(0),
            unchecked_turns: Cell::new(0),
            idle_wait: Cell::new(None),
            idle_batch: Cell::new(Vec::new()),
        })
    }

    /// Makes a job ready, after those handed over by other threads before.
    #[inline]
    pub fn push(&self, job: J) {
        if self.remote.inbox.is_queued() {
            self.drain_inbox();
        }
        self.ready.push(job);
    }

    /// Makes a job ready before all others: one that was interrupted and has to go on.
    pub fn push_front(&self, job: J) {
        self.ready.push_front(job);
    }

    /// Takes the job that is ready longest.
    #[inline]
    pub fn pop(&self) -> Option<J> {
        self.ready.pop()
    }

    /// The number of ready jobs.
    #[inline]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Runs a job when the clock reaches a deadline, in nanoseconds of the clock that
    /// [`plan`](Self::plan) is given.
    #[inline]
    pub fn add_timer(&self, deadline_ns: u64, job: J) -> TimerId {
        self.timers.borrow_mut().add(deadline_ns, job)
    }

    /// Takes back the job of a timer; `None` if it is ready already, ran, or was cancelled.
    #[inline]
    pub fn cancel_timer(&self, id: TimerId) -> Option<J> {
        self.timers.borrow_mut().cancel(id)
    }

    /// Runs a job in each turn that finds the descriptor readable. Returns the job it replaces.
    ///
    /// On an error, such as that of a regular file, nothing is registered.
    pub fn add_reader(&self, fd: RawFd, job: J) -> io::Result<Option<J>> {
        self.add(fd, Direction::Read, job)
    }

    /// Ends what [`add_reader`](Self::add_reader) began, also if the descriptor is closed by now.
    pub fn remove_reader(&self, fd: RawFd) -> Option<J> {
        self.remove(fd, Direction::Read)
    }

    /// Ends what [`add_reader`](Self::add_reader) began, but maybe not for long: if it is begun
    /// again before the next look at the selector, that costs less than if it had been removed.
    pub fn suspend_reader(&self, fd: RawFd) -> Option<J> {
        self.remove_later(fd, Direction::Read)
    }

    /// Runs a job in each turn that finds the descriptor writable. Returns the job it replaces.
    ///
    /// On an error, such as that of a regular file, nothing is registered.
    pub fn add_writer(&self, fd: RawFd, job: J) -> io::Result<Option<J>> {
        self.add(fd, Direction::Write, job)
    }

    /// Ends what [`add_writer`](Self::add_writer) began, also if the descriptor is closed by now.
    pub fn remove_writer(&self, fd: RawFd) -> Option<J> {
        self.remove(fd, Direction::Write)
    }

    /// Ends what [`add_writer`](Self::add_writer) began, but maybe not for long, as
    /// [`suspend_reader`](Self::suspend_reader) does.
    pub fn suspend_writer(&self, fd: RawFd) -> Option<J> {
        self.remove_later(fd, Direction::Write)
    }

    /// Whether a job waits for the descriptor to be readable.
    pub fn has_reader(&self, fd: RawFd) -> bool {
        self.selector.borrow().has(fd, Direction::Read)
    }

    /// Whether a job waits for the descriptor to be writable.
    pub fn has_writer(&self, fd: RawFd) -> bool {
        self.selector.borrow().has(fd, Direction::Write)
    }

    /// Whether such a job waits for the descriptor to be readable.
    pub fn has_reader_like(&self, fd: RawFd, is_it: impl FnOnce(&J) -> bool) -> bool {
        let selector = self.selector.borrow();
        selector.job(fd, Direction::Read).is_some_and(is_it)
    }

    /// Whether such a job waits for the descriptor to be writable.
    pub fn has_writer_like(&self, fd: RawFd, is_it: impl FnOnce(&J) -> bool) -> bool {
        let selector = self.selector.borrow();
        selector.job(fd, Direction::Write).is_some_and(is_it)
    }

    /// Hands a job over like one of another thread and wakes the loop; gives it back if the loop is gone.
    #[inline]
    pub fn push_remote(&self, job: J) -> Result<(), J> {
        self.remote.push(job)
    }

    /// The entrance for other threads.
    pub fn remote(&self) -> Arc<Remote<J>> {
        Arc::clone(&self.remote)
    }

    /// What others have written to [`wakeup_fd`](Self::wakeup_fd) since the last call, without zeros.
    #[inline]
    pub fn take_wakeup_bytes(&self) -> Vec<u8> {
        self.waker.take_foreign()
    }

    /// The same when no more turn is to come, in which the socket would be looked at.
    pub fn drain_wakeup_bytes(&self) -> Vec<u8> {
        self.waker.drain();
        // Others may have woken the loop meanwhile: the next wait is to end at once.
        self.remote.wake();
        self.take_wakeup_bytes()
    }

    /// The number of a non-blocking socket; a byte written to it ends a wait. It is open as long as
    /// the scheduler lives.
    pub fn wakeup_fd(&self) -> RawFd {
        self.remote.wakeup_fd()
    }

    /// How many turns were planned.
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// Whether this process is a fork of the one that made the scheduler. It shares the selector
    /// and the waker with the parent then, and must not be used before it was
    /// [adopted](Self::adopt), but may be cleared and dropped.
    pub fn is_forked(&self) -> bool {
        self.remote.is_forked()
    }

    /// Begins a run: its first turn looks at the descriptors that are watched, as a loop that is run turn by turn
    /// expects.
    pub fn begin_run(&self) {
        let mut budget = self.budget.get();
        budget.exhaust();
        self.budget.set(budget);
    }

    /// In a forked child, gives the scheduler a selector and a waker of its own; what was
    /// registered stays so. Otherwise does nothing. The wakeup descriptor has another number then.
    ///
    /// Fails if there are no descriptors left, or if the fork hit the moment in which another thread
    /// of the parent woke the loop: its lock cannot be opened any more.
    pub fn adopt(&self) -> io::Result<()> {
        if !self.is_forked() {
            return Ok(());
        }
        let (reader, writer) = waker()?;
        let poller = self.selector.borrow().rebuilt(reader.as_raw_fd())?;
        if self.remote.adopt(writer).is_err() {
            return Err(io::Error::other(
                "a thread of the parent process was waking the loop",
            ));
        }
        self.selector.borrow_mut().replace(poller, &reader);
        self.waker.replace(reader);
        Ok(())
    }

    /// Begins a turn. `now_ns` reads the clock; `stopping` says that this turn is the last, which
    /// looks at the selector once and does not block.
    pub fn plan(&self, now_ns: impl FnOnce() -> u64, stopping: bool) -> Plan {
        self.turns.set(self.turns.get().wrapping_add(1));
        self.drain_inbox();
        if stopping {
            return self.look(Some(0), None);
        }
        let deadline = self.timers.borrow_mut().next_deadline();
        let now = deadline.map(|_| now_ns());
        let timeout = deadline
            .zip(now)
            .map(|(deadline, now)| deadline.saturating_sub(now).min(LONGEST_WAIT_NS));
        if self.ready.len() > 0 || timeout == Some(0) {
            return self.plan_busy(now);
        }
        self.ready.trim();
        match self.remote.inbox.fall_asleep() {
            Sleep::Allowed => self.look(timeout, None),
            Sleep::Denied => self.look(Some(0), now),
        }
    }

    /// Ends a turn's wait: makes ready the jobs of ready descriptors, those from other threads, and
    /// those of timers that are due.
    pub fn finish(&self, mut wait: Wait, now_ns: impl FnOnce() -> u64) {
        let blocked = wait.may_block();
        if blocked {
            self.remote.inbox.rise();
        }
        let (waker, watches) = {
            let mut selector = self.selector.borrow_mut();
            if !Arc::ptr_eq(selector.poller(), &wait.poller) {
                wait.events.clear();
            }
            let waker = selector.dispatch(&wait.events, wait.changes, |job| self.ready.push(job));
            (waker, !selector.is_empty())
        };
        if waker == WakerState::Readable {
            self.waker.drain();
        }
        self.drain_inbox();

        let has_timers = self.timers.borrow_mut().next_deadline().is_some();
        let now = if wait.now_ns.is_some() {
            wait.now_ns
        } else if has_timers || (watches && !blocked) {
            Some(now_ns())
        } else {
            None
        };
        if let Some(now) = now {
            self.expire(now);
        }

        let mut budget = self.budget.get();
        if blocked {
            budget.waited(now);
        } else {
            budget.looked(now);
        }
        budget.spend(self.ready.len());
        if wait.is_full() {
            budget.exhaust();
        }
        self.budget.set(budget);
        wait.events.clear();
        self.idle_wait.set(Some(wait));
    }

    /// A whole turn with the system's monotonic clock, for hosts that hold no lock: blocks if
    /// nothing is ready, then runs the jobs that are.
    pub fn run_once(&self, mut run: impl FnMut(J)) -> io::Result<()> {
        if let Plan::Wait(mut wait) = self.plan(monotonic_ns, false) {
            wait.block()?;
            self.finish(wait, monotonic_ns);
        }
        for _ in 0..self.ready_len() {
            if let Some(job) = self.pop() {
                run(job);
            }
        }
        Ok(())
    }

    /// Shows each job that the scheduler holds to `visit`, for a host's garbage collector. Never
    /// panics; a part in use, even by another thread, is left out.
    pub fn for_each_job(&self, mut visit: impl FnMut(&J)) {
        self.ready.for_each(&mut visit);
        if let Ok(timers) = self.timers.try_borrow() {
            timers.for_each(&mut visit);
        }
        if let Ok(selector) = self.selector.try_borrow() {
            selector.for_each(&mut visit);
        }
        self.remote.inbox.for_each(&mut visit);
    }

    /// Takes out all jobs, cancels all timers, and unregisters all descriptors.
    pub fn clear(&self) -> Vec<J> {
        self.drain_inbox();
        let mut jobs = Vec::from(self.ready.take());
        self.timers.borrow_mut().take_into(&mut jobs);
        jobs.extend(self.unregister_all());
        jobs
    }

    /// Unregisters all descriptors; gives their jobs.
    pub fn unregister_all(&self) -> Vec<J> {
        let fds = self.selector.borrow().registered_fds();
        let mut jobs = Vec::new();
        for fd in fds {
            jobs.extend(self.remove_reader(fd));
            jobs.extend(self.remove_writer(fd));
        }
        jobs
    }

    /// Plans a turn that has work without waiting.
    fn plan_busy(&self, now: Option<u64>) -> Plan {
        let mut budget = self.budget.get();
        let look = if self.selector.borrow().is_empty() {
            budget.is_overdue()
        } else {
            budget.is_spent(now)
        };
        if look {
            self.budget.set(budget);
            return self.look(Some(0), now);
        }
        if let Some(now) = now {
            self.expire(now);
        }
        budget.spend(self.ready.len());
        self.budget.set(budget);
        let unchecked = self.unchecked_turns.get() + 1;
        let check_signals = unchecked >= SIGNAL_CHECK_TURNS;
        self.unchecked_turns
            .set(if check_signals { 0 } else { unchecked });
        Plan::Run { check_signals }
    }

    /// Plans a look at the selector.
    fn look(&self, timeout_ns: Option<u64>, now_ns: Option<u64>) -> Plan {
        self.unchecked_turns.set(0);
        let mut selector = self.selector.borrow_mut();
        selector.settle();
        let mut wait = match self.idle_wait.take() {
            Some(wait) if Arc::ptr_eq(&wait.poller, selector.poller()) => wait,
            _ => Wait::new(Arc::clone(selector.poller())),
        };
        wait.timeout_ns = timeout_ns;
        wait.now_ns = now_ns;
        wait.changes = selector.changes();
        wait.interrupted = false;
        Plan::Wait(wait)
    }

    /// Makes the jobs of due timers ready.
    fn expire(&self, now: u64) {
        let mut timers = self.timers.borrow_mut();
        while let Some(job) = timers.pop_due(now) {
            self.ready.push(job);
        }
    }

    /// Makes the jobs from other threads ready.
    fn drain_inbox(&self) {
        if !self.remote.inbox.is_queued() {
            return;
        }
        let mut batch = self.remote.inbox.take(self.idle_batch.take());
        self.ready.append(&mut batch);
        if batch.capacity() <= KEPT_BATCH_CAPACITY {
            self.idle_batch.set(batch);
        }
    }

    /// Registers a job for a direction.
    fn add(&self, fd: RawFd, direction: Direction, job: J) -> io::Result<Option<J>> {
        self.adopt()?;
        let mut job = Some(job);
        let outcome = self.selector.borrow_mut().add(fd, direction, &mut job);
        // On an error the job is dropped here, after the borrow.
        outcome.map(|()| job)
    }

    /// Unregisters a direction.
    fn remove(&self, fd: RawFd, direction: Direction) -> Option<J> {
        if self.is_forked() {
            self.selector.borrow_mut().forget(fd, direction)
        } else {
            self.selector.borrow_mut().remove(fd, direction)
        }
    }

    /// Unregisters a direction; the kernel is told before the next look.
    fn remove_later(&self, fd: RawFd, direction: Direction) -> Option<J> {
        if self.is_forked() {
            self.selector.borrow_mut().forget(fd, direction)
        } else {
            self.selector.borrow_mut().remove_later(fd, direction)
        }
    }
}

impl<J: Job> Drop for Scheduler<J> {
    fn drop(&mut self) {
        // The entrance may live on in other threads.
        drop(self.remote.close());
    }
}
