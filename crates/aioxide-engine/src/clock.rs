//! The clock of deadlines: the one of `time.monotonic()`, in nanoseconds.

#[cfg(test)]
mod tests;

#[cfg(not(target_vendor = "apple"))]
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::sys::SECOND;
#[cfg(target_vendor = "apple")]
use crate::sys::uptime as now;

/// Reads the monotonic clock.
pub fn monotonic_ns() -> u64 {
    let now = now();
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
}

/// The clock in the system's form.
#[cfg(not(target_vendor = "apple"))]
fn now() -> Timespec {
    clock_gettime(ClockId::Monotonic)
}
