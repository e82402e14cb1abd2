//! Timeouts in the system's form.

#[cfg(test)]
mod tests;

use rustix::event::Timespec;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Splits a timeout in nanoseconds into seconds and the nanoseconds of the last one.
pub(crate) fn split(timeout_ns: u64) -> (i64, i32) {
    let seconds = i64::try_from(timeout_ns / SECOND).unwrap_or(i64::MAX);
    let nanoseconds = i32::try_from(timeout_ns % SECOND).unwrap_or(0);
    (seconds, nanoseconds)
}

/// Turns a timeout in nanoseconds into the system's form.
pub(crate) fn timespec(timeout_ns: u64) -> Timespec {
    let (seconds, nanoseconds) = split(timeout_ns);
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    }
}
