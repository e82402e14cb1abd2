//! Write flow control: the water marks of a transport, and whether its protocol was told to pause. Answers
//! `_FlowControlMixin` of `asyncio/transports.py`.

use std::cell::Cell;

use crate::ffi::{Obj, PyRes, Raised};

/// `high` of a transport that nobody set limits of, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// The water marks, in bytes.
pub(crate) struct WaterMarks {
    /// Above this the protocol is to pause.
    high: Cell<usize>,
    /// At or below this it is to resume.
    low: Cell<usize>,
    /// Was it told to pause?
    pub(crate) paused: Cell<bool>,
}

impl WaterMarks {
    /// The marks of a new transport.
    pub(crate) const fn new() -> Self {
        Self {
            high: Cell::new(DEFAULT_HIGH),
            low: Cell::new(DEFAULT_HIGH / 4),
            paused: Cell::new(false),
        }
    }

    /// Is the protocol to be told to pause? Notes that it is.
    #[inline]
    pub(crate) fn must_pause(&self, size: usize) -> bool {
        size > self.high.get() && !self.paused.replace(true)
    }

    /// Is so much too much?
    #[inline]
    pub(crate) fn is_above(&self, size: usize) -> bool {
        size > self.high.get()
    }

    /// Is the protocol to be told to resume? Notes that it is.
    #[inline]
    pub(crate) fn must_resume(&self, size: usize) -> bool {
        self.paused.get() && size <= self.low.get() && self.paused.replace(false)
    }

    /// `(low, high)`.
    pub(crate) fn limits(&self) -> PyRes {
        Obj::tuple([mark(self.low.get())?, mark(self.high.get())?])
    }

    /// `set_write_buffer_limits(high, low)`, but for telling the protocol.
    pub(crate) fn set(&self, high: Option<&Obj>, low: Option<&Obj>) -> PyRes<()> {
        let high = match (high, low) {
            (Some(high), _) => high.clone(),
            (None, None) => mark(DEFAULT_HIGH)?,
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
        self.high.set(bytes(&high)?);
        self.low.set(bytes(&low)?);
        Ok(())
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
fn bytes(number: &Obj) -> PyRes<usize> {
    if !number.is_int() {
        return Ok(number.as_f64()?.floor() as usize);
    }
    match number.as_i64() {
        Ok(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Err(raised) if raised.is(crate::ffi::Builtin::Overflow) => {
            raised.discard();
            Ok(i64::MAX as usize)
        }
        Err(raised) => Err(raised),
    }
}
