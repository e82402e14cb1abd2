//! Signals. Answers `add_signal_handler` and `remove_signal_handler` of `asyncio/unix_events.py`.
//!
//! While the loop runs in the main thread, every signal ends its wait (see `lifecycle`): its number is written to the loop's
//! socket. Python then calls what stands in `signal.signal`: a [`Relay`], unless somebody has put another handler in its
//! place. The relay refers to the loop weakly, since the interpreter keeps it until the handler is removed.
//!
//! Each of the two hands the callback to the loop, unless the other one has done so for the same signal. Which comes first
//! is chance; the relay alone comes if somebody has taken the socket's place, the number alone if the relay's.
//!
//! A descriptor that was there before the loop's socket, as Twisted's is, gets each number, too.

use aioxide_engine::socket;

use crate::events::{EventLoop, Handle, run_handle};
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    copy_current_context, warn_resource,
};
use crate::{names, stdlib};

use super::lifecycle::hears_signals;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "add_signal_handler(self, sig, callback, *args)",
            "Calls `callback(*args)` in a turn of the loop for each signal `sig`. Only for the main thread.",
            add,
        )
        .method("remove_signal_handler(self, sig)", "Ends `add_signal_handler`; `False` if there was nothing.", |this, args| {
            remove(this, args.req(0))
        })
}

/// What Python calls when a signal has come in.
struct Relay {
    /// A weak reference to the loop.
    loop_: Slot,
}

/// Where the class is kept.
static RELAY: Class<Relay> = Class::new();

impl Native for Relay {
    fn class() -> &'static Class<Self> {
        &RELAY
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
    }

    fn clear(&self) {
        self.loop_.clear();
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Relay>::new(
        "aioxide",
        "signal_relay",
        "Hands the callback of a signal to the loop.",
    )
    .sealed()
    .call(|this, args, _| {
        let Some(reference) = this.loop_.get() else {
            return Ok(Obj::none());
        };
        let loop_ = reference.referent()?;
        let loop_ = loop_
            .as_ref()
            .and_then(|loop_| EventLoop::class().cast(loop_));
        if let (Some(loop_), Some(sig)) = (loop_, args.first()) {
            relay(loop_, sig)?;
        }
        Ok(Obj::none())
    })
    .build()
    .map(drop)
}

/// Python has called the relay.
fn relay(this: &Ref<EventLoop>, sig: &Obj) -> PyRes<()> {
    if hears_signals(this) && count(this, sig.as_i64()?, 1) < 0 {
        return Ok(());
    }
    hand_over(this, sig)
}

/// A signal has come in.
fn hand_over(this: &Ref<EventLoop>, sig: &Obj) -> PyRes<()> {
    let Some(handlers) = this.signal_handlers.get() else {
        return Ok(());
    };
    let Some(handle) = handlers.dict_get(sig)? else {
        return Ok(());
    };
    if Handle::class()
        .cast(&handle)
        .is_some_and(|handle| handle.is_cancelled())
    {
        return remove(this, sig).map(drop);
    }
    if this.closed.get() {
        return Ok(());
    }
    this.push_threadsafe(run_handle, handle)
}

/// The loop stops. What its socket still has is heard now if it is owed to somebody: to the descriptor from before, or
/// to a callback that the relay alone has brought, and that would be brought again in the next run.
pub(super) fn hear_the_last(this: &Ref<EventLoop>) -> PyRes<()> {
    let balanced = this.signal_balance.borrow().iter().all(|count| *count == 0);
    if balanced && this.wakeup_fd_before.get() < 0 {
        return Ok(());
    }
    heard(this, &this.scheduler()?.drain_wakeup_bytes())
}

/// Numbers of signals were written to the loop's socket.
#[inline]
pub(super) fn heard(this: &Ref<EventLoop>, numbers: &[u8]) -> PyRes<()> {
    if !numbers.is_empty() && this.wakeup_fd_before.get() >= 0 {
        // Differs: asyncio takes the place for good once it has a signal handler. As where Python writes to it, what
        // does not fit is lost.
        drop(socket::write(this.wakeup_fd_before.get(), numbers));
    }
    for number in numbers {
        if count(this, i64::from(*number), -1) <= 0 {
            hand_over(this, &Obj::int(i64::from(*number))?)?;
        }
    }
    Ok(())
}

/// Counts what came for a signal: up by the relay, down by its number. The balance before.
fn count(this: &Ref<EventLoop>, number: i64, step: i8) -> i8 {
    let mut balances = this.signal_balance.borrow_mut();
    let balance = usize::try_from(number)
        .ok()
        .and_then(|number| balances.get_mut(number));
    balance.map_or(0, |balance| {
        let next = balance.saturating_add(step);
        std::mem::replace(balance, next)
    })
}

/// `add_signal_handler`.
fn add(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<()> {
    let (sig, callback) = (args.req(0), args.req(1));
    if stdlib::iscoroutine()?.call([callback])?.truth()?
        || stdlib::is_coroutine_function()?.call([callback])?.truth()?
    {
        return Err(Raised::type_error(
            "coroutines cannot be used with add_signal_handler()",
        ));
    }
    check_signal(sig)?;
    this.check_closed()?;
    check_main_thread(this)?;
    // For `remove_all`, which may come when nothing can be imported any more.
    stdlib::is_finalizing()?;
    let handle = Ref::new(Handle::payload(
        callback,
        args.rest(),
        copy_current_context()?,
        this.obj(),
    )?)?;
    if this.debug.get() {
        handle.record_source()?;
    }
    let handlers = match this.signal_handlers.get() {
        Some(handlers) => handlers,
        None => Obj::dict()?,
    };
    this.signal_handlers.set(handlers.clone());
    handlers.set_item(sig, handle.obj())?;
    let relay = Ref::new(Relay {
        loop_: Slot::new(this.obj().weak_reference()?),
    })?;
    let installed = stdlib::signal_function()?
        .call([sig, relay.obj()])
        .and_then(|_| stdlib::siginterrupt()?.call([sig, &Obj::bool(false)]));
    let Err(raised) = installed else {
        return Ok(());
    };
    if !raised.is(Builtin::Os) {
        return Err(raised);
    }
    let error = raised.take();
    handlers.del_item(sig)?;
    Err(uncatchable(sig, error)?)
}

/// Refuses what is no signal.
fn check_signal(sig: &Obj) -> PyRes<()> {
    if !sig.is_int() {
        return Err(Raised::type_error(&format!(
            "sig must be an int, not {}",
            sig.repr()?
        )));
    }
    if !stdlib::valid_signals()?.call([])?.contains(sig)? {
        return Err(Raised::value_error(&format!(
            "invalid signal number {}",
            sig.to_str()?.text()?
        )));
    }
    Ok(())
}

/// Signals come to the main thread of the main interpreter: asks Python, in its own words, whether this is it.
fn check_main_thread(this: &Ref<EventLoop>) -> PyRes<()> {
    let fd = Obj::int(i64::from(this.scheduler()?.wakeup_fd()))?;
    let quiet = [(names::warn_on_full_buffer(), &Obj::bool(false))];
    match stdlib::set_wakeup_fd()?.call_kw(&[&fd], &quiet) {
        Ok(previous) if !previous.equals(&fd)? => stdlib::set_wakeup_fd()?
            .call_kw(&[&previous], &quiet)
            .map(drop),
        Ok(_) => Ok(()),
        Err(raised) if raised.is(Builtin::Value) || raised.is(Builtin::Os) => {
            let error = raised.take();
            Err(Raised::runtime_error(&error.to_str()?.text()?))
        }
        Err(raised) => Err(raised),
    }
}

/// The error of a signal that cannot be caught, for what `signal.signal` raised.
fn uncatchable(sig: &Obj, error: Obj) -> PyRes<Raised> {
    let invalid = Obj::import("errno")?.getattr_str("EINVAL")?;
    if error.getattr_str("errno")?.equals(&invalid)? {
        return Ok(Raised::runtime_error(&format!(
            "sig {} cannot be caught",
            sig.to_str()?.text()?
        )));
    }
    Ok(Raised::restore(error))
}

/// `remove_signal_handler`.
fn remove(this: &Ref<EventLoop>, sig: &Obj) -> PyRes<bool> {
    check_signal(sig)?;
    let Some(handlers) = this.signal_handlers.get() else {
        return Ok(false);
    };
    if handlers.dict_get(sig)?.is_none() {
        return Ok(false);
    }
    handlers.del_item(sig)?;
    let signal = Obj::import("signal")?;
    let interrupt = signal.getattr_str("SIGINT")?;
    let usual = if sig.equals(&interrupt)? {
        "default_int_handler"
    } else {
        "SIG_DFL"
    };
    match stdlib::signal_function()?.call([sig, &signal.getattr_str(usual)?]) {
        Ok(_) => Ok(true),
        Err(raised) if raised.is(Builtin::Os) => {
            let error = raised.take();
            Err(uncatchable(sig, error)?)
        }
        Err(raised) => Err(raised),
    }
}

/// Removes every handler, for `close`.
pub(super) fn remove_all(this: &Ref<EventLoop>) -> PyRes<()> {
    let Some(handlers) = this.signal_handlers.get() else {
        return Ok(());
    };
    let signals = handlers.items()?;
    if signals.is_empty() {
        return Ok(());
    }
    if stdlib::is_finalizing()?.call([])?.truth()? {
        this.signal_handlers.clear();
        let text = format!(
            "Closing the loop {} on interpreter shutdown stage, skipping signal handlers removal",
            this.obj().repr()?
        );
        return warn_resource(this.obj(), &text, 1);
    }
    for sig in signals {
        remove(this, &sig)?;
    }
    Ok(())
}
