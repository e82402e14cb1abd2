//! Long chains of objects, given up one by one.
//!
//! An object that dies gives up what it refers to, which may die in turn: a chain of a hundred thousand futures would
//! use up the stack. From 3.14 on CPython itself puts off the death of any object that comes too deep. Before, each
//! class has to see to it; this is how ours do.
//!
//! Invariants: an object that was put off has no references and is not tracked by the collector. `DEPTH` counts the
//! bodies under way, of all threads; whoever ends as the only one lets the rest die, while it still counts itself, so
//! that the rest does not nest.

use std::cell::UnsafeCell;

use pyo3::ffi;

use super::native::GilCell;

/// With this many deaths in one another the next is put off.
const DEEPEST: usize = 50;

/// How many deaths are under way.
static DEPTH: GilCell<usize> = GilCell::new(0);

/// An object and its destructor.
type PutOff = (*mut ffi::PyObject, ffi::destructor);

/// What was put off.
struct Rest(UnsafeCell<Vec<PutOff>>);

// SAFETY: used under the GIL alone.
unsafe impl Sync for Rest {}

/// What was put off.
static REST: Rest = Rest(UnsafeCell::new(Vec::new()));

/// Runs the body of a destructor, or has `again`, the destructor itself, called later.
///
/// # Safety
/// `raw` must be a dying object that the collector tracks or has tracked, and `again` its destructor.
#[inline]
pub(super) unsafe fn bounded(raw: *mut ffi::PyObject, again: ffi::destructor, body: impl FnOnce()) {
    if DEPTH.get() >= DEEPEST {
        // SAFETY: the caller's promise; untracking twice is allowed.
        unsafe { ffi::PyObject_GC_UnTrack(raw.cast()) };
        // SAFETY: the borrow ends with the push.
        unsafe { (*REST.0.get()).push((raw, again)) };
        return;
    }
    DEPTH.set(DEPTH.get() + 1);
    body();
    if DEPTH.get() == 1 {
        finish_rest();
    }
    DEPTH.set(DEPTH.get() - 1);
}

/// Lets everything die that was put off.
#[inline]
fn finish_rest() {
    // SAFETY: the borrow ends before the destructor runs.
    while let Some((raw, again)) = unsafe { (*REST.0.get()).pop() } {
        // SAFETY: by the file's invariants; a finalizer may bring the object back, which then has to be tracked.
        unsafe { ffi::PyObject_GC_Track(raw.cast()) };
        // SAFETY: the object's own destructor, called once more as it was promised.
        unsafe { again(raw) };
    }
}
