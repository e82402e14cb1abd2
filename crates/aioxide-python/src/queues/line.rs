//! A row of objects that is a native one until somebody looks at it.
//!
//! Invariants: once the Python object exists it is the truth, and the native row is empty. The native row is borrowed
//! for single operations only, and what leaves it is dropped afterwards, because dropping may run any code.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;

use crate::ffi::{Builtin, Obj, PyRes, Slot, Visit};
use crate::{names, stdlib};

/// How much room an empty native row keeps.
const KEPT: usize = 1024;

/// Gives the room of a burst back once it is over.
#[inline]
fn release_room(row: &mut VecDeque<Obj>) {
    if row.is_empty() && row.capacity() > KEPT {
        row.shrink_to(KEPT);
    }
}

/// A row of objects.
pub(super) struct Line {
    /// The objects, while nobody looks.
    native: RefCell<VecDeque<Obj>>,
    /// The object that Python code sees.
    visible: Slot,
}

impl Line {
    /// An empty row.
    pub(super) const fn new() -> Self {
        Self {
            native: RefCell::new(VecDeque::new()),
            visible: Slot::empty(),
        }
    }

    /// The Python object, if it exists.
    #[inline]
    pub(super) fn visible(&self) -> Option<Obj> {
        self.visible.get()
    }

    /// Is the row native and empty?
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.visible.is_none() && self.native.borrow().is_empty()
    }

    /// How many objects the native row has.
    #[inline]
    pub(super) fn native_len(&self) -> usize {
        self.native.borrow().len()
    }

    /// Appends to the native row.
    #[inline]
    pub(super) fn native_push(&self, object: Obj) {
        self.native.borrow_mut().push_back(object);
    }

    /// Takes the first of the native row.
    #[inline]
    pub(super) fn native_pop_front(&self) -> Option<Obj> {
        let mut row = self.native.borrow_mut();
        let object = row.pop_front();
        release_room(&mut row);
        object
    }

    /// Takes the last of the native row.
    #[inline]
    pub(super) fn native_pop_back(&self) -> Option<Obj> {
        let mut row = self.native.borrow_mut();
        let object = row.pop_back();
        release_room(&mut row);
        object
    }

    /// What the native row holds.
    pub(super) fn native_items(&self) -> Vec<Obj> {
        self.native.borrow().iter().cloned().collect()
    }

    /// Becomes this Python object, or empty and native.
    pub(super) fn become_(&self, visible: Option<Obj>) {
        let row = mem::take(&mut *self.native.borrow_mut());
        let former = self.visible.replace(visible);
        drop((row, former));
    }

    /// The Python object. If there is none yet, it is made from an `empty` one by its `append`.
    pub(super) fn materialise(&self, empty: impl FnOnce() -> PyRes) -> PyRes {
        if let Some(visible) = self.visible.get() {
            return Ok(visible);
        }
        let made = empty()?;
        // To make an object may run the collector, and so any code: somebody may have looked meanwhile.
        if let Some(visible) = self.visible.get() {
            return Ok(visible);
        }
        while let Some(object) = self.native_pop_front() {
            made.method(names::append(), [&object])?;
        }
        self.visible.set(made.clone());
        Ok(made)
    }

    /// The row as a `deque`.
    pub(super) fn deque(&self) -> PyRes {
        self.materialise(|| stdlib::deque()?.call([]))
    }

    /// How many there are, none if Python holds the row for false.
    pub(super) fn count(&self) -> PyRes<usize> {
        match self.visible.get() {
            None => Ok(self.native_len()),
            Some(visible) if visible.truth()? => visible.len(),
            Some(_) => Ok(0),
        }
    }

    /// Appends.
    #[inline]
    pub(super) fn push(&self, object: &Obj) -> PyRes<()> {
        match self.visible.get() {
            None => {
                self.native_push(object.clone());
                Ok(())
            }
            Some(visible) => visible.method(names::append(), [object]).map(drop),
        }
    }

    /// Takes the first, if there is one.
    #[inline]
    pub(super) fn pop(&self) -> PyRes<Option<Obj>> {
        match self.visible.get() {
            None => Ok(self.native_pop_front()),
            Some(visible) if visible.truth()? => visible.method(names::popleft(), []).map(Some),
            Some(_) => Ok(None),
        }
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&self, object: &Obj) -> PyRes<()> {
        let Some(visible) = self.visible.get() else {
            let mut row = self.native.borrow_mut();
            let place = row.iter().position(|other| other.is(object));
            let removed = place.and_then(|place| row.remove(place));
            drop(row);
            drop(removed);
            return Ok(());
        };
        match visible.method(names::remove(), [object]) {
            Err(raised) if raised.is(Builtin::Value) => {
                raised.discard();
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.visible);
        if let Ok(row) = self.native.try_borrow() {
            for object in row.iter() {
                visit.obj(object);
            }
        }
    }
}
