//! The clock of `time.monotonic()` on Apple's systems, for which rustix has no name.

use rustix::time::Timespec;

/// Reads the clock. Other than `CLOCK_MONOTONIC` it stands still while the system sleeps, so the
/// two tell different times.
pub(crate) fn uptime() -> Timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: The time outlives the call.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_UPTIME_RAW, &raw mut now) };
    Timespec {
        tv_sec: now.tv_sec,
        tv_nsec: now.tv_nsec,
    }
}
