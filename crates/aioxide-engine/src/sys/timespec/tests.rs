//! Tests of timeouts.

use super::*;

#[test]
fn split_takes_any_timeout() {
    assert_eq!(split(0), (0, 0));
    assert_eq!(split(3 * SECOND + 7), (3, 7));
    assert_eq!(split(u64::MAX), (18_446_744_073, 709_551_615));
}
