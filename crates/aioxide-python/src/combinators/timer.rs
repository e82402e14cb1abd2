//! The timers of combinators: jobs in the scheduler of a native loop, timer handles of any other.

use std::cell::Cell;

use aioxide_engine::{TimerId, monotonic_ns};

use crate::events::{EventLoop, Handle, Job, JobBody, leaves_the_loop, report_callback_error};
use crate::ffi::{
    Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit, copy_current_context,
};
use crate::names;

/// A timer that was set.
pub(super) enum Timer {
    /// A job of a native loop.
    Native(Ref<EventLoop>, TimerId),
    /// What `call_later` or its like gave.
    Handle(Obj),
}

impl Timer {
    /// Sets a timer natively. `None` says that the loop or the delay has to be dealt with in Python.
    #[inline]
    pub(super) fn native(
        loop_: &Obj,
        delay: &Obj,
        body: JobBody,
        object: &Obj,
    ) -> PyRes<Option<Self>> {
        let Some(native) = EventLoop::class().cast(loop_) else {
            return Ok(None);
        };
        if !native.is_direct() || !(delay.is_exact_float() || delay.is_exact_int()) {
            return Ok(None);
        }
        let deadline = after(delay.as_f64()?);
        let id = native.scheduler()?.add_timer(
            deadline,
            Job {
                body,
                object: object.clone(),
            },
        );
        Ok(Some(Self::Native(native.clone(), id)))
    }

    /// Sets a timer through `loop.call_later(delay, callback)`.
    pub(super) fn visible(loop_: &Obj, delay: &Obj, callback: &Obj) -> PyRes<Self> {
        loop_
            .method(names::call_later(), [delay, callback])
            .map(Self::Handle)
    }

    /// Cancels it. Answers whether it was still to fire; of a handle that is not known.
    pub(super) fn cancel(self) -> PyRes<bool> {
        match self {
            Self::Native(loop_, id) => {
                let scheduler = loop_.scheduler.borrow().clone();
                // A loop that was closed meanwhile has dropped all timers.
                let Some(scheduler) = scheduler else {
                    return Ok(true);
                };
                Ok(scheduler.cancel_timer(id).is_some())
            }
            Self::Handle(handle) => handle.method(names::cancel(), []).map(|_| true),
        }
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Native(loop_, _) => visit.native(loop_),
            Self::Handle(handle) => visit.obj(handle),
        }
    }
}

/// The deadline that is `seconds` away, rounded up so that it never comes early.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is meant"
)]
fn after(seconds: f64) -> u64 {
    monotonic_ns().saturating_add((seconds * 1e9).ceil() as u64)
}

/// Deals with what the job of a timer raised, as the timer handle of asyncio would: the loop's handler is told.
#[cold]
pub(super) fn report(loop_: &Ref<EventLoop>, raised: Raised, callback: &Obj) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let handle = Ref::new(Handle::payload(
        callback,
        &[],
        copy_current_context()?,
        loop_.obj(),
    )?)?;
    report_callback_error(
        Raised::restore(exception),
        loop_.obj(),
        callback,
        &Obj::tuple([])?,
        handle.obj(),
        None,
    )
}

/// Native code that a timer runs, with its owner.
pub(super) struct Alarm {
    /// What is called.
    pub(super) body: fn(&Obj) -> PyRes<()>,
    /// What it is called in reprs.
    pub(super) qualname: &'static str,
}

impl Alarm {
    /// What the job of a native timer does whose object is the owner.
    #[inline]
    pub(super) fn ring(&'static self, loop_: &Ref<EventLoop>, owner: &Obj) -> PyRes<()> {
        match (self.body)(owner) {
            Ok(()) => Ok(()),
            Err(raised) if leaves_the_loop(&raised) => Err(raised),
            Err(raised) => {
                let exception = raised.take();
                let callback = self.callback(owner)?;
                report(loop_, Raised::restore(exception), callback.obj())
            }
        }
    }

    /// The Python callable that does the same.
    pub(super) fn callback(&'static self, owner: &Obj) -> PyRes<Ref<AlarmCallback>> {
        Ref::new(AlarmCallback {
            alarm: Cell::new(Some(self)),
            owner: Slot::new(owner.clone()),
            rang: Cell::new(false),
            silenced: Cell::new(false),
        })
    }
}

/// The job of a native timer whose object is the callable of an alarm.
pub(super) fn ring_callback(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(callback) = CLASS.cast(&object) else {
        return Ok(());
    };
    match callback.ring() {
        Ok(()) => Ok(()),
        Err(raised) => report(loop_, raised, &object),
    }
}

/// The callable that a timer runs when it fires, and that knows whether it did.
///
/// A timer that is due is out of reach, but its job may still be in the ready queue: then it has to be silenced.
pub(super) struct AlarmCallback {
    /// What is called.
    alarm: Cell<Option<&'static Alarm>>,
    /// Whose it is.
    owner: Slot,
    /// Was it called, without an error?
    rang: Cell<bool>,
    /// Is it to do nothing any more?
    silenced: Cell<bool>,
}

/// Where the class is kept.
static CLASS: Class<AlarmCallback> = Class::new();

impl Native for AlarmCallback {
    const FREELIST: usize = 512;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            alarm: Cell::new(None),
            owner: Slot::empty(),
            rang: Cell::new(false),
            silenced: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.owner);
    }

    fn clear(&self) {
        self.owner.clear();
    }
}

impl AlarmCallback {
    /// Was it called, without an error?
    pub(super) fn rang(&self) -> bool {
        self.rang.get()
    }

    /// Makes it do nothing if it is called yet.
    pub(super) fn silence(&self) {
        self.silenced.set(true);
    }

    /// Calls the native code, unless it was silenced.
    #[inline]
    fn ring(&self) -> PyRes<()> {
        if self.silenced.get() {
            return Ok(());
        }
        if let (Some(alarm), Some(owner)) = (self.alarm.get(), self.owner.get()) {
            (alarm.body)(&owner)?;
        }
        self.rang.set(true);
        Ok(())
    }

    /// The name in reprs.
    fn qualname(&self) -> &'static str {
        self.alarm.get().map_or("?", |alarm| alarm.qualname)
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<AlarmCallback>::new(
        "aioxide",
        "timer_callback",
        "Native code that a timer runs.",
    )
    .sealed()
    .repr(|this| {
        Ok(format!(
            "<function {} at {:#x}>",
            this.qualname(),
            this.obj().address()
        ))
    })
    .call(|this, args, kwargs| {
        if !args.is_empty() || kwargs.is_some() {
            return Err(Raised::type_error("a timer callback takes no arguments"));
        }
        this.ring()?;
        Ok(Obj::none())
    })
    .getter("__qualname__", |this| Obj::str(this.qualname()))
    .getter("__name__", |this| Obj::str(this.qualname()))
    .build()
    .map(drop)
}
