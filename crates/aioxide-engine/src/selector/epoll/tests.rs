//! Tests of what is particular to epoll.

use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

#[test]
fn selector_is_closed_on_exec() {
    let poller = Poller::new().unwrap();
    assert_eq!(fcntl_getfd(&poller.epoll), Ok(FdFlags::CLOEXEC));
}

#[test]
fn data_comes_back_whole() {
    let event = Event::from(epoll::Event {
        flags: EventFlags::IN,
        data: data(RawFd::MAX, u32::MAX - 1),
    });
    assert_eq!(event.fd, RawFd::MAX);
    assert_eq!(event.generation, u32::MAX - 1);
    assert_eq!(event.readiness, Interest::READ);
}

#[test]
fn flags_are_read_as_cpython_reads_them() {
    let readiness = |flags| {
        Event::from(epoll::Event {
            flags,
            data: data(0, 0),
        })
        .readiness
    };
    let both = Interest::READ | Interest::WRITE;
    assert_eq!(readiness(EventFlags::IN), Interest::READ);
    assert_eq!(readiness(EventFlags::OUT), Interest::WRITE);
    assert_eq!(readiness(EventFlags::IN | EventFlags::OUT), both);
    assert_eq!(readiness(EventFlags::HUP), both);
    assert_eq!(readiness(EventFlags::ERR), both);
    assert_eq!(readiness(EventFlags::IN | EventFlags::HUP), both);
}
