//! A number that users give: nearly always a small `int`, but it may be anything that counts.

use std::cell::Cell;

use crate::ffi::{Obj, PyRes, Slot, Visit};

/// A number, such as the permits of a semaphore. `float("inf")` is one too.
pub(super) struct Number {
    /// The value, if it is a small `int`.
    small: Cell<i64>,
    /// The value, if it is anything else.
    other: Slot,
}

/// What counts as small: steps of one do not get near the end of the type.
const LIMIT: i64 = 1 << 62;

impl Number {
    /// A small number.
    pub(super) const fn new(value: i64) -> Self {
        Self {
            small: Cell::new(value),
            other: Slot::empty(),
        }
    }

    /// Takes over whatever was given.
    pub(super) fn set(&self, value: &Obj) {
        if value.is_exact_int() {
            match value.as_i64() {
                Ok(small) if small.abs() < LIMIT => {
                    self.small.set(small);
                    return self.other.clear();
                }
                Ok(_) => {}
                Err(overflow) => overflow.discard(),
            }
        }
        self.other.set(value.clone());
    }

    /// The value as it was given.
    pub(super) fn get(&self) -> PyRes {
        self.other
            .get()
            .map_or_else(|| Obj::int(self.small.get()), Ok)
    }

    /// Adds to it.
    #[inline]
    pub(super) fn add(&self, step: i64) -> PyRes<()> {
        if self.other.is_none() {
            self.small.set(self.small.get() + step);
            return Ok(());
        }
        self.set(&self.get()?.add(&Obj::int(step)?)?);
        Ok(())
    }

    /// `value == other`.
    #[inline]
    pub(super) fn equals(&self, other: i64) -> PyRes<bool> {
        if self.other.is_none() {
            return Ok(self.small.get() == other);
        }
        self.get()?.equals(&Obj::int(other)?)
    }

    /// `value > 0`.
    #[inline]
    pub(super) fn is_positive(&self) -> PyRes<bool> {
        if self.other.is_none() {
            return Ok(self.small.get() > 0);
        }
        Obj::int(0)?.less_than(&self.get()?)
    }

    /// `value >= other`.
    #[inline]
    pub(super) fn reaches(&self, other: &Self) -> PyRes<bool> {
        if self.other.is_none() && other.other.is_none() {
            return Ok(self.small.get() >= other.small.get());
        }
        self.get()?.greater_or_equal(&other.get()?)
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.other);
    }

    /// Gives up what is held.
    pub(super) fn clear(&self) {
        self.other.clear();
    }
}
