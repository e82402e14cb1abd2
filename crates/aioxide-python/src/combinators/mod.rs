//! Waiting for several things, or for one in a special way. Answers the second half of `asyncio/tasks.py`.

use crate::ffi::{Obj, PyRes};

/// Native names, of the asyncio module `tasks`.
pub const NAMES: &[&str] = &[];

/// Makes the classes and functions.
pub fn init(_module: &Obj) -> PyRes<()> {
    Ok(())
}
