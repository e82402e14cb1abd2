//! Tests of the wait, with and without `epoll_pwait2`.

use std::os::fd::AsFd;

use rustix::{
    event::epoll::{CreateFlags, EventData, EventFlags},
    pipe::pipe,
};

use super::*;
use crate::monotonic_ns;

#[test]
fn both_calls_wait_long_enough_and_find_events() {
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let (reader, writer) = pipe().unwrap();
    let data = EventData::new_u64(42);
    epoll::add(&epoll, &reader, data, EventFlags::IN).unwrap();
    let mut buffer = [const { MaybeUninit::uninit() }; 4];
    for lacks_pwait2 in [false, true] {
        LACKS_PWAIT2.store(lacks_pwait2, Ordering::Relaxed);
        let start = monotonic_ns();
        let events = epoll_wait(epoll.as_fd(), &mut buffer, Some(1_200_000)).unwrap();
        assert_eq!(events.len(), 0);
        assert!(monotonic_ns() - start >= 1_200_000);
    }
    rustix::io::write(&writer, b"x").unwrap();
    for lacks_pwait2 in [true, false] {
        LACKS_PWAIT2.store(lacks_pwait2, Ordering::Relaxed);
        for timeout in [None, Some(0), Some(1), Some(u64::MAX / 1_000_000_000_000)] {
            let events = epoll_wait(epoll.as_fd(), &mut buffer, timeout).unwrap();
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].data.u64(), 42);
        }
    }
}

#[test]
fn error_is_the_kernels() {
    let not_epoll = pipe().unwrap().0;
    let mut buffer = [const { MaybeUninit::uninit() }; 4];
    for timeout in [None, Some(0), Some(1)] {
        let error = epoll_wait(not_epoll.as_fd(), &mut buffer, timeout)
            .err()
            .unwrap();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
    }
}
