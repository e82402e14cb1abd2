//! Tests of the selector with pipes and socket pairs. Nothing sleeps: a wait that should find
//! nothing has timeout zero, all others end by an event.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::{fcntl_dupfd_cloexec, read, write},
    pipe::pipe,
};

use super::*;
use crate::waker::{WakerWriter, waker};

/// A selector with its waker.
struct Fixture {
    selector: Selector<&'static str>,
    waker: WakerReader,
    writer: WakerWriter,
}

impl Fixture {
    fn new() -> Self {
        let (waker, writer) = waker().unwrap();
        Self {
            selector: Selector::new(&waker).unwrap(),
            waker,
            writer,
        }
    }

    fn add(
        &mut self,
        fd: &impl AsRawFd,
        direction: Direction,
        job: &'static str,
    ) -> io::Result<Option<&'static str>> {
        let mut job = Some(job);
        self.selector.add(fd.as_raw_fd(), direction, &mut job)?;
        Ok(job)
    }

    fn remove(&mut self, fd: RawFd, direction: Direction) -> Option<&'static str> {
        self.selector.remove(fd, direction)
    }

    fn remove_later(&mut self, fd: &impl AsRawFd, direction: Direction) -> Option<&'static str> {
        self.selector.remove_later(fd.as_raw_fd(), direction)
    }

    /// What the kernel says.
    fn look(&self, timeout_ns: Option<u64>) -> Vec<Event> {
        let mut events = Vec::new();
        self.selector.poller.wait(&mut events, timeout_ns).unwrap();
        events
    }

    /// The jobs that are ready now; sorted where the kernel tells of a descriptor's directions in
    /// the order in which they became ready.
    fn ready(&mut self) -> Vec<&'static str> {
        let (events, changes) = (self.look(Some(0)), self.selector.changes());
        let mut jobs = Vec::new();
        let _ = self
            .selector
            .dispatch(&events, changes, |job| jobs.push(job));
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            jobs.sort_unstable();
        }
        jobs
    }
}

/// Bytes in, so that the reading end is ready.
fn fill(fd: &OwnedFd) {
    assert_eq!(write(fd, b"x"), Ok(1));
}

#[test]
fn reader_is_level_triggered() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(fixture.add(&reader, Direction::Read, "read").unwrap(), None);
    assert_eq!(fixture.ready(), [""; 0]);
    fill(&writer);
    assert_eq!(fixture.look(None).len(), 1);
    assert_eq!(fixture.ready(), ["read"]);
    assert_eq!(fixture.ready(), ["read"]);
    read(&reader, &mut [0; 8]).unwrap();
    assert_eq!(fixture.ready(), [""; 0]);
}

#[test]
fn reader_comes_before_writer() {
    let mut fixture = Fixture::new();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    fixture.add(&near, Direction::Write, "write").unwrap();
    assert_eq!(fixture.ready(), ["write"]);
    fixture.add(&near, Direction::Read, "read").unwrap();
    assert_eq!(fixture.ready(), ["write"]);
    far.write_all(b"x").unwrap();
    assert_eq!(fixture.ready(), ["read", "write"]);
    assert_eq!(
        fixture.remove(near.as_raw_fd(), Direction::Write),
        Some("write")
    );
    assert_eq!(fixture.ready(), ["read"]);
    near.read_exact(&mut [0]).unwrap();
    assert_eq!(fixture.ready(), [""; 0]);
    assert_eq!(
        fixture.remove(near.as_raw_fd(), Direction::Read),
        Some("read")
    );
    assert!(fixture.selector.is_empty());
}

#[test]
fn replaced_job_is_handed_back() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "old").unwrap();
    assert_eq!(
        fixture.add(&reader, Direction::Read, "new").unwrap(),
        Some("old")
    );
    fill(&writer);
    assert_eq!(fixture.ready(), ["new"]);
    assert_eq!(
        fixture.remove(reader.as_raw_fd(), Direction::Read),
        Some("new")
    );
    assert_eq!(fixture.remove(reader.as_raw_fd(), Direction::Read), None);
    assert_eq!(fixture.ready(), [""; 0]);
}

#[test]
fn hang_up_makes_the_registered_direction_ready() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "reader").unwrap();
    drop(writer);
    assert_eq!(fixture.ready(), ["reader"]);

    let (reader, writer) = pipe().unwrap();
    fixture.add(&writer, Direction::Write, "writer").unwrap();
    drop(reader);
    assert_eq!(fixture.ready(), ["reader", "writer"]);
}

#[test]
fn hang_up_makes_both_directions_ready() {
    let mut fixture = Fixture::new();
    let (near, far) = UnixStream::pair().unwrap();
    fixture.add(&near, Direction::Read, "read").unwrap();
    fixture.add(&near, Direction::Write, "write").unwrap();
    drop(far);
    assert_eq!(fixture.ready(), ["read", "write"]);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn regular_file_is_refused() {
    let mut fixture = Fixture::new();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let error = fixture.add(&file, Direction::Read, "file").unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
    assert!(fixture.selector.is_empty());
    assert_eq!(fixture.remove(file.as_raw_fd(), Direction::Read), None);
}

#[test]
fn bad_numbers_are_errors_and_take_no_memory() {
    let mut fixture = Fixture::new();
    for fd in [-1, RawFd::MIN, RawFd::MAX, 1 << 30] {
        let mut job = Some("job");
        let error = fixture
            .selector
            .add(fd, Direction::Read, &mut job)
            .unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF), "{fd}");
        assert_eq!(job, Some("job"));
        assert_eq!(fixture.remove(fd, Direction::Write), None);
    }
    assert!(fixture.selector.table.is_empty());
}

#[test]
fn waker_cannot_be_taken_over() {
    let mut fixture = Fixture::new();
    let fd = fixture.waker.as_raw_fd();
    assert!(
        fixture
            .selector
            .add(fd, Direction::Read, &mut Some("job"))
            .is_err()
    );
    fixture.writer.wake();
    let events = fixture.look(None);
    let state = fixture
        .selector
        .dispatch(&events, 0, |_| unreachable!("no job"));
    assert_eq!(state, WakerState::Readable);
    fixture.waker.drain();
    assert_eq!(fixture.look(Some(0)).len(), 0);
}

#[test]
fn closed_descriptor_can_be_removed() {
    let mut fixture = Fixture::new();
    let (reader, _writer) = pipe().unwrap();
    let fd = reader.as_raw_fd();
    fixture.add(&reader, Direction::Read, "read").unwrap();
    fixture.add(&reader, Direction::Write, "write").unwrap();
    drop(reader);
    assert_eq!(fixture.remove(fd, Direction::Read), Some("read"));
    assert_eq!(fixture.remove(fd, Direction::Write), Some("write"));
    assert!(fixture.selector.is_empty());
}

/// Runs with numbers that no other test uses.
fn with_reused_number(
    test: impl FnOnce(&mut Fixture, OwnedFd, &mut dyn FnMut(&OwnedFd) -> OwnedFd),
) {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    let high = fcntl_dupfd_cloexec(&reader, 700).unwrap();
    let number = high.as_raw_fd();
    fixture.add(&high, Direction::Read, "old").unwrap();
    drop((high, reader, writer));
    test(&mut fixture, pipe().unwrap().0, &mut |fd| {
        let reused = fcntl_dupfd_cloexec(fd, number).unwrap();
        assert_eq!(reused.as_raw_fd(), number);
        reused
    });
}

/// One test, because the number must not be taken by another one meanwhile.
#[test]
fn reused_number_is_registered_anew() {
    // Replacing, widening, and adding after a removal.
    with_reused_number(|fixture, _, reuse| {
        let (reader, writer) = pipe().unwrap();
        let reused = reuse(&reader);
        assert_eq!(
            fixture.add(&reused, Direction::Read, "new").unwrap(),
            Some("old")
        );
        fill(&writer);
        assert_eq!(fixture.ready(), ["new"]);
    });
    with_reused_number(|fixture, _, reuse| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let reused = reuse(&near.into());
        fixture.add(&reused, Direction::Write, "wider").unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(fixture.ready(), ["old", "wider"]);
    });
    with_reused_number(|fixture, unrelated, reuse| {
        let reused = reuse(&unrelated);
        assert_eq!(
            fixture.remove(reused.as_raw_fd(), Direction::Read),
            Some("old")
        );
        assert_eq!(fixture.ready(), [""; 0]);
        let (reader, writer) = pipe().unwrap();
        drop(reused);
        let reused = reuse(&reader);
        assert_eq!(fixture.add(&reused, Direction::Read, "new").unwrap(), None);
        fill(&writer);
        assert_eq!(fixture.ready(), ["new"]);
    });
    // After a removal that was put off, before things are settled and after.
    with_reused_number(|fixture, _, reuse| {
        let (reader, writer) = pipe().unwrap();
        let reused = reuse(&reader);
        assert_eq!(fixture.remove_later(&reused, Direction::Read), Some("old"));
        assert_eq!(fixture.add(&reused, Direction::Read, "new").unwrap(), None);
        fixture.selector.settle();
        fill(&writer);
        assert_eq!(fixture.ready(), ["new"]);
    });
    with_reused_number(|fixture, _, reuse| {
        let (reader, writer) = pipe().unwrap();
        let reused = reuse(&reader);
        fixture.remove_later(&reused, Direction::Read).unwrap();
        fixture.selector.settle();
        fill(&writer);
        assert_eq!(fixture.ready(), [""; 0]);
        fixture.add(&reused, Direction::Read, "new").unwrap();
        assert_eq!(fixture.ready(), ["new"]);
        // Another file under the same number while it is registered.
        let (other, other_writer) = pipe().unwrap();
        fixture.remove_later(&reused, Direction::Read).unwrap();
        let mut reused = reused;
        rustix::io::dup2(&other, &mut reused).unwrap();
        fixture.add(&reused, Direction::Read, "other").unwrap();
        fixture.selector.settle();
        fill(&other_writer);
        // The file before lives on under its first number; what it reports runs nothing.
        assert_eq!(fixture.ready(), ["other"]);
        assert_eq!(fixture.ready(), ["other"]);
    });
}

#[test]
fn removal_put_off_is_told_when_settled() {
    let mut fixture = Fixture::new();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    fixture.add(&near, Direction::Read, "read").unwrap();
    fixture.add(&near, Direction::Write, "write").unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(fixture.remove_later(&near, Direction::Write), Some("write"));
    assert_eq!(fixture.remove_later(&near, Direction::Write), None);
    fixture.selector.settle();
    assert_eq!(fixture.ready(), ["read"]);
    near.read_exact(&mut [0]).unwrap();
    assert_eq!(fixture.look(Some(0)).len(), 0);
    far.write_all(b"x").unwrap();
    assert_eq!(fixture.remove_later(&near, Direction::Read), Some("read"));
    assert!(fixture.selector.is_empty());
    assert_eq!(fixture.look(Some(0)).len(), 1);
    fixture.selector.settle();
    assert_eq!(fixture.look(Some(0)).len(), 0);
    assert!(fixture.selector.unsettled.is_empty());
    fixture.add(&near, Direction::Read, "again").unwrap();
    assert_eq!(fixture.ready(), ["again"]);
}

#[test]
fn addition_after_a_removal_put_off_settles_it() {
    let mut fixture = Fixture::new();
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"x").unwrap();
    fixture.add(&near, Direction::Read, "first").unwrap();
    for job in ["second", "third"] {
        fixture.remove_later(&near, Direction::Read).unwrap();
        assert_eq!(fixture.add(&near, Direction::Read, job).unwrap(), None);
        assert_eq!(fixture.selector.unsettled.len(), 1);
    }
    fixture.selector.settle();
    assert_eq!(fixture.ready(), ["third"]);

    // The other direction: the first is not watched any more, even before things are settled.
    fixture.remove_later(&near, Direction::Read).unwrap();
    fixture.add(&near, Direction::Write, "write").unwrap();
    assert_eq!(fixture.ready(), ["write"]);
    fixture.remove(near.as_raw_fd(), Direction::Write).unwrap();
    assert_eq!(fixture.look(Some(0)).len(), 0);
    fixture.selector.settle();
    assert_eq!(fixture.look(Some(0)).len(), 0);
}

#[test]
fn removal_put_off_spares_the_waker() {
    let mut fixture = Fixture::new();
    let (reader, _writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "read").unwrap();
    fixture.remove_later(&reader, Direction::Read).unwrap();
    // As after a fork, when the new waker got the number of a file that was closed.
    let (waker, waking) = pipe().unwrap();
    let mut number = reader;
    rustix::io::dup2(&waker, &mut number).unwrap();
    let fd = number.as_raw_fd();
    fixture.selector.waker_fd = fd;
    let poller = &fixture.selector.poller;
    poller.set(fd, 0, Interest::NONE, Interest::READ).unwrap();
    fixture.selector.settle();
    fill(&waking);
    assert_eq!(fixture.look(Some(0)).len(), 1);
}

#[test]
fn rebuilding_settles_removals_put_off() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "read").unwrap();
    fill(&writer);
    fixture.remove_later(&reader, Direction::Read).unwrap();
    // Not settled, so the kernel's event is a stray one.
    assert_eq!(fixture.ready(), [""; 0]);
    assert!(fixture.selector.unsettled.is_empty());
    assert_eq!(fixture.look(Some(0)).len(), 0);
    fixture.add(&reader, Direction::Read, "again").unwrap();
    assert_eq!(fixture.ready(), ["again"]);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn duplicate_that_survives_a_close_does_not_spin() {
    let mut fixture = Fixture::new();
    let (other, other_writer) = pipe().unwrap();
    fixture.add(&other, Direction::Read, "other").unwrap();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "gone").unwrap();
    let number = reader.as_raw_fd();
    let duplicate = rustix::io::dup(&reader).unwrap();
    drop(reader);
    fill(&writer);
    assert_eq!(fixture.remove(number, Direction::Read), Some("gone"));

    // The kernel still watches the duplicate's file, under a number it cannot be removed by.
    assert_eq!(fixture.look(None).len(), 1);
    assert_eq!(fixture.ready(), [""; 0]);
    assert_eq!(fixture.look(Some(0)).len(), 0);

    fill(&other_writer);
    assert_eq!(fixture.ready(), ["other"]);
    fixture.writer.wake();
    assert_eq!(fixture.look(Some(0)).len(), 2);
    drop(duplicate);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn duplicate_under_a_number_registered_again_runs_nothing() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let high = fcntl_dupfd_cloexec(&reader, 800).unwrap();
    let number = high.as_raw_fd();
    fixture.add(&high, Direction::Read, "old").unwrap();
    drop(high);
    let (quiet, quiet_writer) = pipe().unwrap();
    let reused = fcntl_dupfd_cloexec(&quiet, number).unwrap();
    assert_eq!(reused.as_raw_fd(), number);
    assert_eq!(
        fixture.add(&reused, Direction::Read, "new").unwrap(),
        Some("old")
    );

    assert_eq!(fixture.ready(), [""; 0]);
    assert_eq!(fixture.look(Some(0)).len(), 0);
    fill(&quiet_writer);
    assert_eq!(fixture.ready(), ["new"]);
}

#[test]
fn events_older_than_a_change_run_nothing_and_rebuild_nothing() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "old").unwrap();
    fill(&writer);
    let (events, changes) = (fixture.look(None), fixture.selector.changes());
    let poller = Arc::clone(fixture.selector.poller());
    fixture.remove(reader.as_raw_fd(), Direction::Read);
    let unreachable = |_| unreachable!("the event is out of date");
    let _ = fixture.selector.dispatch(&events, changes, unreachable);
    fixture.add(&reader, Direction::Read, "new").unwrap();
    let _ = fixture.selector.dispatch(&events, changes, unreachable);
    assert!(Arc::ptr_eq(&poller, fixture.selector.poller()));
    assert_eq!(fixture.ready(), ["new"]);
}

#[test]
fn forgotten_descriptor_stays_in_the_kernel() {
    let mut fixture = Fixture::new();
    let (reader, writer) = pipe().unwrap();
    fixture.add(&reader, Direction::Read, "read").unwrap();
    fill(&writer);
    assert_eq!(
        fixture.selector.forget(reader.as_raw_fd(), Direction::Read),
        Some("read")
    );
    assert!(fixture.selector.is_empty());
    assert_eq!(fixture.look(Some(0)).len(), 1);
}

#[test]
fn more_events_than_fit_come_in_turns() {
    let mut fixture = Fixture::new();
    let pipes: Vec<_> = (0..CAPACITY + 10).map(|_| pipe().unwrap()).collect();
    for (reader, writer) in &pipes {
        fixture.add(reader, Direction::Read, "read").unwrap();
        fill(writer);
    }
    assert_eq!(fixture.look(Some(0)).len(), CAPACITY);
    let mut jobs = 0;
    for _ in 0..3 {
        jobs += fixture.ready().len();
        for event in fixture.look(Some(0)) {
            fixture.remove(event.fd, Direction::Read);
        }
    }
    assert!(jobs > CAPACITY);
    assert!(fixture.selector.is_empty());
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn timeouts_are_waited_for() {
    let fixture = Fixture::new();
    for timeout in [1, 999, 1_500_000] {
        let start = crate::monotonic_ns();
        assert_eq!(fixture.look(Some(timeout)).len(), 0);
        assert!(crate::monotonic_ns() - start >= timeout);
    }
}
