use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    process::{Child, Command, Stdio},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ExitWatch;
use crate::sys::borrow_fd;

/// A child that ends when its input does.
fn child() -> Child {
    Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether the descriptor can be read, now or within a time.
fn is_readable(fd: RawFd, seconds: i64) -> bool {
    let fd = borrow_fd(fd).unwrap();
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn watch_tells_of_the_end_and_takes_nothing() {
    let mut child = child();
    let watch = ExitWatch::new(i32::try_from(child.id()).unwrap()).unwrap();
    assert!(!is_readable(watch.as_raw_fd(), 0));
    drop(child.stdin.take());
    assert!(is_readable(watch.as_raw_fd(), 30));
    assert!(child.wait().unwrap().success());
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn what_is_no_process_is_refused() {
    for pid in [0, -1, i32::MIN, i32::MAX] {
        let error = ExitWatch::new(pid).err().map(|error| error.kind());
        let codes = [io::Error::from_raw_os_error(libc::ESRCH).kind()];
        assert!(error.is_some_and(|kind| codes.contains(&kind)), "{pid}");
    }
}
