//! The clock of deadlines: nanoseconds of the system's monotonic clock, on Linux the one of
//! `time.monotonic()`.

#[cfg(test)]
mod tests;

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Reads the monotonic clock.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
}

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
