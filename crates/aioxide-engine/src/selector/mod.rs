//! Which job runs when which descriptor is ready; asyncio's `_add_reader` and its relatives over
//! the stdlib's `selectors`.
//!
//! The kernel's part is a [`Poller`], one file per kernel interface. The table here is indexed by
//! descriptor number, and grows only for numbers that the kernel accepted.
//!
//! Numbers are closed and used again behind our back, so what the kernel reports can be about
//! something else than what the table says. Each registration therefore has a generation, which
//! its events carry:
//!
//! - An event of an older generation, or of a number that is not registered, runs nothing.
//! - Unless the table changed since the wait began, such an event means that the kernel watches a
//!   file which left our table: its number was closed while a duplicate lives on, perhaps in a
//!   child process. It would make every wait return at once. It cannot be removed by a number that
//!   is closed or taken, so then the kernel's part is built anew from the table.
//!
//! A removal that is likely to be followed by an addition, as when a socket is waited for message by
//! message, is [put off](Selector::remove_later): the kernel is told before the next wait
//! ([`settle`](Selector::settle)), so none ever begins with more watched than the table says. An
//! addition before that changes the kernel's entry, one system call instead of two; it is made
//! even if the directions are the same, since the number may be another file's by now.
//!
//! No job is dropped in here: what is replaced or removed goes to the caller.

mod interest;
#[cfg(test)]
mod tests;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
use epoll as kernel;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use kqueue as kernel;

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use rustix::io::Errno;

use crate::waker::WakerReader;
pub(crate) use interest::{Direction, Interest};
pub(crate) use kernel::{CAPACITY, Poller};

/// Something that the kernel reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The number under which the descriptor was registered.
    fd: RawFd,
    /// Which registration of that number.
    generation: u32,
    /// The directions that are ready.
    readiness: Interest,
}

/// The jobs of a descriptor.
struct Registration<J> {
    /// What runs when it is readable.
    reader: Option<J>,
    /// What runs when it is writable.
    writer: Option<J>,
    /// Changes with each addition.
    generation: u32,
    /// What the kernel was told to watch.
    watched: Interest,
    /// Whether the number is among those that [`Selector::settle`] looks at.
    unsettled: bool,
}

impl<J> Registration<J> {
    /// An entry of a number that is not registered.
    const VACANT: Self = Self {
        reader: None,
        writer: None,
        generation: 0,
        watched: Interest::NONE,
        unsettled: false,
    };

    /// The directions that have a job.
    fn interest(&self) -> Interest {
        let read = self
            .reader
            .as_ref()
            .map_or(Interest::NONE, |_| Interest::READ);
        let write = self
            .writer
            .as_ref()
            .map_or(Interest::NONE, |_| Interest::WRITE);
        read | write
    }

    /// The job of a direction.
    fn job_mut(&mut self, direction: Direction) -> &mut Option<J> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }
}

/// What a dispatch found besides jobs.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakerState {
    /// The waker has bytes to drain.
    Readable,
    /// Nobody woke the loop.
    Quiet,
}

/// The registered descriptors.
pub(crate) struct Selector<J> {
    /// The kernel's part; shared with a wait under way.
    poller: Arc<Poller>,
    /// The registrations by number.
    table: Vec<Registration<J>>,
    /// How many numbers are registered.
    registered: usize,
    /// Numbers of which the kernel may watch more than is registered.
    unsettled: Vec<RawFd>,
    /// The last generation given out.
    generation: u32,
    /// How often something was added or removed.
    changes: u64,
    /// The waker's number, watched for reading under generation 0.
    waker_fd: RawFd,
}

impl<J: Clone> Selector<J> {
    /// Makes a selector that watches the waker.
    pub(crate) fn new(waker: &WakerReader) -> io::Result<Self> {
        let waker_fd = waker.as_raw_fd();
        let poller = Poller::new()?;
        poller.set(waker_fd, 0, Interest::NONE, Interest::READ)?;
        Ok(Self {
            poller: Arc::new(poller),
            table: Vec::new(),
            registered: 0,
            unsettled: Vec::new(),
            generation: 0,
            changes: 0,
            waker_fd,
        })
    }

    /// The kernel's part.
    pub(crate) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// How often something was added or removed: tells whether events are out of date.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether nothing but the waker is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.registered == 0
    }

    /// Registers the job in `job` and leaves the one it replaced there. On an error the kernel
    /// watches nothing new, and `job` is as it was.
    pub(crate) fn add(
        &mut self,
        fd: RawFd,
        direction: Direction,
        job: &mut Option<J>,
    ) -> io::Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::BADF)?;
        if fd == self.waker_fd {
            return Err(Errno::INVAL.into());
        }
        let (old, watched) = self
            .table
            .get(index)
            .map_or((Interest::NONE, Interest::NONE), |registration| {
                (registration.interest(), registration.watched)
            });
        let interest = old | direction.into();
        let generation = self.generation.wrapping_add(1);
        self.poller.set(fd, generation, watched, interest)?;
        self.generation = generation;
        self.changes += 1;
        if old.is_empty() {
            self.registered += 1;
        }
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || Registration::VACANT);
        }
        let registration = &mut self.table[index];
        registration.generation = generation;
        registration.watched = interest;
        std::mem::swap(registration.job_mut(direction), job);
        Ok(())
    }

    /// Unregisters a direction and returns its job, also if the descriptor is closed by now.
    pub(crate) fn remove(&mut self, fd: RawFd, direction: Direction) -> Option<J> {
        let job = self.forget(fd, direction)?;
        self.tell(fd);
        Some(job)
    }

    /// [Removes](Self::remove) a direction that may soon be added again: the kernel is told when
    /// things are [settled](Self::settle).
    pub(crate) fn remove_later(&mut self, fd: RawFd, direction: Direction) -> Option<J> {
        let job = self.forget(fd, direction)?;
        let index = usize::try_from(fd).ok()?;
        if !std::mem::replace(&mut self.table[index].unsettled, true) {
            self.unsettled.push(fd);
        }
        Some(job)
    }

    /// Tells the kernel of the removals that were put off. No wait may begin before.
    pub(crate) fn settle(&mut self) {
        while let Some(fd) = self.unsettled.pop() {
            if let Ok(index) = usize::try_from(fd) {
                self.table[index].unsettled = false;
            }
            self.tell(fd);
        }
    }

    /// Has the kernel watch no more of a number than is registered.
    fn tell(&mut self, fd: RawFd) {
        let Some(registration) = usize::try_from(fd)
            .ok()
            .and_then(|index| self.table.get_mut(index))
        else {
            return;
        };
        let left = registration.interest();
        if left == registration.watched {
            return;
        }
        registration.watched = left;
        if fd == self.waker_fd {
            // The number of a file that was closed behind our back.
        } else if left.is_empty() {
            // A descriptor closed before has left the kernel's part already.
            let _ = self.poller.remove(fd);
        } else {
            self.poller.narrow(fd, registration.generation, left);
        }
    }

    /// Takes a direction's job out of the table and leaves the kernel's part alone, which in a
    /// forked child is the parent's.
    pub(crate) fn forget(&mut self, fd: RawFd, direction: Direction) -> Option<J> {
        let index = usize::try_from(fd).ok()?;
        let registration = self.table.get_mut(index)?;
        let job = registration.job_mut(direction).take()?;
        self.changes += 1;
        if registration.interest().is_empty() {
            self.registered -= 1;
        }
        Some(job)
    }

    /// Gives the jobs of ready descriptors to `run`, of each event the reader first. `changes` is
    /// the count of changes when the wait began.
    pub(crate) fn dispatch(
        &mut self,
        events: &[Event],
        changes: u64,
        mut run: impl FnMut(J),
    ) -> WakerState {
        let mut waker = WakerState::Quiet;
        let mut strays = false;
        for event in events {
            if event.fd == self.waker_fd && event.generation == 0 {
                waker = WakerState::Readable;
                continue;
            }
            let registration = usize::try_from(event.fd)
                .ok()
                .and_then(|index| self.table.get(index))
                .filter(|registration| {
                    registration.generation == event.generation
                        && !registration.interest().is_empty()
                });
            let Some(registration) = registration else {
                strays = true;
                continue;
            };
            if let (Some(job), true) = (
                &registration.reader,
                event.readiness.intersects(Interest::READ),
            ) {
                run(job.clone());
            }
            if let (Some(job), true) = (
                &registration.writer,
                event.readiness.intersects(Interest::WRITE),
            ) {
                run(job.clone());
            }
        }
        if strays && changes == self.changes {
            self.rebuild();
        }
        waker
    }

    /// Whether a direction of a descriptor has a job.
    pub(crate) fn has(&self, fd: RawFd, direction: Direction) -> bool {
        usize::try_from(fd).is_ok_and(|index| self.interest(index).intersects(direction.into()))
    }

    /// The job of a direction of a descriptor.
    pub(crate) fn job(&self, fd: RawFd, direction: Direction) -> Option<&J> {
        let registration = self.table.get(usize::try_from(fd).ok()?)?;
        match direction {
            Direction::Read => registration.reader.as_ref(),
            Direction::Write => registration.writer.as_ref(),
        }
    }

    /// The numbers that are registered.
    pub(crate) fn registered_fds(&self) -> Vec<RawFd> {
        self.registrations().map(|(fd, _)| fd).collect()
    }

    /// Shows each job to `visit`.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&J)) {
        for registration in &self.table {
            registration.reader.iter().for_each(&mut visit);
            registration.writer.iter().for_each(&mut visit);
        }
    }

    /// The directions for which a number is registered.
    fn interest(&self, index: usize) -> Interest {
        self.table
            .get(index)
            .map_or(Interest::NONE, Registration::interest)
    }

    /// The registered numbers with their entries.
    fn registrations(&self) -> impl Iterator<Item = (RawFd, &Registration<J>)> {
        (0..)
            .zip(&self.table)
            .filter(|(_, registration)| !registration.interest().is_empty())
    }

    /// Puts a [rebuilt](Self::rebuilt) kernel's part and another waker in the place of the parent's.
    pub(crate) fn replace(&mut self, poller: Poller, waker: &WakerReader) {
        self.adopt(poller);
        self.waker_fd = waker.as_raw_fd();
        self.changes += 1;
    }

    /// Makes the kernel's part anew from the table. If that fails, the old one stays, and the next
    /// stray event is the next attempt.
    fn rebuild(&mut self) {
        if let Ok(poller) = self.rebuilt(self.waker_fd) {
            self.adopt(poller);
        }
    }

    /// Takes a [rebuilt](Self::rebuilt) kernel's part, which watches what is registered.
    fn adopt(&mut self, poller: Poller) {
        self.poller = Arc::new(poller);
        self.unsettled.clear();
        for registration in &mut self.table {
            registration.watched = registration.interest();
            registration.unsettled = false;
        }
    }

    /// A new kernel's part for the table and a waker.
    pub(crate) fn rebuilt(&self, waker_fd: RawFd) -> io::Result<Poller> {
        let poller = Poller::new()?;
        poller.set(waker_fd, 0, Interest::NONE, Interest::READ)?;
        for (fd, registration) in self.registrations() {
            if fd == waker_fd {
                // The number of a file that was closed behind our back.
                continue;
            }
            let interest = registration.interest();
            let outcome = poller.set(fd, registration.generation, Interest::NONE, interest);
            match outcome.map_err(|error| Errno::from_io_error(&error)) {
                // Closed since it was registered, or used again for a file that cannot be watched.
                Ok(()) | Err(Some(Errno::BADF)) => {}
                Err(Some(error)) if kernel::REFUSALS.contains(&error) => {}
                Err(Some(error)) => return Err(error.into()),
                Err(None) => return Err(io::ErrorKind::Other.into()),
            }
        }
        Ok(poller)
    }
}
