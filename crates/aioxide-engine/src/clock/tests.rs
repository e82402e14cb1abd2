//! Tests of the clock.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "makes syscalls")]
fn monotonic_never_goes_back() {
    let first = monotonic_ns();
    let second = monotonic_ns();
    assert!(first > 0 && second >= first);
}
