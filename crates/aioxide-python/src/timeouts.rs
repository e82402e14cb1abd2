//! Timeouts. Answers `asyncio/timeouts.py`.

use crate::ffi::{Obj, PyRes};

/// Native names of this module.
pub const NAMES: &[&str] = &[];

/// Makes the classes and functions.
pub fn init(_module: &Obj) -> PyRes<()> {
    Ok(())
}
