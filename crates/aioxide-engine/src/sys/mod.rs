//! The engine's only unsafe: syscalls on descriptor numbers that the engine does not own, and
//! those that rustix has no safe form of. What is safe in rustix is called where it is used.

mod fd;
mod fork;
mod sun_path;
mod timespec;
pub(crate) use fd::borrow_fd;
pub(crate) use fork::lineage;
pub(crate) use sun_path::sun_path;
pub(crate) use timespec::SECOND;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use epoll::epoll_wait;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use kqueue::{kevent_change, kevent_wait};

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
))]
mod sendfile;
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
))]
pub(crate) use sendfile::sendfile;

#[cfg(target_vendor = "apple")]
mod uptime;
#[cfg(target_vendor = "apple")]
pub(crate) use uptime::uptime;
