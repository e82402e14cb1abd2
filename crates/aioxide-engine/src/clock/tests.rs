//! Tests of the clock.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "makes syscalls")]
fn monotonic_never_goes_back() {
    let first = monotonic_ns();
    let second = monotonic_ns();
    assert!(first > 0 && second >= first);
}

#[test]
fn split_takes_any_timeout() {
    assert_eq!(split(0), (0, 0));
    assert_eq!(split(3 * SECOND + 7), (3, 7));
    assert_eq!(split(u64::MAX), (18_446_744_073, 709_551_615));
}
