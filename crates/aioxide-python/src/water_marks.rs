//! A pair of water marks. Answers `add_flowcontrol_defaults` of `asyncio/sslproto.py`, and what `_FlowControlMixin` of
//! `asyncio/transports.py` does alike.

use std::cell::Cell;

use crate::ffi::{Builtin, Obj, PyRes, Raised, Slot, Visit};

/// A high and a low water mark, in whole bytes: of a number that is none, what makes no difference to such.
pub(crate) struct Limits {
    /// At or above this there is too much, or only above it: see [`Self::is_full`], [`Self::is_above`].
    high: Cell<usize>,
    /// At or below this there is room again.
    low: Cell<usize>,
    /// `(low, high)` as they were given, if they were.
    given: Slot,
    /// `high`, if nobody gives one.
    default: usize,
    /// What makes whole bytes of a high mark that is none.
    round_high: fn(f64) -> f64,
}

impl Limits {
    /// New ones, for who asks [`Self::is_full`].
    pub(crate) const fn inclusive(default: usize) -> Self {
        Self::new(default, f64::ceil)
    }

    /// New ones, for who asks [`Self::is_above`].
    pub(crate) const fn exclusive(default: usize) -> Self {
        Self::new(default, f64::floor)
    }

    /// New ones.
    const fn new(default: usize, round_high: fn(f64) -> f64) -> Self {
        Self {
            high: Cell::new(default),
            low: Cell::new(default / 4),
            given: Slot::empty(),
            default,
            round_high,
        }
    }

    /// Is so much at the high mark or above?
    #[inline]
    pub(crate) fn is_full(&self, size: usize) -> bool {
        size >= self.high.get()
    }

    /// Is so much above the high mark?
    #[inline]
    pub(crate) fn is_above(&self, size: usize) -> bool {
        size > self.high.get()
    }

    /// Is so much little enough?
    #[inline]
    pub(crate) fn has_room(&self, size: usize) -> bool {
        size <= self.low.get()
    }

    /// `(low, high)`.
    pub(crate) fn pair(&self) -> PyRes {
        match self.given.get() {
            Some(given) => Ok(given),
            None => Obj::tuple([mark(self.low.get())?, mark(self.high.get())?]),
        }
    }

    /// One of the two: 0 is the low one.
    pub(crate) fn one(&self, index: i64) -> PyRes {
        self.pair()?.item(&Obj::int(index)?)
    }

    /// Sets them.
    pub(crate) fn set(&self, high: Option<&Obj>, low: Option<&Obj>) -> PyRes<()> {
        let high = match (high, low) {
            (Some(high), _) => high.clone(),
            (None, None) => mark(self.default)?,
            (None, Some(low)) => Obj::int(4)?.multiply(low)?,
        };
        let low = match low {
            Some(low) => low.clone(),
            None => high.floor_divide(&Obj::int(4)?)?,
        };
        if !(high.greater_or_equal(&low)? && low.greater_or_equal(&Obj::int(0)?)?) {
            return Err(Raised::value_error(&format!(
                "high ({}) must be >= low ({}) must be >= 0",
                high.repr()?,
                low.repr()?
            )));
        }
        self.high.set(bytes(&high, self.round_high)?);
        self.low.set(bytes(&low, f64::floor)?);
        self.given.set(Obj::tuple([low, high])?);
        Ok(())
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.given);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.given.clear();
    }
}

/// A mark as an `int`.
fn mark(bytes: usize) -> PyRes {
    Obj::int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// A mark from any number that is not negative; what is too large is as good as no limit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is meant; a fraction of a byte makes no difference to whole ones"
)]
fn bytes(number: &Obj, round: fn(f64) -> f64) -> PyRes<usize> {
    if !number.is_int() {
        return Ok(round(number.as_f64()?) as usize);
    }
    match number.as_i64() {
        Ok(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Err(raised) if raised.is(Builtin::Overflow) => {
            raised.discard();
            Ok(usize::MAX)
        }
        Err(raised) => Err(raised),
    }
}
