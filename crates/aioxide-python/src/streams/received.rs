//! What a reader has received: native bytes, until somebody looks at them; then a `bytearray` for good.
//!
//! Invariants: once the Python object exists it is the truth, and the native buffer is empty. The native buffer is
//! borrowed for single operations only, which run no Python code.

use std::cell::RefCell;

use aioxide_engine::read_buffer::{Look, ReadBuffer, look};

use crate::ffi::{Buffer, BytesBuilder, Obj, PyRes, Slot, Visit};
use crate::{names, stdlib};

/// The bytes of a reader.
pub(super) struct Received {
    /// The bytes, while nobody looks.
    native: RefCell<ReadBuffer>,
    /// The object that Python code sees.
    visible: Slot,
}

impl Received {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self {
            native: RefCell::new(ReadBuffer::new()),
            visible: Slot::empty(),
        }
    }

    /// Does the Python object exist?
    #[inline]
    pub(super) fn is_visible(&self) -> bool {
        self.visible.is_some()
    }

    /// `_buffer`.
    pub(super) fn visible(&self) -> PyRes {
        if let Some(visible) = self.visible.get() {
            return Ok(visible);
        }
        let bytes = Obj::bytes(self.native.borrow().as_slice())?;
        let made = stdlib::bytearray()?.call([&bytes])?;
        self.native.borrow_mut().clear();
        self.visible.set(made.clone());
        Ok(made)
    }

    /// Becomes this Python object, or empty and native.
    pub(super) fn become_(&self, visible: Option<Obj>) {
        self.native.borrow_mut().clear();
        drop(self.visible.replace(visible));
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> PyRes<usize> {
        match self.visible.get() {
            None => Ok(self.native.borrow().len()),
            Some(visible) => visible.len(),
        }
    }

    /// Appends.
    #[inline]
    pub(super) fn extend(&self, data: &[u8]) -> PyRes<()> {
        match self.visible.get() {
            None => {
                self.native.borrow_mut().extend(data);
                Ok(())
            }
            Some(visible) => visible
                .method(names::extend(), [&Obj::bytes(data)?])
                .map(drop),
        }
    }

    /// Appends whatever a `bytearray` can be extended by.
    #[cold]
    pub(super) fn extend_by(&self, data: &Obj) -> PyRes<()> {
        if let Some(visible) = self.visible.get() {
            return visible.method(names::extend(), [data]).map(drop);
        }
        let bytes = stdlib::bytearray()?.call([])?;
        bytes.method(names::extend(), [data])?;
        // To iterate may have run any code.
        if let Some(visible) = self.visible.get() {
            return visible.method(names::extend(), [&bytes]).map(drop);
        }
        let view = Buffer::readable(&bytes)?;
        self.native.borrow_mut().extend(view.as_slice());
        Ok(())
    }

    /// Takes the first `count` as `bytes`, or as many as there are.
    #[inline]
    pub(super) fn take(&self, count: usize) -> PyRes {
        let Some(visible) = self.visible.get() else {
            let mut native = self.native.borrow_mut();
            let count = count.min(native.len());
            let taken = Obj::bytes(&native.as_slice()[..count])?;
            native.consume(count);
            return Ok(taken);
        };
        let taken = {
            let view = Buffer::readable(&visible)?;
            let bytes = view.as_slice();
            Obj::bytes(&bytes[..count.min(bytes.len())])?
        };
        remove_from(&visible, taken.len()?)?;
        Ok(taken)
    }

    /// Moves the first `count`, or as many as there are, to the end of `place`. Answers how many these were.
    pub(super) fn move_to(&self, place: &mut BytesBuilder, count: usize) -> PyRes<usize> {
        if self.is_visible() {
            let taken = self.take(count)?;
            let bytes = taken.as_bytes().unwrap_or_default();
            place.extend(bytes)?;
            return Ok(bytes.len());
        }
        let mut native = self.native.borrow_mut();
        let count = count.min(native.len());
        place.extend(&native.as_slice()[..count])?;
        native.consume(count);
        Ok(count)
    }

    /// Takes the first `count` away, or as many as there are.
    pub(super) fn discard(&self, count: usize) -> PyRes<()> {
        match self.visible.get() {
            None => {
                self.native.borrow_mut().consume(count);
                Ok(())
            }
            Some(visible) => remove_from(&visible, count),
        }
    }

    /// Looks for separators: see [`look`].
    #[inline]
    pub(super) fn look<S: AsRef<[u8]>>(&self, separators: &[S], from: usize) -> PyRes<Look> {
        match self.visible.get() {
            None => Ok(look(self.native.borrow().as_slice(), separators, from)),
            Some(visible) => {
                let view = Buffer::readable(&visible)?;
                Ok(look(view.as_slice(), separators, from))
            }
        }
    }

    /// Are these the bytes at `place`?
    pub(super) fn has_at(&self, bytes: &[u8], place: usize) -> PyRes<bool> {
        let has = |all: &[u8]| all.get(place..).is_some_and(|rest| rest.starts_with(bytes));
        match self.visible.get() {
            None => Ok(has(self.native.borrow().as_slice())),
            Some(visible) => Ok(has(Buffer::readable(&visible)?.as_slice())),
        }
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.visible);
    }
}

/// `del buffer[:count]`.
fn remove_from(buffer: &Obj, count: usize) -> PyRes<()> {
    let end = Obj::int(i64::try_from(count).unwrap_or(i64::MAX))?;
    buffer.del_item(&stdlib::slice()?.call([&end])?)
}
