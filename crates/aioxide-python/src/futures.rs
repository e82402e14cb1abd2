//! Futures. Answers `asyncio/futures.py`.
//!
//! A future's payload stands behind the memory of `_asyncio.Future`, so that it is one for `isinstance`; the base's
//! own fields stay empty. One callback is kept in place, a list is made for more.
//!
//! Completion: state and result are set, then what waits is handed to the loop, in the order in which it was added.
//! On the direct path (see `events`) a waiting task is pushed as a job that wakes it, and callbacks as one job that
//! runs them; they stay in the future until then. Elsewhere each one goes through `loop.call_soon`. Before any of that
//! runs user code the callbacks are taken out of the future, because such code may come back to it.

use std::cell::{Cell, OnceCell};
use std::mem;

use crate::events::{EventLoop, Handle, JobBody, LoopRef, get_event_loop, report_callback_error};
use crate::ffi::{
    Builtin, Class, ClassBuilder, GilCell, Kind, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, copy_current_context, function, in_context, stop_iteration, task_state,
};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["Future", "isfuture"];

/// Where a future is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FutureState {
    /// No result yet.
    Pending,
    /// Cancelled.
    Cancelled,
    /// Finished with a result.
    Finished,
    /// Finished with an exception.
    Failed,
}

impl FutureState {
    /// The name that `_state` shows.
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Cancelled => "CANCELLED",
            Self::Finished | Self::Failed => "FINISHED",
        }
    }
}

/// Native code that a finished future calls, on the loop, with its owner and the future.
pub(crate) struct Observer {
    /// What is called.
    pub body: fn(&Obj, &Obj) -> PyRes<()>,
    /// What the callback is called in reprs.
    pub qualname: &'static str,
}

/// A task that a finished future wakes.
pub(crate) struct Wakeup {
    /// The job that wakes it.
    pub body: JobBody,
    /// The Python callable that does the same, for loops off the direct path.
    pub callable: fn(&Obj) -> PyRes,
    /// The context in which that is called.
    pub context: fn(&Obj) -> Option<Obj>,
}

/// One entry of the list of callbacks.
#[derive(Clone)]
enum Callback {
    /// A waiting task.
    Wake(&'static Wakeup, Obj),
    /// A Python callable and its context.
    Call(Obj, Obj),
    /// Native code and its owner.
    Observe(&'static Observer, Obj),
}

impl Callback {
    /// The callable and the context that Python code sees.
    fn visible(&self) -> PyRes<(Obj, Obj)> {
        match self {
            Self::Wake(wakeup, task) => Ok((
                (wakeup.callable)(task)?,
                (wakeup.context)(task).map_or_else(copy_current_context, Ok)?,
            )),
            Self::Call(callable, context) => Ok((callable.clone(), context.clone())),
            Self::Observe(observer, owner) => {
                Ok((observer_callable(observer, owner)?, copy_current_context()?))
            }
        }
    }

    /// Shows its references to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Wake(_, object) | Self::Observe(_, object) => visit.obj(object),
            Self::Call(callable, context) => {
                visit.obj(callable);
                visit.obj(context);
            }
        }
    }
}

/// The callbacks of a future.
#[derive(Default)]
enum Callbacks {
    /// None.
    #[default]
    None,
    /// One, in place.
    One(Callback),
    /// Several.
    Many(Vec<Callback>),
}

impl Callbacks {
    /// Appends one.
    #[inline]
    fn push(&mut self, callback: Callback) {
        *self = match mem::take(self) {
            Self::None => Self::One(callback),
            Self::One(first) => Self::Many(vec![first, callback]),
            Self::Many(mut all) => {
                all.push(callback);
                Self::Many(all)
            }
        };
    }

    /// All of them, in order.
    fn into_vec(self) -> Vec<Callback> {
        match self {
            Self::None => Vec::new(),
            Self::One(first) => vec![first],
            Self::Many(all) => all,
        }
    }

    /// All of them, in order, by reference.
    fn as_slice(&self) -> &[Callback] {
        match self {
            Self::None => &[],
            Self::One(first) => std::slice::from_ref(first),
            Self::Many(all) => all,
        }
    }
}

/// `log_traceback`: the exception was not retrieved yet.
const LOG_TRACEBACK: u8 = 1;
/// `_asyncio_future_blocking`: a task is about to wait.
const BLOCKING: u8 = 2;
/// The future itself asked for the wait, so that it will also deliver the outcome.
const DELIVERS: u8 = 4;

/// A future.
pub(crate) struct Future {
    /// The loop; empty before `__init__`.
    loop_: OnceCell<LoopRef>,
    /// Where it is in its life.
    state: Cell<FutureState>,
    /// `LOG_TRACEBACK`, `BLOCKING`, `DELIVERS`.
    flags: Cell<u8>,
    /// The result or the exception.
    result: Slot,
    /// The exception's traceback when it was set, or the `CancelledError` to raise.
    detail: Slot,
    /// The message of `cancel`.
    cancel_message: Slot,
    /// What to do when done; afterwards, what the loop has still to run.
    callbacks: Cell<Callbacks>,
    /// Where it was made, in debug mode.
    source_traceback: Slot,
}

/// Where the class is kept.
static CLASS: Class<Future> = Class::new();

impl Native for Future {
    const LAYOUT: crate::ffi::Layout = crate::ffi::Layout::Future;
    const FREELIST: usize = 1024;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            loop_: OnceCell::new(),
            state: Cell::new(FutureState::Pending),
            flags: Cell::new(0),
            result: Slot::empty(),
            detail: Slot::empty(),
            cancel_message: Slot::empty(),
            callbacks: Cell::new(Callbacks::None),
            source_traceback: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        if let Some(loop_) = self.loop_.get() {
            visit.obj(loop_.obj());
        }
        visit.slot(&self.result);
        visit.slot(&self.detail);
        visit.slot(&self.cancel_message);
        visit.slot(&self.source_traceback);
        let callbacks = self.callbacks.take();
        for callback in callbacks.as_slice() {
            callback.traverse(visit);
        }
        self.callbacks.set(callbacks);
    }

    fn clear(&self) {
        self.result.clear();
        self.detail.clear();
        self.cancel_message.clear();
        self.source_traceback.clear();
        drop(self.callbacks.take());
    }

    #[inline]
    fn needs_finalizer(&self) -> bool {
        self.flags.get() & LOG_TRACEBACK != 0
    }

    fn finalize(this: &Ref<Self>) {
        if let Err(raised) = this.report_never_retrieved() {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

/// The error of a future whose `__init__` never ran.
#[cold]
fn not_initialized() -> Raised {
    Raised::runtime_error("Future object is not initialized.")
}

impl Future {
    /// A pending future's payload; the caller has seen to debug mode.
    #[inline]
    pub(crate) fn payload(loop_: LoopRef) -> Self {
        let future = Self::empty();
        let _ = future.loop_.set(loop_);
        future
    }

    /// Where it is in its life.
    #[inline]
    pub(crate) fn state(&self) -> FutureState {
        self.state.get()
    }

    /// Is it done?
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.get() != FutureState::Pending
    }

    /// Was it cancelled?
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.get() == FutureState::Cancelled
    }

    /// The loop; fails before `__init__`.
    #[inline]
    pub(crate) fn loop_ref(&self) -> PyRes<&LoopRef> {
        self.loop_.get().ok_or_else(not_initialized)
    }

    /// Sets the loop once.
    pub(crate) fn set_loop(&self, loop_: LoopRef) -> Result<(), LoopRef> {
        self.loop_.set(loop_)
    }

    /// Has `__init__` run?
    pub(crate) fn is_initialized(&self) -> bool {
        self.loop_.get().is_some()
    }

    /// The exception, if it failed, without marking it retrieved.
    #[inline]
    pub(crate) fn failure(&self) -> Option<Obj> {
        if self.state.get() == FutureState::Failed {
            self.result.get()
        } else {
            None
        }
    }

    /// The result, if it finished with one.
    #[inline]
    pub(crate) fn success(&self) -> Option<Obj> {
        if self.state.get() == FutureState::Finished {
            self.result.get()
        } else {
            None
        }
    }

    /// Marks the exception as retrieved.
    #[inline]
    pub(crate) fn mark_retrieved(&self) {
        self.set_flag(LOG_TRACEBACK, false);
    }

    /// Changes one flag.
    #[inline]
    fn set_flag(&self, flag: u8, on: bool) {
        let flags = self.flags.get();
        self.flags
            .set(if on { flags | flag } else { flags & !flag });
    }

    /// Is a task about to wait? Answers how, and takes the mark away.
    #[inline]
    pub(crate) fn take_blocking(&self) -> Option<Blocking> {
        let flags = self.flags.get();
        self.flags.set(flags & !(BLOCKING | DELIVERS));
        match (flags & BLOCKING != 0, flags & DELIVERS != 0) {
            (true, true) => Some(Blocking::Delivers),
            (true, false) => Some(Blocking::Marked),
            _ => None,
        }
    }

    /// Is `_asyncio_future_blocking` set?
    pub(crate) fn is_blocking(&self) -> bool {
        self.flags.get() & BLOCKING != 0
    }

    /// The message of `cancel`.
    pub(crate) fn cancel_message(&self) -> Option<Obj> {
        self.cancel_message.get()
    }

    /// Sets the message of `cancel`.
    pub(crate) fn set_cancel_message(&self, message: Option<Obj>) {
        drop(self.cancel_message.replace(message));
    }

    /// Where it was made, in debug mode.
    pub(crate) fn source_traceback(&self) -> &Slot {
        &self.source_traceback
    }

    /// The error to raise for a cancelled future. An error that was kept is given once.
    pub(crate) fn make_cancelled_error(&self) -> PyRes {
        if self.state.get() != FutureState::Failed
            && let Some(kept) = self.detail.take()
        {
            return Ok(kept);
        }
        let class = stdlib::cancelled_error()?;
        match self.cancel_message.get() {
            Some(message) => class.call([&message]),
            None => class.call([]),
        }
    }

    /// Keeps the error that cancelled the future, to be raised by `result()`.
    pub(crate) fn keep_cancelled_error(&self, error: Obj) {
        self.detail.set(error);
    }

    /// The error of asking a pending future for its outcome.
    #[cold]
    fn not_done(&self, text: &str) -> Raised {
        let text = if self.is_initialized() {
            text
        } else {
            "Future object is not initialized."
        };
        match stdlib::invalid_state_error() {
            Ok(class) => Raised::with(class, text),
            Err(raised) => raised,
        }
    }

    /// The result, or the exception raised.
    #[inline]
    pub(crate) fn outcome(&self) -> PyRes {
        match self.state.get() {
            FutureState::Finished => Ok(self.result.get_or_none()),
            FutureState::Failed => {
                self.mark_retrieved();
                let exception = self.result.get_or_none();
                // Every retrieval starts from the traceback that the exception came with.
                exception.set_traceback(self.detail.get().as_ref())?;
                Err(Raised::raise(&exception))
            }
            FutureState::Cancelled => Err(Raised::raise(&self.make_cancelled_error()?)),
            FutureState::Pending => Err(self.not_done("Result is not set.")),
        }
    }
}

/// How a future was marked before it was yielded to a task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// By itself: being resumed, it delivers its own outcome.
    Delivers,
    /// By Python code: an exception has to be thrown in.
    Marked,
}

/// Python sees these callables in `_callbacks` and off the direct path.
struct ObserverCallback {
    /// What is called.
    observer: Cell<Option<&'static Observer>>,
    /// Whose it is.
    owner: Slot,
}

/// Where the class is kept.
static OBSERVER_CALLBACK: Class<ObserverCallback> = Class::new();

impl Native for ObserverCallback {
    fn class() -> &'static Class<Self> {
        &OBSERVER_CALLBACK
    }

    fn empty() -> Self {
        Self {
            observer: Cell::new(None),
            owner: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.owner);
    }

    fn clear(&self) {
        self.owner.clear();
    }
}

/// A Python callable around an observer; it accepts any kind of future.
pub(crate) fn observer_callable(observer: &'static Observer, owner: &Obj) -> PyRes {
    Ref::new(ObserverCallback {
        observer: Cell::new(Some(observer)),
        owner: Slot::new(owner.clone()),
    })
    .map(Ref::into_obj)
}

impl Ref<Future> {
    /// A pending future of exactly this class, with its source recorded in debug mode.
    #[inline]
    pub(crate) fn pending(loop_: LoopRef) -> PyRes<Self> {
        let debug = loop_.debug()?;
        let future = Self::new(Future::payload(loop_))?;
        if debug {
            future
                .source_traceback
                .set(stdlib::extract_stack()?.call([])?);
        }
        Ok(future)
    }

    /// Marks the future so that a task will wait for it, and gives what a machine yields.
    #[inline]
    pub(crate) fn wait(&self) -> Sent {
        self.flags.set(self.flags.get() | BLOCKING | DELIVERS);
        Sent::Yield(self.obj().clone())
    }

    /// The outcome, for a machine that yielded the future and was resumed.
    #[inline]
    pub(crate) fn resumed(&self, input: Resume) -> PyRes {
        match input {
            Resume::Throw(exception) => Err(Raised::restore(exception)),
            Resume::Send if self.is_done() => self.outcome(),
            Resume::Send => Err(Raised::runtime_error("await wasn't used with future")),
        }
    }

    /// `set_result` of the base class: for native callers that know the future to be pending.
    #[inline]
    pub(crate) fn finish(&self, result: Obj) -> PyRes<()> {
        debug_assert!(!self.is_done());
        self.state.set(FutureState::Finished);
        self.result.set(result);
        self.schedule_callbacks()
    }

    /// Sets the result unless the future is done already.
    #[inline]
    pub(crate) fn finish_if_pending(&self, result: Obj) -> PyRes<()> {
        if self.is_done() {
            Ok(())
        } else {
            self.finish(result)
        }
    }

    /// `set_exception` of the base class, with an exception instance, for callers that know the future to be pending.
    pub(crate) fn fail(&self, exception: Obj) -> PyRes<()> {
        debug_assert!(!self.is_done());
        self.state.set(FutureState::Failed);
        drop(self.detail.replace(exception.traceback()));
        self.result.set(exception);
        let scheduled = self.schedule_callbacks();
        self.set_flag(LOG_TRACEBACK, true);
        scheduled
    }

    /// `cancel` of the base class.
    pub(crate) fn cancel_base(&self, message: Option<Obj>) -> PyRes<bool> {
        self.mark_retrieved();
        if self.is_done() {
            return Ok(false);
        }
        self.state.set(FutureState::Cancelled);
        drop(self.cancel_message.replace(message));
        self.schedule_callbacks()?;
        Ok(true)
    }

    /// Hands what waits to the loop.
    #[inline]
    fn schedule_callbacks(&self) -> PyRes<()> {
        let callbacks = self.callbacks.take();
        if matches!(callbacks, Callbacks::None) {
            return Ok(());
        }
        let loop_ = self.loop_ref()?;
        let Some(direct) = loop_.direct() else {
            return self.schedule_visibly(&loop_.clone(), callbacks);
        };
        match callbacks {
            Callbacks::One(Callback::Wake(wakeup, task)) => direct.push(wakeup.body, task),
            callbacks => {
                self.callbacks.set(callbacks);
                direct.push(run_callbacks, self.obj().clone());
            }
        }
        Ok(())
    }

    /// Hands what waits to a loop through its `call_soon`.
    #[cold]
    fn schedule_visibly(&self, loop_: &LoopRef, callbacks: Callbacks) -> PyRes<()> {
        for callback in callbacks.into_vec() {
            let (callable, context) = callback.visible()?;
            loop_.call_soon(&callable, &[self.obj()], Some(&context))?;
        }
        Ok(())
    }

    /// Adds a waiting task.
    #[inline]
    pub(crate) fn add_wakeup(&self, wakeup: &'static Wakeup, task: Obj) -> PyRes<()> {
        self.add(Callback::Wake(wakeup, task))
    }

    /// Adds native code to run when done.
    #[inline]
    pub(crate) fn observe(&self, observer: &'static Observer, owner: Obj) -> PyRes<()> {
        self.add(Callback::Observe(observer, owner))
    }

    /// Takes native code out again. Answers how many entries went.
    pub(crate) fn unobserve(&self, observer: &'static Observer, owner: &Obj) -> usize {
        if self.is_done() {
            return 0;
        }
        let all = match self.callbacks.take() {
            Callbacks::One(Callback::Observe(known, held))
                if std::ptr::eq(known, observer) && held.is(owner) =>
            {
                drop(held);
                return 1;
            }
            callbacks => callbacks.into_vec(),
        };
        let before = all.len();
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|callback| {
            matches!(callback, Callback::Observe(known, held) if std::ptr::eq(*known, observer) && held.is(owner))
        });
        let removed = before - kept.len();
        self.callbacks.set(if kept.is_empty() {
            Callbacks::None
        } else {
            Callbacks::Many(kept)
        });
        drop(gone);
        removed
    }

    /// Adds a callback, or hands it to the loop at once if the future is done.
    #[inline]
    fn add(&self, callback: Callback) -> PyRes<()> {
        if !self.is_done() {
            let mut callbacks = self.callbacks.take();
            callbacks.push(callback);
            self.callbacks.set(callbacks);
            return Ok(());
        }
        let loop_ = self.loop_ref()?;
        if let (Some(direct), Callback::Wake(wakeup, task)) = (loop_.direct(), &callback) {
            direct.push(wakeup.body, task.clone());
            return Ok(());
        }
        let loop_ = loop_.clone();
        let (callable, context) = callback.visible()?;
        loop_
            .call_soon(&callable, &[self.obj()], Some(&context))
            .map(drop)
    }

    /// `add_done_callback`.
    pub(crate) fn add_done_callback(&self, callable: &Obj, context: Option<&Obj>) -> PyRes<()> {
        let Some(loop_) = self.loop_.get() else {
            return Err(Raised::runtime_error("uninitialized Future object"));
        };
        if self.is_done() {
            let loop_ = loop_.clone();
            return loop_.call_soon(callable, &[self.obj()], context).map(drop);
        }
        let context = context.map_or_else(copy_current_context, |context| Ok(context.clone()))?;
        self.add(Callback::Call(callable.clone(), context))
    }

    /// `remove_done_callback`: comparing may run any code, which may change the list meanwhile.
    fn remove_done_callback(&self, callable: &Obj) -> PyRes<usize> {
        self.loop_ref()?;
        if self.is_done() {
            return Ok(0);
        }
        let mut removed = 0;
        let mut index = 0;
        while let Some(candidate) = self.callable_at(index)? {
            if !candidate.equals(callable)? {
                index += 1;
                continue;
            }
            if self.remove_at(index) {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The callable at an index.
    fn callable_at(&self, index: usize) -> PyRes<Option<Obj>> {
        let callbacks = self.callbacks.take();
        let callback = callbacks.as_slice().get(index).cloned();
        self.callbacks.set(callbacks);
        let visible = callback.as_ref().map(Callback::visible).transpose()?;
        Ok(visible.map(|(callable, _)| callable))
    }

    /// Removes the callback at an index, unless it is gone meanwhile.
    fn remove_at(&self, index: usize) -> bool {
        let mut all = self.callbacks.take().into_vec();
        let gone = (index < all.len()).then(|| all.remove(index));
        self.callbacks.set(if all.is_empty() {
            Callbacks::None
        } else {
            Callbacks::Many(all)
        });
        gone.is_some()
    }

    /// `_callbacks`: `None`, or a list of pairs.
    pub(crate) fn visible_callbacks(&self) -> PyRes<Option<Obj>> {
        self.loop_ref()?;
        if self.is_done() {
            return Ok(None);
        }
        let callbacks = self.callbacks.take();
        let all = callbacks.as_slice().to_vec();
        // Put back first: what follows makes objects, and so may collect garbage and run finalizers (up to 3.11).
        self.callbacks.set(callbacks);
        if all.is_empty() {
            return Ok(None);
        }
        let list = Obj::list([])?;
        for callback in &all {
            let (callable, context) = callback.visible()?;
            list.append(&Obj::tuple([callable, context])?)?;
        }
        Ok(Some(list))
    }

    /// Tells the loop's exception handler that nobody looked at the exception.
    fn report_never_retrieved(&self) -> PyRes<()> {
        if self.flags.get() & LOG_TRACEBACK == 0 {
            return Ok(());
        }
        self.mark_retrieved();
        let (Some(loop_), Some(exception)) = (self.loop_.get(), self.failure()) else {
            return Ok(());
        };
        let loop_ = loop_.clone();
        let context = Obj::dict()?;
        let message = format!("{} exception was never retrieved", self.obj().class_name());
        context.set_item(names::message(), &Obj::str(&message)?)?;
        context.set_item(names::exception(), &exception)?;
        context.set_item(names::future(), self.obj())?;
        if let Some(traceback) = self.source_traceback.get() {
            context.set_item(names::source_traceback(), &traceback)?;
        }
        loop_.call_exception_handler(&context)
    }

    /// `set_exception`.
    pub(crate) fn set_exception(&self, exception: &Obj) -> PyRes<()> {
        self.check_pending()?;
        let mut instance = if exception.is_exception_class() {
            exception.call([])?
        } else {
            exception.clone()
        };
        if !instance.is_exception() {
            return Err(Raised::type_error("invalid exception object"));
        }
        if Builtin::StopIteration.is_class_of(&instance) {
            let text =
                "StopIteration interacts badly with generators and cannot be raised into a Future";
            if !cfg!(Py_3_13) {
                // It was refused up to some release of 3.11 and of 3.12: a future of CPython's own knows.
                let loop_ = self.loop_ref()?.obj().clone();
                let judge = stdlib::c_future()?.call_kw(&[], &[(names::loop_(), &loop_)])?;
                judge.method(names::set_exception(), [&instance])?;
                judge.setattr_str("_log_traceback", &Obj::bool(false))?;
            }
            let wrapped = Builtin::Runtime.instance(text)?;
            wrapped.set_exception_cause(Some(instance.clone()));
            wrapped.set_exception_context(Some(instance));
            instance = wrapped;
        }
        // Making the instance may have run code that finished the future.
        self.check_pending()?;
        self.fail(instance)
    }

    /// Refuses a future that is done or not initialised.
    pub(crate) fn check_pending(&self) -> PyRes<()> {
        self.loop_ref()?;
        if self.is_done() {
            return Err(Raised::with(
                stdlib::invalid_state_error()?,
                "invalid state",
            ));
        }
        Ok(())
    }
}

/// Calls one callback of a finished future.
fn run_callback(future: &Ref<Future>, callback: Callback) -> PyRes<()> {
    match callback {
        Callback::Wake(wakeup, task) => match future.loop_ref()? {
            LoopRef::Native(native) => (wakeup.body)(&native.clone(), task),
            LoopRef::Foreign(_) => (wakeup.callable)(&task)?.call([future.obj()]).map(drop),
        },
        Callback::Observe(observer, owner) => {
            let Err(raised) = (observer.body)(&owner, future.obj()) else {
                return Ok(());
            };
            let callable = observer_callable(observer, &owner)?;
            report(future, raised, &callable, &copy_current_context()?)
        }
        Callback::Call(callable, context) => {
            let called = if context.is_context() {
                in_context(&context, || callable.call([future.obj()]))
            } else {
                // Anything with a `run` passes for a context, as in asyncio.
                context.method(names::run(), [&callable, future.obj()])
            };
            let Err(raised) = called else {
                return Ok(());
            };
            report(future, raised, &callable, &context)
        }
    }
}

/// Reports what a callback raised, with the handle that asyncio would have run it in.
#[cold]
fn report(future: &Ref<Future>, raised: Raised, callable: &Obj, context: &Obj) -> PyRes<()> {
    if crate::events::leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let loop_ = future.loop_ref()?.obj().clone();
    let args = [future.obj().clone()];
    let handle = Ref::new(Handle::payload(callable, &args, context.clone(), &loop_)?)?;
    report_callback_error(
        Raised::restore(exception),
        &loop_,
        callable,
        &Obj::tuple(args)?,
        handle.obj(),
        None,
    )
}

/// The job that runs the callbacks of a finished future.
fn run_callbacks(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(future) = CLASS.cast(&object) else {
        return Ok(());
    };
    match future.callbacks.take() {
        Callbacks::None => Ok(()),
        Callbacks::One(callback) => run_callback(future, callback),
        Callbacks::Many(all) => {
            let mut rest = all.into_iter();
            while let Some(callback) = rest.next() {
                if let Err(raised) = run_callback(future, callback) {
                    // The loop stops; the rest runs when it is started again.
                    future.callbacks.set(Callbacks::Many(rest.collect()));
                    loop_.push_front(run_callbacks, object);
                    return Err(raised);
                }
            }
            Ok(())
        }
    }
}

/// The iterator behind `await future`.
pub(crate) struct FutureIter {
    /// The future, until it delivered.
    future: Slot<Ref<Future>>,
}

/// Where the class is kept.
static FUTURE_ITER: Class<FutureIter> = Class::new();

impl Native for FutureIter {
    const FREELIST: usize = 1024;

    fn class() -> &'static Class<Self> {
        &FUTURE_ITER
    }

    fn empty() -> Self {
        Self {
            future: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.future);
    }

    fn clear(&self) {
        self.future.clear();
    }
}

/// One step of awaiting a future.
#[inline]
fn drive_iter(this: &Ref<FutureIter>) -> PyRes<Sent> {
    let Some(future) = this.future.get() else {
        return Ok(Sent::Return(Obj::none()));
    };
    if future.is_done() {
        this.future.clear();
        return future.outcome().map(Sent::Return);
    }
    if future.is_blocking() {
        return Err(Raised::runtime_error("await wasn't used with future"));
    }
    Ok(future.wait())
}

/// `__await__` and `__iter__` of a future.
#[inline]
pub(crate) fn iterate(future: &Ref<Future>) -> PyRes {
    future.loop_ref()?;
    Ref::new(FutureIter {
        future: Slot::new(future.clone()),
    })
    .map(Ref::into_obj)
}

/// `isfuture(obj)`.
pub(crate) fn is_future(object: &Obj) -> PyRes<bool> {
    if CLASS.is_instance(object) {
        return Ok(true);
    }
    // Mocks of a future name its class here.
    let class = object.getattr(names::dunder_class())?;
    if class
        .getattr_opt(names::asyncio_future_blocking())?
        .is_none()
    {
        return Ok(false);
    }
    Ok(!object.getattr(names::asyncio_future_blocking())?.is_none())
}

/// `futures._get_loop(fut)` for any kind of future.
pub(crate) fn loop_of(future: &Obj) -> PyRes {
    if let Some(native) = CLASS.cast(future) {
        return Ok(native.loop_ref()?.obj().clone());
    }
    match future.getattr_opt(names::get_loop())? {
        Some(method) => method.call([]),
        None => future.getattr(names::private_loop()),
    }
}

/// Adds an observer to any kind of future; an overridden `add_done_callback` is respected.
pub(crate) fn observe_any(future: &Obj, observer: &'static Observer, owner: &Obj) -> PyRes<()> {
    match exact_or_task(future) {
        Some(native) => native.observe(observer, owner.clone()),
        None => future
            .method(
                names::add_done_callback(),
                [&observer_callable(observer, owner)?],
            )
            .map(drop),
    }
}

/// Takes an observer out of any kind of future; an overridden `remove_done_callback` is respected.
pub(crate) fn unobserve_any(future: &Obj, observer: &'static Observer, owner: &Obj) -> PyRes<()> {
    match exact_or_task(future) {
        Some(native) => {
            native.unobserve(observer, owner);
            Ok(())
        }
        None => future
            .method(
                names::remove_done_callback(),
                [&observer_callable(observer, owner)?],
            )
            .map(drop),
    }
}

/// The object as a native future, if its methods are not overridden by a subclass: exactly a future, a task or a
/// gathering future of ours. How to cancel it differs: see `tasks::cancel_any`.
#[inline]
pub(crate) fn exact_or_task(object: &Obj) -> Option<&Ref<Future>> {
    if let Some(future) = CLASS.exact(object) {
        return Some(future);
    }
    if is_exact_task(object) || object.class_address() == GATHERING_CLASS.get() {
        CLASS.cast(object)
    } else {
        None
    }
}

/// The address of the class of `gather`'s futures, which is made later. Only their `cancel` is another one.
static GATHERING_CLASS: GilCell<usize> = GilCell::new(0);

/// Notes the class of `gather`'s futures.
pub(crate) fn set_gathering_class(class: &Obj) {
    GATHERING_CLASS.set(class.address());
}

/// The address of the task class, which is made later.
static TASK_CLASS: GilCell<usize> = GilCell::new(0);

/// Notes the task class.
pub(crate) fn set_task_class(class: &Obj) {
    TASK_CLASS.set(class.address());
}

/// Is the object exactly a task of ours?
#[inline]
pub(crate) fn is_exact_task(object: &Obj) -> bool {
    object.class_address() == TASK_CLASS.get()
}

/// What `Future(*, loop=None)` does.
pub(crate) fn init_future(
    future: &Future,
    loop_: Option<&Obj>,
    class_name: impl FnOnce() -> String,
) -> PyRes<()> {
    if future.is_initialized() {
        // CPython: up to 3.14 a second `__init__` starts the future anew. Differs: here it has no effect.
        if !cfg!(Py_3_15) {
            return Ok(());
        }
        return Err(Raised::runtime_error(&format!(
            "{} object is already initialized",
            class_name()
        )));
    }
    let loop_ = match loop_ {
        Some(loop_) => loop_.clone(),
        None => get_event_loop()?,
    };
    let reference = LoopRef::new(&loop_);
    let debug = reference.debug()?;
    let _ = future.set_loop(reference);
    if debug {
        future
            .source_traceback
            .set(stdlib::extract_stack()?.call([])?);
    }
    Ok(())
}

/// Adds the properties and methods that futures and tasks share. `T`'s methods get `self` as a future.
pub(crate) fn common<T: crate::ffi::Extends<Future>>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method("result(self, /)", "The result. Raises the exception that was set, `CancelledError` or `InvalidStateError`.", |this, _| {
            this.upcast::<Future>().outcome()
        })
        .method("exception(self, /)", "The exception that was set, or `None`. Raises `CancelledError` or `InvalidStateError`.", |this, _| {
            let this = this.upcast::<Future>();
            match this.state() {
                FutureState::Cancelled => Err(Raised::raise(&this.make_cancelled_error()?)),
                FutureState::Pending => Err(this.not_done("Exception is not set.")),
                FutureState::Finished | FutureState::Failed => {
                    this.mark_retrieved();
                    Ok(this.failure())
                }
            }
        })
        .method("add_done_callback(self, fn, /, *, context=None)", "Calls `fn(future)` in `context` once the future is done.", |this, args| {
            this.upcast::<Future>().add_done_callback(args.req(0), args.some(1))
        })
        .method("remove_done_callback(self, fn, /)", "Removes every callback equal to `fn`; returns how many there were.", |this, args| {
            this.upcast::<Future>().remove_done_callback(args.req(0))
        })
        .method("cancelled(self, /)", "Was it cancelled?", |this, _| Ok(this.upcast::<Future>().is_cancelled()))
        .method("done(self, /)", "Is it done: a result, an exception, or cancelled?", |this, _| Ok(this.upcast::<Future>().is_done()))
        .method("get_loop(self, /)", "The event loop.", |this, _| Ok(this.upcast::<Future>().loop_ref()?.obj().clone()))
        .method("_make_cancelled_error(self, /)", "The `CancelledError` to raise.", |this, _| {
            this.upcast::<Future>().make_cancelled_error()
        })
        .awaited(|this| iterate(this.upcast::<Future>()))
        .iterated(|this| iterate(this.upcast::<Future>()))
        .getter("_state", |this| {
            let this = this.upcast::<Future>();
            this.loop_ref()?;
            Obj::str(this.state().name())
        })
        .getter("_loop", |this| Ok(this.upcast::<Future>().loop_.get().map(|loop_| loop_.obj().clone())))
        .getter("_callbacks", |this| this.upcast::<Future>().visible_callbacks())
        .getter("_result", |this| {
            let this = this.upcast::<Future>();
            this.loop_ref()?;
            Ok(this.success())
        })
        .getter("_exception", |this| {
            let this = this.upcast::<Future>();
            this.loop_ref()?;
            Ok(this.failure())
        })
        .property("_log_traceback", |this| {
            let this = this.upcast::<Future>();
            this.loop_ref()?;
            Ok(this.flags.get() & LOG_TRACEBACK != 0)
        }, |this, value| {
            let Some(value) = value else { return Err(cannot_delete("_log_traceback", this.obj())) };
            if value.truth()? {
                return Err(Raised::value_error("_log_traceback can only be set to False"));
            }
            this.upcast::<Future>().mark_retrieved();
            Ok(())
        })
        .getter("_source_traceback", |this| Ok(this.upcast::<Future>().source_traceback.get()))
        .property("_cancel_message", |this| Ok(this.upcast::<Future>().cancel_message.get()), |this, value| {
            let Some(value) = value else { return Err(cannot_delete("_cancel_message", this.obj())) };
            this.upcast::<Future>().set_cancel_message(Some(value.clone()));
            Ok(())
        })
        .property("_asyncio_future_blocking", |this| Ok(this.upcast::<Future>().is_blocking()), |this, value| {
            let Some(value) = value else { return Err(cannot_delete("_asyncio_future_blocking", this.obj())) };
            let this = this.upcast::<Future>();
            this.loop_ref()?;
            let on = value.truth()?;
            this.set_flag(BLOCKING, on);
            this.set_flag(DELIVERS, false);
            Ok(())
        })
        .getter("_asyncio_awaited_by", |this| task_state::awaited_by(this.obj()))
}

/// The error of deleting an attribute that cannot be deleted.
#[cold]
fn cannot_delete(name: &str, object: &Obj) -> Raised {
    Builtin::Attribute.raise(&format!(
        "attribute '{name}' of '_asyncio.{}' objects cannot be deleted",
        object.class_name()
    ))
}

impl crate::ffi::Extends<Future> for Future {
    fn base(&self) -> &Future {
        self
    }
}

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    observer_callback_class()?;
    future_iter_class()?;
    let class = future_class()?;
    let add = |name: &str, object: &Obj| crate::ffi::add_to_module(module, name, object);
    add("Future", &class)?;
    add("Handle", &Handle::class().object())?;
    add("TimerHandle", &crate::events::TimerHandle::class().object())?;
    add(
        "_ThreadSafeHandle",
        &crate::events::ThreadSafeHandle::class().object(),
    )?;
    let (_, isfuture) = function(
        Kind::Function,
        "asyncio.base_futures",
        "isfuture(obj)",
        "Is `obj` a future, or of a class that says it is one by `_asyncio_future_blocking`?",
        |args| is_future(args.req(0)),
    )?;
    add("isfuture", &isfuture)?;
    Ok(())
}

/// `ObserverCallback`.
fn observer_callback_class() -> PyRes {
    ClassBuilder::<ObserverCallback>::new(
        "aioxide",
        "done_callback",
        "Native code that a finished future calls.",
    )
    .sealed()
    .repr(|this| {
        let name = this
            .observer
            .get()
            .map_or("?", |observer| observer.qualname);
        Ok(format!("<function {name} at {:#x}>", this.obj().address()))
    })
    .call(|this, args, _| {
        let (Some(observer), Some(owner), Some(future)) =
            (this.observer.get(), this.owner.get(), args.first())
        else {
            return Err(Raised::type_error("a done callback takes the future"));
        };
        (observer.body)(&owner, future)?;
        Ok(Obj::none())
    })
    .compare(|this, other, how| {
        let Some(other) = OBSERVER_CALLBACK.cast(other) else {
            return Ok(None);
        };
        let same = this.observer.get().map(std::ptr::from_ref)
            == other.observer.get().map(std::ptr::from_ref)
            && this.owner.get_or_none().is(&other.owner.get_or_none());
        Ok(match how {
            crate::ffi::Compare::Eq => Some(same),
            crate::ffi::Compare::Ne => Some(!same),
            _ => None,
        })
    })
    .hash(|this| Ok(this.owner.get_or_none().address().cast_signed()))
    .getter("__qualname__", |this| {
        Obj::str(
            this.observer
                .get()
                .map_or("?", |observer| observer.qualname),
        )
    })
    .getter("__name__", |this| {
        Obj::str(
            this.observer
                .get()
                .map_or("?", |observer| observer.qualname),
        )
    })
    .build()
}

/// `FutureIter`.
fn future_iter_class() -> PyRes {
    ClassBuilder::<FutureIter>::new(
        "_asyncio",
        "FutureIter",
        "The iterator behind `await future`.",
    )
    .sealed()
    .iterated(|this| Ok(this.obj().clone()))
    .driven(|this, _| drive_iter(this))
    .method("send(self, *args)", "Resumes the wait.", |this, args| {
        if args.rest().len() != 1 {
            return Err(Raised::type_error(&format!(
                "FutureIter.send() takes exactly one argument ({} given)",
                args.rest().len()
            )));
        }
        match drive_iter(this)? {
            Sent::Yield(value) => Ok(value),
            Sent::Return(value) => Err(stop_iteration(&value)),
        }
    })
    .method(
        "throw(self, *args)",
        "Raises an exception instead of waiting on.",
        |this, args| -> PyRes {
            let given = args.rest();
            let bound = if given.is_empty() {
                "least 1 argument"
            } else {
                "most 3 arguments"
            };
            let [kind, rest @ ..] = given else {
                return Err(Raised::type_error(&format!(
                    "throw expected at {bound}, got {}",
                    given.len()
                )));
            };
            if rest.len() > 2 {
                return Err(Raised::type_error(&format!(
                    "throw expected at {bound}, got {}",
                    given.len()
                )));
            }
            let words = crate::coroutines::ThrowWords::FUTURE_ITER;
            let exception =
                crate::coroutines::thrown_instance(kind, rest.first(), rest.get(1), &words)?;
            this.future.clear();
            Err(Raised::restore(exception))
        },
    )
    .method("close(self, /)", "Ends the wait.", |this, _| {
        this.future.clear();
        Ok(())
    })
    .build()
}

/// `Future`.
fn future_class() -> PyRes {
    let builder = ClassBuilder::<Future>::new(
        "_asyncio",
        "Future",
        "A result that is not there yet.\n\nAnswers `asyncio.Future`; made by `loop.create_future()`.",
    )
    .base(stdlib::c_future()?.clone())
    .phrased_by(stdlib::c_future()?.clone())
    .init("(self, *, loop=None)", |this, args| {
        init_future(this, args.some(0), || this.obj().class_name())
    })
    .repr(|this| stdlib::future_repr()?.call([this.obj()])?.text())
    .method("set_result(self, result, /)", "Sets the result; raises `InvalidStateError` if the future is done.", |this, args| {
        this.check_pending()?;
        this.finish(args.req(0).clone())
    })
    .method("set_exception(self, exception, /)", "Sets an exception; raises `InvalidStateError` if the future is done.", |this, args| {
        this.set_exception(args.req(0))
    })
    .method("cancel(self, /, msg=None)", "Cancels the future; `False` if it is done already.", |this, args| {
        this.loop_ref()?;
        this.cancel_base(args.some(0).cloned())
    });
    common(builder).build()
}
