//! Write flow control: the water marks of a transport, and whether its protocol was told to pause. Answers
//! `_FlowControlMixin` of `asyncio/transports.py`.

use std::cell::Cell;

use crate::events::leaves_the_loop;
use crate::ffi::{ClassBuilder, Obj, PyRes, Ref, Visit};
use crate::names;
use crate::water_marks::Limits;

use super::common::{Link, report};

/// `high` of a transport that nobody set limits of, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// The water marks: above the high one the protocol is to pause, at or below the low one to resume.
pub(crate) struct WaterMarks {
    /// The marks.
    limits: Limits,
    /// Was it told to pause?
    pub(super) paused: Cell<bool>,
}

impl WaterMarks {
    /// The marks of a new transport.
    pub(crate) const fn new() -> Self {
        Self {
            limits: Limits::exclusive(DEFAULT_HIGH),
            paused: Cell::new(false),
        }
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        self.limits.traverse(visit);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.limits.clear();
    }

    /// Is the protocol to be told to pause? Notes that it is.
    #[inline]
    pub(crate) fn must_pause(&self, size: usize) -> bool {
        self.is_above(size) && !self.paused.replace(true)
    }

    /// Is so much too much?
    #[inline]
    pub(crate) fn is_above(&self, size: usize) -> bool {
        self.limits.is_above(size)
    }

    /// Is so much above a high mark that somebody set, lower than the default, to hear of what is not sent?
    #[inline]
    pub(crate) fn is_above_own(&self, size: usize) -> bool {
        self.is_above(size) && self.is_above(DEFAULT_HIGH)
    }

    /// Is the protocol to be told to resume? Notes that it is.
    #[inline]
    pub(crate) fn must_resume(&self, size: usize) -> bool {
        self.paused.get() && self.limits.has_room(size) && self.paused.replace(false)
    }

    /// `(low, high)`.
    pub(crate) fn limits(&self) -> PyRes {
        self.limits.pair()
    }

    /// One of the two: 0 is the low one.
    pub(crate) fn limit(&self, index: i64) -> PyRes {
        self.limits.one(index)
    }

    /// `set_write_buffer_limits(high, low)`, but for telling the protocol.
    pub(crate) fn set(&self, high: Option<&Obj>, low: Option<&Obj>) -> PyRes<()> {
        self.limits.set(high, low)
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
        .getter("_high_water", |this| this.marks().limit(1))
        .getter("_low_water", |this| this.marks().limit(0))
        .getter("_protocol_paused", |this| Ok(this.marks().paused.get()))
}
