//! The loop's clock, between seconds and the engine's nanoseconds.

use aioxide_engine::monotonic_ns;

/// The clock in seconds, as `time.monotonic()` gives it.
#[expect(
    clippy::cast_precision_loss,
    reason = "a clock in nanoseconds fits a double for months of uptime"
)]
pub(crate) fn now() -> f64 {
    monotonic_ns() as f64 / 1e9
}

/// A time in seconds as nanoseconds, rounded up: a deadline so never comes early on our clock, and on any other clock
/// it has come when that clock shows it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is meant"
)]
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    let exact = seconds * 1e9;
    let whole = exact as u64;
    // Perf: call_later + cancel. `ceil` is a call into the C library.
    if (whole as f64) < exact {
        whole.saturating_add(1)
    } else {
        whole
    }
}
