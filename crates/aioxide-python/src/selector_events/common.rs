//! What kinds of transports have in common: protocol, extra information, the context of callbacks, the water marks of
//! the write buffer, and how errors are reported.
//!
//! A transport schedules the callbacks of its life (`connection_made`, `connection_lost`) through the loop's `call_soon`;
//! what runs at each datagram or piece of data is a job of the selector without a handle. Each of them runs in the
//! transport's own context, a copy made with the transport: what 3.15 does for connections holds on every Python.

use std::cell::Cell;

use crate::events::{EventLoop, Handle, LoopRef, leaves_the_loop, report_callback_error};
use crate::ffi::{
    Builtin, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit, copy_current_context,
    in_context, while_handling,
};
use crate::{names, stdlib};

/// How many writes to a lost connection pass without a word: `LOG_THRESHOLD_FOR_CONNLOST_WRITES`.
const QUIET_WRITES: u64 = 5;

/// What every transport has.
pub(crate) struct Parts {
    /// The loop, until the connection is lost.
    pub loop_: Slot<Ref<EventLoop>>,
    /// The protocol, until the connection is lost.
    pub protocol: Slot,
    /// Where its callbacks run.
    context: Slot,
    /// The dict behind `get_extra_info`.
    extra: Slot,
    /// Was it closed, or is it about to be?
    pub closing: Cell<bool>,
    /// Counts errors and, after the first, writes that went nowhere.
    pub conn_lost: Cell<u64>,
}

impl Parts {
    /// The parts of an object whose constructor has not run.
    pub(crate) const fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            protocol: Slot::empty(),
            context: Slot::empty(),
            extra: Slot::empty(),
            closing: Cell::new(false),
            conn_lost: Cell::new(0),
        }
    }

    /// The parts of a new transport, with a copy of the current context.
    pub(crate) fn new(loop_: &Ref<EventLoop>, protocol: &Obj, extra: Obj) -> PyRes<Self> {
        Ok(Self {
            loop_: Slot::new(loop_.clone()),
            protocol: Slot::new(protocol.clone()),
            context: Slot::new(copy_current_context()?),
            extra: Slot::new(extra),
            closing: Cell::new(false),
            conn_lost: Cell::new(0),
        })
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        visit.slot(&self.protocol);
        visit.slot(&self.context);
        visit.slot(&self.extra);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.loop_.clear();
        self.protocol.clear();
        self.context.clear();
        self.extra.clear();
    }

    /// Counts one more write to a lost connection, and logs it once there were some.
    pub(crate) fn count_lost_write(&self, warning: &str) -> PyRes<()> {
        let count = self.conn_lost.get();
        self.conn_lost.set(count + 1);
        if count >= QUIET_WRITES {
            stdlib::logger()?.method(names::warning(), [&Obj::str(warning)?])?;
        }
        Ok(())
    }
}

/// A transport.
pub(crate) trait Transport: Native {
    /// What every transport has.
    fn parts(&self) -> &Parts;
}

/// The loop's debug mode; off for a transport that has left its loop.
pub(crate) fn is_debug<T: Transport>(this: &Ref<T>) -> PyRes<bool> {
    match this.parts().loop_.get() {
        Some(loop_) => LoopRef::Native(loop_).debug(),
        None => Ok(false),
    }
}

/// Is there a loop, and an open one?
pub(crate) fn has_open_loop<T: Transport>(this: &Ref<T>) -> bool {
    this.parts()
        .loop_
        .get()
        .is_some_and(|loop_| !loop_.closed.get())
}

/// `loop.call_soon(callback, *args)` in the transport's context.
pub(crate) fn call_soon<T: Transport>(this: &Ref<T>, callback: &Obj, args: &[&Obj]) -> PyRes<()> {
    let Some(loop_) = this.parts().loop_.get() else {
        return Ok(());
    };
    let context = this.parts().context.get();
    LoopRef::Native(loop_)
        .call_soon(callback, args, context.as_ref())
        .map(drop)
}

/// Schedules the start of a transport's life: `connection_made`, then `start`, a method that begins to read, then the
/// waiter.
pub(crate) fn begin<T: Transport>(
    this: &Ref<T>,
    start: Option<&Obj>,
    waiter: Option<&Obj>,
) -> PyRes<()> {
    let protocol = this.parts().protocol.get_or_none();
    call_soon(
        this,
        &protocol.getattr(names::connection_made())?,
        &[this.obj()],
    )?;
    if let Some(start) = start {
        call_soon(this, &this.obj().getattr(start)?, &[])?;
    }
    match waiter {
        Some(waiter) => call_soon(
            this,
            stdlib::set_result_unless_cancelled()?,
            &[waiter, &Obj::none()],
        ),
        None => Ok(()),
    }
}

/// Schedules `_call_connection_lost(exception)`.
pub(crate) fn schedule_connection_lost<T: Transport>(
    this: &Ref<T>,
    exception: Option<&Obj>,
) -> PyRes<()> {
    let method = this.obj().getattr(names::call_connection_lost())?;
    let none = Obj::none();
    call_soon(this, &method, &[exception.unwrap_or(&none)])
}

/// Runs what a descriptor's readiness calls for, in the transport's context. An error is reported as that of a handle
/// for `method`, the method of the transport that asyncio would have called.
pub(crate) fn run_ready<T: Transport>(
    loop_: &Ref<EventLoop>,
    this: &Ref<T>,
    method: &Obj,
    body: fn(&Ref<T>) -> PyRes<()>,
) -> PyRes<()> {
    let Some(context) = this.parts().context.get() else {
        return Ok(());
    };
    match in_context(&context, || body(this)) {
        Ok(()) => Ok(()),
        Err(raised) => report_ready_error(loop_, this.obj(), method, context, raised),
    }
}

/// Reports an error of a native job as that of a handle for `method` of a transport; `SystemExit` and
/// `KeyboardInterrupt` go on.
#[cold]
pub(crate) fn report_ready_error(
    loop_: &Ref<EventLoop>,
    transport: &Obj,
    method: &Obj,
    context: Obj,
    raised: Raised,
) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let callback = transport.getattr(method)?;
    let handle = Ref::new(Handle::payload(&callback, &[], context, loop_.obj())?)?;
    report_callback_error(
        Raised::restore(exception),
        loop_.obj(),
        &callback,
        &Obj::tuple([])?,
        handle.obj(),
        None,
    )
}

/// Tells the loop's exception handler of an error in a transport.
fn report<T: Transport>(this: &Ref<T>, message: &str, exception: &Obj) -> PyRes<()> {
    let Some(loop_) = this.parts().loop_.get() else {
        return Ok(());
    };
    let context = Obj::dict()?;
    context.set_item(names::message(), &Obj::str(message)?)?;
    context.set_item(names::exception(), exception)?;
    context.set_item(names::transport(), this.obj())?;
    context.set_item(names::protocol(), &this.parts().protocol.get_or_none())?;
    while_handling(exception, || {
        loop_
            .obj()
            .method(names::call_exception_handler(), [&context])
    })
    .map(drop)
}

/// The first half of `_fatal_error`: an error that `is_usual` is only worth a line in debug mode.
pub(crate) fn report_fatal<T: Transport>(
    this: &Ref<T>,
    exception: &Obj,
    message: &str,
    is_usual: bool,
) -> PyRes<()> {
    if !is_usual {
        return report(this, message, exception);
    }
    if is_debug(this)? {
        let text = Obj::str("%r: %s")?;
        stdlib::logger()?.method_kw(
            names::debug(),
            &[&text, this.obj(), &Obj::str(message)?],
            &[(names::exc_info(), exception)],
        )?;
    }
    Ok(())
}

/// Logs a line about the transport, in debug mode.
pub(crate) fn log_in_debug<T: Transport>(this: &Ref<T>, level: &Obj, text: &str) -> PyRes<()> {
    if is_debug(this)? {
        stdlib::logger()?.method(level, [&Obj::str(text)?, this.obj()])?;
    }
    Ok(())
}

/// A transport with a write buffer.
pub(crate) trait Buffered: Transport {
    /// Its water marks.
    fn flow(&self) -> &Flow;

    /// How much is buffered, as `get_write_buffer_size` tells.
    fn buffered(&self) -> usize;
}

/// The water marks of a write buffer. They are looked at only when something had to be buffered, so they are kept as
/// they were given: any numbers.
pub(crate) struct Flow {
    /// Above this the protocol is told to pause.
    high: Slot,
    /// At this or below it is told to resume.
    low: Slot,
    /// Was it told to pause?
    paused: Cell<bool>,
}

impl Flow {
    /// Water marks that were not set.
    pub(crate) const fn empty() -> Self {
        Self {
            high: Slot::empty(),
            low: Slot::empty(),
            paused: Cell::new(false),
        }
    }

    /// asyncio's default water marks.
    pub(crate) fn usual() -> PyRes<Self> {
        let flow = Self::empty();
        flow.set(None, None)?;
        Ok(flow)
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.high);
        visit.slot(&self.low);
    }

    /// Sets the marks; each that is missing follows from the other.
    fn set(&self, high: Option<&Obj>, low: Option<&Obj>) -> PyRes<()> {
        let high = match (high, low) {
            (Some(high), _) => high.clone(),
            (None, None) => Obj::int(64 * 1024)?,
            (None, Some(low)) => stdlib::multiply()?.call([&Obj::int(4)?, low])?,
        };
        let low = match low {
            Some(low) => low.clone(),
            None => stdlib::floor_divide()?.call([&high, &Obj::int(4)?])?,
        };
        if !(high.greater_or_equal(&low)? && low.greater_or_equal(&Obj::int(0)?)?) {
            return Err(Raised::value_error(&format!(
                "high ({}) must be >= low ({}) must be >= 0",
                high.repr()?,
                low.repr()?
            )));
        }
        self.high.set(high);
        self.low.set(low);
        Ok(())
    }
}

/// A number of bytes as Python has it.
fn size_object(size: usize) -> PyRes {
    Obj::int(i64::try_from(size).unwrap_or(i64::MAX))
}

/// Tells the protocol to pause if the buffer is above the high mark.
pub(crate) fn maybe_pause<T: Buffered>(this: &Ref<T>) -> PyRes<()> {
    let flow = this.flow();
    if size_object(this.buffered())?.less_or_equal(&flow.high.get_or_none())? || flow.paused.get() {
        return Ok(());
    }
    flow.paused.set(true);
    tell(this, names::pause_writing(), "pause_writing")
}

/// Tells the protocol to resume if it was told to pause and the buffer is at the low mark or below.
pub(crate) fn maybe_resume<T: Buffered>(this: &Ref<T>) -> PyRes<()> {
    let flow = this.flow();
    if !flow.paused.get()
        || !size_object(this.buffered())?.less_or_equal(&flow.low.get_or_none())?
    {
        return Ok(());
    }
    flow.paused.set(false);
    tell(this, names::resume_writing(), "resume_writing")
}

/// Calls a method of the protocol; what it raises is reported.
fn tell<T: Transport>(this: &Ref<T>, method: &Obj, name: &str) -> PyRes<()> {
    let protocol = this.parts().protocol.get_or_none();
    let Err(raised) = protocol.method(method, []) else {
        return Ok(());
    };
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    report(this, &format!("protocol.{name}() failed"), &exception)
}

/// Does an error mean that the call would have to wait?
pub(crate) fn would_wait(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
    )
}

/// Is this what transports take as data?
pub(crate) fn is_bytes_like(data: &Obj) -> bool {
    data.as_bytes().is_some() || data.is_bytearray() || data.is_memoryview()
}

/// Is it an `OSError`?
pub(crate) fn is_os_error(exception: &Obj) -> bool {
    Builtin::Os.is_class_of(exception)
}

/// Adds what every transport has in Python's eyes.
pub(crate) fn methods<T: Transport>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method(
            "get_extra_info(self, name, default=None)",
            "What is known of the transport under a name.",
            |this, args| {
                let found = this.parts().extra.get_or_none().dict_get(args.req(0))?;
                Ok(found.or_else(|| args.get(1).cloned()))
            },
        )
        .method(
            "is_closing(self)",
            "Is the transport closed, or about to be?",
            |this, _| Ok(this.parts().closing.get()),
        )
        .method(
            "set_protocol(self, protocol)",
            "Sets another protocol.",
            |this, args| {
                this.parts().protocol.set(args.req(0).clone());
                Ok(())
            },
        )
        .method("get_protocol(self)", "The protocol.", |this, _| {
            Ok(this.parts().protocol.get())
        })
        .property(
            "_extra",
            |this| Ok(this.parts().extra.get()),
            |this, value| {
                drop(this.parts().extra.replace(value.cloned()));
                Ok(())
            },
        )
        .property(
            "_protocol",
            |this| Ok(this.parts().protocol.get()),
            |this, value| {
                drop(
                    this.parts()
                        .protocol
                        .replace(value.filter(|value| !value.is_none()).cloned()),
                );
                Ok(())
            },
        )
        .getter("_loop", |this| {
            Ok(this.parts().loop_.get().map(Ref::into_obj))
        })
        .getter("_context", |this| Ok(this.parts().context.get()))
        .getter("_closing", |this| Ok(this.parts().closing.get()))
        .getter("_conn_lost", |this| {
            Obj::int(this.parts().conn_lost.get().cast_signed())
        })
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
            |this, _| {
                let flow = this.flow();
                Obj::tuple([flow.low.get_or_none(), flow.high.get_or_none()])
            },
        )
        .method(
            "set_write_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of the write buffer.",
            |this, args| {
                this.flow().set(args.some(0), args.some(1))?;
                maybe_pause(this)
            },
        )
        .getter("_high_water", |this| Ok(this.flow().high.get()))
        .getter("_low_water", |this| Ok(this.flow().low.get()))
        .getter("_protocol_paused", |this| Ok(this.flow().paused.get()))
}
