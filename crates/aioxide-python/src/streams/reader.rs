//! `StreamReader`: what it has received, who waits for it, and what is fed to it.
//!
//! asyncio wakes the waiting task for every piece of data, and the task looks whether that is enough. Here a native wait
//! says what it waits for ([`Wanted`]), and feeding looks instead: the task is not woken before the separator or the
//! last byte is there, the limit is passed, or the transport has to be paused. That is done only while nobody could
//! tell: `_buffer` and `_waiter` were not looked at, and the methods in between are the native ones.

use std::cell::Cell;
use std::fmt::Write as _;

use aioxide_engine::read_buffer::Look;

use crate::coroutines::coroutine;
use crate::events::{LoopRef, get_event_loop};
use crate::ffi::{
    Buffer, Builtin, Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
};
use crate::waiter::{is_cancelled, set_exception, set_result};
use crate::{names, stdlib};

use super::DEFAULT_LIMIT;
use super::overrides::{Overridable, Seen};
use super::reads::{Caller, Read, ReadExactly, ReadUntil, WaitForData};
use super::received::Received;

/// Overridable: `feed_data`.
pub(super) const FEED_DATA: u32 = 1;
/// Overridable: `feed_eof`.
pub(super) const FEED_EOF: u32 = 1 << 1;
/// Overridable: `set_exception`.
pub(super) const SET_EXCEPTION: u32 = 1 << 2;
/// Overridable: `set_transport`.
pub(super) const SET_TRANSPORT: u32 = 1 << 3;
/// Overridable: `_replace_transport`.
pub(super) const REPLACE_TRANSPORT: u32 = 1 << 4;
/// Overridable: `exception`.
pub(super) const EXCEPTION: u32 = 1 << 5;
/// Overridable: `_wakeup_waiter`.
const WAKEUP_WAITER: u32 = 1 << 6;
/// Overridable: `_wait_for_data`.
pub(super) const WAIT_FOR_DATA: u32 = 1 << 7;
/// Overridable: `_maybe_resume_transport`.
const MAYBE_RESUME_TRANSPORT: u32 = 1 << 8;
/// Overridable: `read`.
pub(super) const READ: u32 = 1 << 9;
/// Overridable: `readuntil`.
pub(super) const READUNTIL: u32 = 1 << 10;
/// Overridable: `readline`.
pub(super) const READLINE: u32 = 1 << 11;

/// The methods that can be overridden.
static OVERRIDABLE: Overridable<12> = Overridable::new([
    names::feed_data,
    names::feed_eof,
    names::set_exception,
    names::set_transport,
    names::replace_transport,
    names::exception,
    names::wakeup_waiter,
    names::wait_for_data,
    names::maybe_resume_transport,
    names::read,
    names::readuntil,
    names::readline,
]);

/// What the waiting task waits for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Any data.
    Any,
    /// So many bytes.
    Bytes(usize),
    /// This separator.
    Separator(Separator),
}

/// A separator of a few bytes.
#[derive(Clone, Copy)]
pub(super) struct Separator {
    /// The bytes, and zeros.
    bytes: [u8; 7],
    /// How many bytes.
    len: u8,
}

impl Separator {
    /// The separator, if it is short enough.
    #[inline]
    pub(super) fn new(separator: &[u8]) -> Option<Self> {
        let mut bytes = [0; 7];
        bytes.get_mut(..separator.len())?.copy_from_slice(separator);
        Some(Self {
            bytes,
            len: u8::try_from(separator.len()).ok()?,
        })
    }
}

impl AsRef<[u8]> for Separator {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A stream's reading end.
pub(crate) struct StreamReader {
    /// The bytes that nobody has read.
    pub(super) received: Received,
    /// `_limit` as it was given.
    limit: Slot,
    /// The longest line, not counting the separator.
    longest: Cell<usize>,
    /// More bytes than these pause the transport: twice the limit.
    most: Cell<usize>,
    /// Was the end fed?
    pub(super) eof: Cell<bool>,
    /// The future of the task that waits.
    pub(super) waiter: Slot,
    /// What that task waits for.
    pub(super) wanted: Cell<Wanted>,
    /// Where the next look for its separator begins.
    pub(super) from: Cell<usize>,
    /// The address of the future that `from` belongs to.
    pub(super) from_of: Cell<usize>,
    /// What `set_exception` got.
    pub(super) exception: Slot,
    /// The transport.
    transport: Slot,
    /// Did this reader pause it?
    paused: Cell<bool>,
    /// The loop.
    pub(super) loop_: Slot,
    /// Where it was made, in debug mode.
    pub(super) source_traceback: Slot,
    /// What is known about the class.
    seen: Seen,
}

/// Where the class is kept.
static CLASS: Class<StreamReader> = Class::new();

impl Native for StreamReader {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            received: Received::new(),
            limit: Slot::empty(),
            longest: Cell::new(DEFAULT_LIMIT),
            most: Cell::new(2 * DEFAULT_LIMIT),
            eof: Cell::new(false),
            waiter: Slot::empty(),
            wanted: Cell::new(Wanted::Any),
            from: Cell::new(0),
            from_of: Cell::new(0),
            exception: Slot::empty(),
            transport: Slot::empty(),
            paused: Cell::new(false),
            loop_: Slot::empty(),
            source_traceback: Slot::empty(),
            seen: Seen::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.received.traverse(visit);
        visit.slot(&self.limit);
        visit.slot(&self.waiter);
        visit.slot(&self.exception);
        visit.slot(&self.transport);
        visit.slot(&self.loop_);
        visit.slot(&self.source_traceback);
    }

    fn clear(&self) {
        self.received.become_(None);
        self.limit.clear();
        self.waiter.clear();
        self.exception.clear();
        self.transport.clear();
        self.loop_.clear();
        self.source_traceback.clear();
    }
}

/// The largest whole number that is not above a limit of Python's.
fn whole(limit: &Obj) -> PyRes<usize> {
    match limit.as_i64() {
        Ok(limit) => return Ok(usize::try_from(limit).unwrap_or(0)),
        Err(raised) if raised.is(Builtin::Overflow) => {
            raised.discard();
            return Ok(usize::MAX);
        }
        Err(raised) => raised.discard(),
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates: infinity is no limit"
    )]
    limit.as_f64().map(|limit| {
        if limit.is_nan() {
            usize::MAX
        } else {
            limit as usize
        }
    })
}

impl Ref<StreamReader> {
    /// A reader of exactly the native class.
    pub(crate) fn create(limit: Option<&Obj>, loop_: &Obj) -> PyRes<Self> {
        let reader = Self::new(StreamReader::empty())?;
        reader.initialize(limit, Some(loop_))?;
        Ok(reader)
    }

    /// `__init__`.
    fn initialize(&self, limit: Option<&Obj>, loop_: Option<&Obj>) -> PyRes<()> {
        if let Some(limit) = limit {
            if limit.less_or_equal(&Obj::int(0)?)? {
                return Err(Raised::value_error("Limit cannot be <= 0"));
            }
            self.set_limit(Some(limit))?;
        } else {
            self.set_limit(None)?;
        }
        let loop_ = match loop_ {
            Some(loop_) => loop_.clone(),
            None => get_event_loop()?,
        };
        self.loop_.set(loop_.clone());
        self.received.become_(None);
        self.eof.set(false);
        self.waiter.clear();
        self.wanted.set(Wanted::Any);
        self.exception.clear();
        self.transport.clear();
        self.paused.set(false);
        if LoopRef::new(&loop_).debug()? {
            self.source_traceback
                .set(stdlib::extract_stack()?.call([])?);
        }
        Ok(())
    }

    /// Sets `_limit`; `None` is the default.
    fn set_limit(&self, limit: Option<&Obj>) -> PyRes<()> {
        let (longest, most) = match limit {
            None => (DEFAULT_LIMIT, 2 * DEFAULT_LIMIT),
            Some(limit) if limit.is_int() => {
                let longest = whole(limit)?;
                (longest, longest.saturating_mul(2))
            }
            Some(limit) => (whole(limit)?, whole(&limit.add(limit)?)?),
        };
        self.longest.set(longest);
        self.most.set(most);
        drop(self.limit.replace(limit.cloned()));
        Ok(())
    }

    /// `_limit`.
    pub(super) fn visible_limit(&self) -> PyRes {
        match self.limit.get() {
            Some(limit) => Ok(limit),
            None => Obj::int(i64::try_from(DEFAULT_LIMIT).unwrap_or(i64::MAX)),
        }
    }

    /// The longest line, not counting the separator.
    #[inline]
    pub(super) fn longest(&self) -> usize {
        self.longest.get()
    }

    /// Is one of these methods overridden?
    #[inline]
    pub(super) fn overrides(&self, methods: u32) -> bool {
        OVERRIDABLE.overrides(&self.seen, self, methods)
    }

    // What comes in.

    /// `feed_data(data)`.
    fn feed_data(&self, data: &Obj) -> PyRes<()> {
        if data.is_exact_bytes()
            && let Some(bytes) = data.as_bytes()
        {
            return self.feed(bytes);
        }
        self.refuse_after_eof()?;
        if !data.truth()? {
            return Ok(());
        }
        match Buffer::readable(data) {
            // It may be the very same object.
            Ok(view) if self.received.is_visible() => {
                drop(view);
                self.received.extend_by(data)?;
            }
            Ok(view) => {
                self.received.extend(view.as_slice())?;
                drop(view);
            }
            // No buffer, but maybe an iterable of numbers.
            Err(raised) if raised.is(Builtin::Type) => {
                raised.discard();
                self.received.extend_by(data)?;
            }
            Err(raised) => return Err(raised),
        }
        self.fed()
    }

    /// `feed_data(data)` for bytes that are no Python object.
    pub(super) fn feed(&self, data: &[u8]) -> PyRes<()> {
        self.refuse_after_eof()?;
        if data.is_empty() {
            return Ok(());
        }
        self.received.extend(data)?;
        self.fed()
    }

    /// Data must not come after the end.
    #[inline]
    fn refuse_after_eof(&self) -> PyRes<()> {
        if self.eof.get() {
            return Err(Builtin::Assertion.raise("feed_data after feed_eof"));
        }
        Ok(())
    }

    /// Data came in: wakes whoever waits for it, and pauses the transport if there is too much.
    fn fed(&self) -> PyRes<()> {
        if self.overrides(WAKEUP_WAITER) {
            self.obj().method(names::wakeup_waiter(), [])?;
        } else if self.waiter.is_some() && (self.is_enough()? || self.is_too_much()?) {
            self.wakeup_waiter()?;
        }
        if !self.is_too_much()? {
            return Ok(());
        }
        let transport = self.transport.get_or_none();
        match transport.method(names::pause_reading(), []) {
            Ok(_) => self.paused.set(true),
            Err(raised) if raised.is(Builtin::NotImplemented) => {
                // It cannot be paused: all is buffered, and nobody asks again.
                raised.discard();
                self.transport.clear();
            }
            Err(raised) => return Err(raised),
        }
        Ok(())
    }

    /// Is there so much that the transport has to be paused?
    #[inline]
    fn is_too_much(&self) -> PyRes<bool> {
        Ok(
            self.transport.is_some()
                && !self.paused.get()
                && self.received.len()? > self.most.get(),
        )
    }

    /// Is there what the waiting task waits for, as far as it said so?
    #[inline]
    fn is_enough(&self) -> PyRes<bool> {
        let wanted = self.wanted.get();
        if matches!(wanted, Wanted::Any) || self.received.is_visible() || self.overrides(u32::MAX) {
            return Ok(true);
        }
        match wanted {
            Wanted::Any => Ok(true),
            Wanted::Bytes(count) => Ok(self.received.len()? >= count),
            Wanted::Separator(separator) => {
                Ok(match self.received.look(&[separator], self.from.get())? {
                    Look::Found { start, .. } => {
                        self.from.set(start);
                        true
                    }
                    // The task shall find this for itself.
                    Look::Missing { from } if from > self.longest() => true,
                    Look::Missing { from } => {
                        self.from.set(from);
                        false
                    }
                    Look::TooShort => false,
                })
            }
        }
    }

    /// `feed_eof()`.
    pub(crate) fn feed_eof(&self) -> PyRes<()> {
        self.eof.set(true);
        if self.overrides(WAKEUP_WAITER) {
            return self.obj().method(names::wakeup_waiter(), []).map(drop);
        }
        self.wakeup_waiter()
    }

    /// `_wakeup_waiter()`.
    fn wakeup_waiter(&self) -> PyRes<()> {
        match self.waiter.take() {
            Some(waiter) if !is_cancelled(&waiter)? => set_result(&waiter, Obj::none()),
            _ => Ok(()),
        }
    }

    /// `set_exception(exc)`.
    pub(crate) fn set_exception(&self, exception: &Obj) -> PyRes<()> {
        let given = (!exception.is_none()).then(|| exception.clone());
        drop(self.exception.replace(given));
        match self.waiter.take() {
            Some(waiter) if !is_cancelled(&waiter)? => set_exception(&waiter, exception),
            _ => Ok(()),
        }
    }

    /// Raises what `set_exception` got, if anything.
    #[inline]
    pub(super) fn check_exception(&self) -> PyRes<()> {
        match self.exception.get() {
            None => Ok(()),
            Some(exception) => Err(raise(&exception)),
        }
    }

    // The transport.

    /// `set_transport(transport)`.
    pub(crate) fn set_transport(&self, transport: &Obj) -> PyRes<()> {
        if self.transport.is_some() {
            return Err(Builtin::Assertion.raise("Transport already set"));
        }
        self.assign_transport(Some(transport));
        Ok(())
    }

    /// `_replace_transport(transport)`.
    pub(super) fn replace_transport(&self, transport: &Obj) -> PyRes<()> {
        if self.transport.is_none() {
            return Err(Builtin::Assertion.raise("Transport not set"));
        }
        self.assign_transport(Some(transport));
        Ok(())
    }

    /// Assigns `_transport`.
    fn assign_transport(&self, transport: Option<&Obj>) {
        let transport = transport.filter(|transport| !transport.is_none());
        drop(self.transport.replace(transport.cloned()));
    }

    /// `_maybe_resume_transport()`.
    fn maybe_resume_transport(&self) -> PyRes<()> {
        if self.paused.get() && self.received.len()? <= self.longest() {
            return self.resume_transport();
        }
        Ok(())
    }

    /// `self._maybe_resume_transport()`.
    #[inline]
    pub(super) fn after_read(&self) -> PyRes<()> {
        if self.overrides(MAYBE_RESUME_TRANSPORT) {
            let name = names::maybe_resume_transport();
            return self.obj().method(name, []).map(drop);
        }
        self.maybe_resume_transport()
    }

    /// Lets the transport go on, if this reader paused it: to wait otherwise would be for ever.
    #[inline]
    pub(super) fn resume_if_paused(&self) -> PyRes<()> {
        if self.paused.get() {
            return self.resume_transport();
        }
        Ok(())
    }

    /// Lets the transport go on.
    fn resume_transport(&self) -> PyRes<()> {
        self.paused.set(false);
        let transport = self.transport.get_or_none();
        transport.method(names::resume_reading(), []).map(drop)
    }

    // Looks from outside.

    /// `exception()`.
    pub(super) fn exception(&self) -> Option<Obj> {
        self.exception.get()
    }

    /// `at_eof()`.
    fn at_eof(&self) -> PyRes<bool> {
        Ok(self.eof.get() && self.received.len()? == 0)
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let mut text = String::from("<StreamReader");
        let len = self.received.len()?;
        if len != 0 {
            let _ = write!(text, " {len} bytes");
        }
        if self.eof.get() {
            text.push_str(" eof");
        }
        if let Some(limit) = self.limit.get() {
            let usual = Obj::int(i64::try_from(DEFAULT_LIMIT).unwrap_or(i64::MAX))?;
            if !limit.equals(&usual)? {
                let _ = write!(text, " limit={}", limit.to_str()?.text()?);
            }
        }
        for (name, slot) in [
            ("waiter", &self.waiter),
            ("exception", &self.exception),
            ("transport", &self.transport),
        ] {
            if let Some(value) = slot.get()
                && value.truth()?
            {
                let _ = write!(text, " {name}={}", value.repr()?);
            }
        }
        if self.paused.get() {
            text.push_str(" paused");
        }
        text.push('>');
        Ok(text)
    }
}

/// The `raise` statement with this object.
pub(super) fn raise(exception: &Obj) -> Raised {
    if exception.is_exception() {
        return Raised::raise(exception);
    }
    if exception.is_exception_class() {
        return match exception.call([]) {
            Ok(instance) if instance.is_exception() => Raised::raise(&instance),
            Ok(_) => Raised::type_error("exceptions must derive from BaseException"),
            Err(raised) => raised,
        };
    }
    Raised::type_error("exceptions must derive from BaseException")
}

/// Adds the reading methods, which are coroutines.
fn reading(builder: ClassBuilder<StreamReader>) -> ClassBuilder<StreamReader> {
    builder
        .coroutine(
            "readline(self)",
            "Reads a line, up to and including the newline, or what there is at the end of the stream.\n\n\
             A line longer than the limit is dropped, or what of it is there, and raises `ValueError`.",
            |this, _| coroutine("StreamReader.readline", ReadUntil::line(this.clone(), Caller::Line)),
        )
        .coroutine(
            "readuntil(self, separator=b'\\n')",
            "Reads up to and including a separator, or the first of a tuple of separators.\n\n\
             At the end of the stream it raises `IncompleteReadError` with what there is, and takes it. Where no\n\
             separator is found within the limit, it raises `LimitOverrunError` and takes nothing.",
            |this, args| {
                coroutine("StreamReader.readuntil", ReadUntil::new(this.clone(), args.get(0)))
            },
        )
        .coroutine(
            "read(self, n=-1)",
            "Reads what there is, but no more than `n` bytes; waits if there is nothing.\n\n\
             With a negative `n` it reads up to the end of the stream. Empty bytes say that the stream is at its end.",
            |this, args| coroutine("StreamReader.read", Read::new(this.clone(), args.get(0))),
        )
        .coroutine(
            "readexactly(self, n)",
            "Reads exactly `n` bytes, or raises `IncompleteReadError` at the end of the stream.",
            |this, args| {
                coroutine("StreamReader.readexactly", ReadExactly::new(this.clone(), args.req(0)))
            },
        )
        .coroutine(
            "_wait_for_data(self, func_name)",
            "Waits until something is fed. A paused transport goes on.",
            |this, args| {
                coroutine("StreamReader._wait_for_data", WaitForData::new(this.clone(), args.req(0)))
            },
        )
        .method("__aiter__(self)", "The lines.", |this, _| Ok(this.clone()))
        .coroutine("__anext__(self)", "The next line.", |this, _| {
            coroutine("StreamReader.__anext__", ReadUntil::line(this.clone(), Caller::Next))
        })
}

/// Adds the methods that protocols and transports call.
fn feeding(builder: ClassBuilder<StreamReader>) -> ClassBuilder<StreamReader> {
    builder
        .method("feed_data(self, data)", "Takes data in.", |this, args| {
            this.feed_data(args.req(0))
        })
        .method(
            "feed_eof(self)",
            "Takes the end of the stream in.",
            |this, _| this.feed_eof(),
        )
        .method(
            "at_eof(self)",
            "Is the stream at its end, and all of it read?",
            |this, _| this.at_eof(),
        )
        .method(
            "exception(self)",
            "What `set_exception()` got.",
            |this, _| Ok(this.exception()),
        )
        .method(
            "set_exception(self, exc)",
            "Makes this and later reads fail.",
            |this, args| this.set_exception(args.req(0)),
        )
        .method(
            "set_transport(self, transport)",
            "Sets the transport once.",
            |this, args| this.set_transport(args.req(0)),
        )
        .method(
            "_replace_transport(self, transport)",
            "Sets another transport.",
            |this, args| this.replace_transport(args.req(0)),
        )
        .method(
            "_wakeup_waiter(self)",
            "Wakes the task that waits for data.",
            |this, _| this.wakeup_waiter(),
        )
        .method(
            "_maybe_resume_transport(self)",
            "Lets a paused transport go on, if no more is left than the limit.",
            |this, _| this.maybe_resume_transport(),
        )
}

/// Makes the class.
pub(super) fn make_class() -> PyRes {
    let builder = ClassBuilder::<StreamReader>::new(
        "asyncio.streams",
        "StreamReader",
        "The reading end of a stream.\n\n\
         `limit` is the length of the longest line; at twice as many bytes the transport is paused.",
    )
    .init("(self, limit=65536, loop=None)", |this, args| {
        this.initialize(args.get(0), args.some(1))
    })
    .repr(Ref::<StreamReader>::repr_text);
    let builder = feeding(reading(builder))
        .property(
            "_buffer",
            |this| this.received.visible(),
            |this, value| {
                this.received.become_(value.cloned());
                Ok(())
            },
        )
        .property(
            "_limit",
            Ref::<StreamReader>::visible_limit,
            Ref::<StreamReader>::set_limit,
        )
        .property(
            "_eof",
            |this| Ok(this.eof.get()),
            |this, value| {
                this.eof.set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
        .property(
            "_paused",
            |this| Ok(this.paused.get()),
            |this, value| {
                this.paused.set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
        .property(
            "_waiter",
            |this| {
                // In asyncio it goes with each piece of data: who looks at it, will see that.
                this.wanted.set(Wanted::Any);
                Ok(this.waiter.get())
            },
            |this, value| {
                this.wanted.set(Wanted::Any);
                drop(
                    this.waiter
                        .replace(value.filter(|value| !value.is_none()).cloned()),
                );
                Ok(())
            },
        )
        .property(
            "_transport",
            |this| Ok(this.transport.get()),
            |this, value| {
                this.assign_transport(value);
                Ok(())
            },
        );
    let class = builder
        .slot_property("_exception", |this| &this.exception)
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_source_traceback", |this| &this.source_traceback)
        .build()?;
    OVERRIDABLE.remember(&class)?;
    Ok(class)
}
