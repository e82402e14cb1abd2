//! The event loop's methods. Answers `asyncio/base_events.py` and the watching of descriptors in `selector_events.py`.
//!
//! The class that users see, `aioxide.Loop`, derives from the native class below and from `AbstractEventLoop`, which
//! also gives it `__dict__` and weak references. `default_exception_handler`, which only formats and logs, is CPython's
//! own function, run with our loop as `self`, and so are `_getaddrinfo_debug` and `_log_subprocess`.

mod asyncgens;
mod connections;
mod datagram;
mod descriptors;
mod errors;
mod executor;
mod lifecycle;
mod opening;
mod pipes;
mod resolver;
mod scheduling;
mod sendfile;
mod sendfile_fallback;
mod server;
mod servers;
mod signals;
mod sock;
mod sock_calls;
mod sock_native;
mod sock_wait;
mod subprocess;
mod tls;
mod unix;

use crate::events::{EventLoop, LoopRef, context_argument};
use crate::ffi::{ClassBuilder, Kind, Native, Obj, PyRes, Raised, Ref, add_to_module, function};
use crate::futures::Future;
use crate::{stdlib, steps};

pub(crate) use lifecycle::finalize;

/// CPython's own methods that the class takes over as they are.
const BORROWED: [&str; 3] = [
    "default_exception_handler",
    "_getaddrinfo_debug",
    "_log_subprocess",
];

/// Makes the classes and `new_event_loop`.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    executor::init()?;
    signals::init()?;
    server::init()?;
    servers::init()?;
    connections::init()?;
    sendfile_fallback::init()?;
    sock_wait::init()?;
    let builder = ClassBuilder::<EventLoop>::new(
        "aioxide",
        "BaseEventLoop",
        "The native part of `aioxide.Loop`.",
    )
    .init("(self)", |this, _| lifecycle::init_loop(this))
    .repr(|this| Ok(lifecycle::repr(this)))
    .hash(|this| {
        this.before_lookup()?;
        Ok((this.obj().address() >> 4).cast_signed())
    })
    .on_setattr(|this, name, value| {
        if EventLoop::is_scheduling_name(&name.text()?) {
            this.note_assignment(value.is_some());
        }
        Ok(())
    });
    let builder = lifecycle::methods(builder);
    let builder = scheduling::methods(builder);
    let builder = descriptors::methods(builder);
    let builder = errors::methods(builder);
    let builder = executor::methods(builder);
    let builder = asyncgens::methods(builder);
    let builder = signals::methods(builder);
    let builder = resolver::methods(builder);
    let builder = connections::methods(builder);
    let builder = servers::methods(builder);
    let builder = unix::methods(builder);
    let builder = tls::methods(builder);
    let builder = sock::methods(builder);
    let builder = sendfile::methods(builder);
    let builder = datagram::methods(builder);
    let builder = pipes::methods(builder);
    let builder = subprocess::methods(builder);
    let builder = builder
        .flag_property("_closed", |this| &this.closed)
        .flag_property("_stopping", |this| &this.stopping)
        .flag_property("_executor_shutdown_called", |this| {
            &this.executor_shutdown_called
        })
        .flag_property("_asyncgens_shutdown_called", |this| {
            &this.asyncgens_shutdown_called
        })
        .slot_property("_default_executor", |this| &this.default_executor)
        .slot_property("_exception_handler", |this| &this.exception_handler)
        .slot_property("_task_factory", |this| &this.task_factory)
        .slot_property("_current_handle", |this| &this.current_handle)
        .slot_property("_asyncgens", |this| &this.asyncgens)
        .slot_property("slow_callback_duration", |this| {
            &this.slow_callback_duration
        });
    let native = builder
        .getter("_debug", |this| Ok(this.debug.get()))
        .getter("_thread_id", |this| {
            let ident = this.thread_id.get();
            if ident == 0 {
                Ok(Obj::none())
            } else {
                Obj::int(ident.cast_signed())
            }
        })
        .build()?;
    EventLoop::remember_scheduling(&native)?;
    let class = make_class(&native)?;
    add_to_module(module, "BaseEventLoop", &native)?;
    add_to_module(module, "Loop", &class)?;
    LOOP_CLASS.set(&class);
    EventLoop::class().set_usual_subclass(&class);
    let (_, new_event_loop) = function(
        Kind::Builtin,
        "aioxide",
        "new_event_loop()",
        "A new event loop. Serves as `loop_factory` everywhere.",
        |_| LOOP_CLASS.get()?.call([]),
    )?;
    add_to_module(module, "new_event_loop", &new_event_loop)?;
    let (_, has_made_loops) = function(
        Kind::Builtin,
        "aioxide",
        "_has_made_loops()",
        "Whether any native loop was ever made.",
        |_| Ok(Obj::bool(lifecycle::has_made_loops())),
    )?;
    add_to_module(module, "_has_made_loops", &has_made_loops)?;
    lifecycle::watch_forks()
}

/// The class that `new_event_loop` makes instances of.
static LOOP_CLASS: crate::ffi::GilSlot = crate::ffi::GilSlot::new();

/// The class `aioxide.Loop`.
fn make_class(native: &Obj) -> PyRes {
    let namespace = Obj::dict()?;
    let set = |name: &str, value: &Obj| namespace.set_item(&Obj::str(name)?, value);
    set("__module__", &Obj::str("aioxide")?)?;
    set(
        "__doc__",
        &Obj::str(
            "An event loop in native code.\n\nAnswers `asyncio.EventLoop`; made by `aioxide.new_event_loop()`.",
        )?,
    )?;
    let base = Obj::import("asyncio")?.getattr_str("BaseEventLoop")?;
    for name in BORROWED {
        set(name, &base.getattr_str(name)?)?;
    }
    let bases = Obj::tuple([native.clone(), stdlib::abstract_event_loop()?.clone()])?;
    Obj::import("builtins")?
        .getattr_str("type")?
        .call([&Obj::str("Loop")?, &bases, &namespace])
}

/// Does the loop run in the current thread or not at all? Debug mode refuses calls from other threads.
fn check_thread(this: &Ref<EventLoop>) -> PyRes<()> {
    let ident = this.thread_id.get();
    if ident != 0 && ident != crate::ffi::ident() {
        return Err(Raised::runtime_error(
            "Non-thread-safe operation invoked on an event loop other than the current one",
        ));
    }
    Ok(())
}

/// Debug mode refuses coroutines and what cannot be called.
fn check_callback(callback: &Obj, method: &str) -> PyRes<()> {
    let is_function = stdlib::is_coroutine_function()?.call([callback])?.truth()?;
    if is_function || stdlib::iscoroutine()?.call([callback])?.truth()? {
        return Err(Raised::type_error(&format!(
            "coroutines cannot be used with {method}()"
        )));
    }
    if !callback.is_callable() {
        return Err(Raised::type_error(&format!(
            "a callable object was expected by {method}(), got {}",
            callback.repr()?
        )));
    }
    Ok(())
}

/// A future on this loop, whatever `create_future` a subclass has.
fn new_future(this: &Ref<EventLoop>) -> PyRes<Ref<Future>> {
    Ref::<Future>::pending(LoopRef::Native(this.clone()))
}
