//! Write flow control: the water marks of a transport, and whether its protocol was told to pause. Answers
//! `_FlowControlMixin` of `asyncio/transports.py`.

use std::cell::Cell;

use crate::events::leaves_the_loop;
use crate::ffi::{Builtin, ClassBuilder, Obj, PyRes, Raised, Ref, Slot, Visit};
use crate::names;

use super::common::{Link, report};

/// `high` of a transport that nobody set limits of, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// The water marks, in whole bytes: of a number that is none, what makes no difference to such.
pub(crate) struct WaterMarks {
    /// Above this the protocol is to pause.
    high: Cell<usize>,
    /// At or below this it is to resume.
    low: Cell<usize>,
    /// `(low, high)` as they were given, if they were.
    given: Slot,
    /// Was it told to pause?
    pub(super) paused: Cell<bool>,
}

impl WaterMarks {
    /// The marks of a new transport.
    pub(crate) const fn new() -> Self {
        Self {
            high: Cell::new(DEFAULT_HIGH),
            low: Cell::new(DEFAULT_HIGH / 4),
            given: Slot::empty(),
            paused: Cell::new(false),
        }
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.given);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.given.clear();
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
        match self.given.get() {
            Some(given) => Ok(given),
            None => Obj::tuple([mark(self.low.get())?, mark(self.high.get())?]),
        }
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
        self.given.set(Obj::tuple([low, high])?);
        Ok(())
    }
}

/// A transport with a write buffer.
pub(crate) trait Buffered: Link {
    /// The water marks of the buffer.
    fn marks(&self) -> &WaterMarks;

    /// How much is in it.
    fn buffered(&self) -> usize;
}

/// Tells the protocol to pause if the buffer is above the high mark.
#[inline]
pub(crate) fn maybe_pause<T: Buffered>(this: &Ref<T>) -> PyRes<()> {
    if !this.marks().must_pause(this.buffered()) {
        return Ok(());
    }
    tell(this, names::pause_writing(), "pause_writing")
}

/// Tells the protocol to resume if it was told to pause and the buffer is at the low mark or below.
#[inline]
pub(crate) fn maybe_resume<T: Buffered>(this: &Ref<T>) -> PyRes<()> {
    if !this.marks().must_resume(this.buffered()) {
        return Ok(());
    }
    tell(this, names::resume_writing(), "resume_writing")
}

/// Calls a method of the protocol; what it raises is reported, and the connection goes on.
fn tell<T: Link>(this: &Ref<T>, method: &Obj, name: &str) -> PyRes<()> {
    let protocol = this.protocol_slot().get_or_none();
    let Err(raised) = protocol.method(method, []) else {
        return Ok(());
    };
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    report(this, &format!("protocol.{name}() failed"), &exception)
}

/// Adds what a transport with a write buffer has in Python's eyes.
pub(crate) fn flow_methods<T: Buffered>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method(
            "get_write_buffer_size(self)",
            "How much is in the write buffer.",
            |this, _| Ok(this.buffered()),
        )
        .method(
            "get_write_buffer_limits(self)",
            "The low and the high water mark.",
            |this, _| this.marks().limits(),
        )
        .method(
            "set_write_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of the write buffer.",
            |this, args| {
                this.marks().set(args.some(0), args.some(1))?;
                maybe_pause(this)
            },
        )
        .getter("_high_water", |this| {
            this.marks().limits()?.item(&Obj::int(1)?)
        })
        .getter("_low_water", |this| {
            this.marks().limits()?.item(&Obj::int(0)?)
        })
        .getter("_protocol_paused", |this| Ok(this.marks().paused.get()))
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
        Err(raised) if raised.is(Builtin::Overflow) => {
            raised.discard();
            Ok(i64::MAX as usize)
        }
        Err(raised) => Err(raised),
    }
}
