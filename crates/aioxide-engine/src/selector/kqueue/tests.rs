//! Tests of what is particular to kqueue.

use std::os::fd::AsRawFd;

use rustix::{
    io::{fcntl_getfd, write},
    pipe::pipe,
};

use super::*;

/// A kqueue's number; it can be watched for reading, and not for writing.
fn number(poller: &Poller) -> RawFd {
    poller.kqueue().unwrap().as_raw_fd()
}

/// The generations of what is ready now.
fn generations(poller: &Poller) -> Vec<u32> {
    let mut ready = Vec::new();
    poller.wait(&mut ready, Some(0)).unwrap();
    ready.iter().map(|event| event.generation).collect()
}

#[test]
fn selector_is_closed_on_exec() {
    let poller = Poller::new().unwrap();
    assert_eq!(fcntl_getfd(poller.kqueue().unwrap()), Ok(FdFlags::CLOEXEC));
}

#[test]
fn generation_comes_back_whole() {
    let poller = Poller::new().unwrap();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(write(&writer, b"x"), Ok(1));
    let fd = reader.as_raw_fd();
    for (old, generation) in [(Interest::NONE, u32::MAX), (Interest::READ, u32::MAX - 1)] {
        poller.set(fd, generation, old, Interest::READ).unwrap();
        assert_eq!(generations(&poller), [generation]);
    }
}

#[test]
fn direction_that_is_refused_leaves_the_other_as_it_was() {
    let (poller, watched) = (Poller::new().unwrap(), Poller::new().unwrap());
    let (reader, writer) = pipe().unwrap();
    let (read, both) = (Interest::READ, Interest::READ | Interest::WRITE);
    let fd = number(&watched);
    assert_eq!(write(&writer, b"x"), Ok(1));
    watched
        .set(reader.as_raw_fd(), 1, Interest::NONE, read)
        .unwrap();

    poller.set(fd, 1, Interest::NONE, read).unwrap();
    let error = poller.set(fd, 2, read, both).unwrap_err();
    let error = Errno::from_io_error(&error).unwrap();
    assert!(REFUSALS.contains(&error), "{error}");
    assert_eq!(generations(&poller), [1]);

    poller.remove(fd).unwrap();
    assert!(poller.set(fd, 3, Interest::NONE, both).is_err());
    assert_eq!(generations(&poller), [0; 0]);
}
