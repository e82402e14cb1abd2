//! Which sockets are ready; level-triggered, as most event loops use epoll.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::retry_on_intr,
};

/// After so long without any event the other end counts as dead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The most events taken at a time.
const CAPACITY: usize = 256;

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Both.
    Both,
}

/// An epoll descriptor.
pub(crate) struct Poller {
    /// The descriptor.
    epoll: OwnedFd,
    /// What the last wait found.
    events: Vec<Event>,
}

impl Poller {
    /// Makes a poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(CAPACITY),
        })
    }

    /// Watches a socket; its events bear `token`.
    pub(crate) fn add(
        &self,
        source: impl AsFd,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            data(token),
            flags(interest),
        )?)
    }

    /// Watches a socket for something else.
    pub(crate) fn modify(
        &self,
        source: impl AsFd,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            source,
            data(token),
            flags(interest),
        )?)
    }

    /// Waits, and appends the tokens of the sockets that are ready. `None` waits for ever.
    pub(crate) fn wait(
        &mut self,
        tokens: &mut Vec<usize>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.events.clear();
        retry_on_intr(|| {
            epoll::wait(
                &self.epoll,
                spare_capacity(&mut self.events),
                timeout.as_ref(),
            )
        })?;
        let found = self.events.iter().map(|event| event.data.u64());
        tokens.extend(found.filter_map(|token| usize::try_from(token).ok()));
        Ok(())
    }

    /// Waits for the other end; an error if it does nothing for too long.
    pub(crate) fn wait_patiently(&mut self, tokens: &mut Vec<usize>) -> io::Result<()> {
        self.wait(tokens, Some(PATIENCE))?;
        if tokens.is_empty() {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                "the other end does nothing",
            ));
        }
        Ok(())
    }
}

/// What the kernel hands back with an event.
fn data(token: usize) -> EventData {
    EventData::new_u64(token as u64)
}

/// The kernel's form of an interest.
fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN,
        Interest::Write => EventFlags::OUT,
        Interest::Both => EventFlags::IN | EventFlags::OUT,
    }
}

/// `None` for what would block.
pub(crate) fn not_yet<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
