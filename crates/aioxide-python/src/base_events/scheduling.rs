//! `call_soon` and its relatives, futures, tasks.

use crate::clock::{nanoseconds, now};
use crate::events::{
    EventLoop, Handle, Job, JobBody, ThreadSafeHandle, TimerHandle, run_handle, run_thread_safe,
    run_timer,
};
use crate::ffi::{Args, ClassBuilder, Native, Obj, PyRes, Raised, Ref};
use crate::names;
use crate::tasks::{Task, TaskOptions};

use super::{check_callback, check_thread, context_argument, new_future};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "call_soon(self, callback, *args, context=None)",
            "Calls `callback(*args)` in the next turn, in `context`. Returns a `Handle`.",
            call_soon,
        )
        .method(
            "call_soon_threadsafe(self, callback, *args, context=None)",
            "`call_soon` for other threads and for signal handlers.",
            call_soon_threadsafe,
        )
        .method(
            "call_later(self, delay, callback, *args, context=None)",
            "Calls `callback(*args)` after `delay` seconds. Returns a `TimerHandle`.",
            call_later,
        )
        .method(
            "call_at(self, when, callback, *args, context=None)",
            "Calls `callback(*args)` at `when`, in seconds of `time()`. Returns a `TimerHandle`.",
            call_at,
        )
        .method(
            "_timer_handle_cancelled(self, handle)",
            "Notes that a timer handle was cancelled.",
            |_, _| Ok(()),
        )
        .method(
            "create_future(self)",
            "A `Future` of this loop.",
            |this, _| new_future(this),
        )
        .method(
            "create_task(self, coro, **kwargs)",
            "Runs a coroutine as a `Task`, made by the task factory if there is one.",
            create_task,
        )
        .method(
            "set_task_factory(self, factory)",
            "Has tasks made by `factory(loop, coro, **kwargs)`.",
            |this, args| {
                let factory = args.req(0);
                if !factory.is_none() && !factory.is_callable() {
                    return Err(Raised::type_error(
                        "task factory must be a callable or None",
                    ));
                }
                drop(this.task_factory.replace(args.some(0).cloned()));
                Ok(())
            },
        )
        .method(
            "get_task_factory(self)",
            "The task factory, or `None`.",
            |this, _| Ok(this.task_factory.get()),
        )
}

/// The checks of debug mode.
#[inline]
fn check(this: &Ref<EventLoop>, callback: &Obj, method: &str, own_thread: bool) -> PyRes<()> {
    this.check_closed()?;
    if this.debug.get() {
        if own_thread {
            check_thread(this)?;
        }
        check_callback(callback, method)?;
    }
    Ok(())
}

/// Makes a handle, with its source in debug mode.
#[inline]
fn new_handle(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Handle>> {
    let context = context_argument(args, 1)?;
    let handle = Ref::new(Handle::payload(
        args.req(0),
        args.rest(),
        context,
        this.obj(),
    )?)?;
    if this.debug.get() {
        handle.record_source()?;
    }
    Ok(handle)
}

/// `call_soon`.
fn call_soon(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Handle>> {
    check(this, args.req(0), "call_soon", true)?;
    let handle = new_handle(this, args)?;
    this.push(run_handle, handle.obj().clone());
    Ok(handle)
}

/// `call_soon_threadsafe`. Signal handlers call it in the loop's own thread while it is about to wait, so that the
/// loop is woken for them too.
fn call_soon_threadsafe(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    check(this, args.req(0), "call_soon_threadsafe", false)?;
    let (handle, body) = if cfg!(Py_3_14) {
        let context = context_argument(args, 1)?;
        let handle = Ref::new(ThreadSafeHandle::payload(
            args.req(0),
            args.rest(),
            context,
            this.obj(),
        )?)?;
        if this.debug.get() {
            handle.upcast::<Handle>().record_source()?;
        }
        (handle.into_obj(), run_thread_safe as JobBody)
    } else {
        (new_handle(this, args)?.into_obj(), run_handle as JobBody)
    };
    this.push_threadsafe(body, handle.clone())?;
    Ok(handle)
}

/// `call_later`.
fn call_later(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    let delay = args.req(0);
    if delay.is_none() {
        return Err(Raised::type_error("delay must not be None"));
    }
    if this.is_direct() && (delay.is_exact_float() || delay.is_int()) {
        let seconds = now() + delay.as_f64()?;
        return schedule(
            this,
            None,
            seconds,
            args.req(1),
            args.rest(),
            context_argument(args, 2)?,
        )
        .map(Ref::into_obj);
    }
    let when = this.obj().method(names::time(), [])?.add(delay)?;
    let mut all = vec![&when, args.req(1)];
    all.extend(args.rest());
    match args.some(2) {
        Some(context) => {
            this.obj()
                .method_kw(names::call_at(), &all, &[(names::context(), context)])
        }
        None => this.obj().method_kw(names::call_at(), &all, &[]),
    }
}

/// `call_at`.
fn call_at(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<TimerHandle>> {
    let when = args.req(0);
    if when.is_none() {
        return Err(Raised::type_error("when cannot be None"));
    }
    check(this, args.req(1), "call_at", true)?;
    let seconds = when.as_f64()?;
    let handle = schedule(
        this,
        Some(when.clone()),
        seconds,
        args.req(1),
        args.rest(),
        context_argument(args, 2)?,
    )?;
    if this.debug.get() {
        handle.upcast::<Handle>().record_source()?;
    }
    Ok(handle)
}

/// Makes a timer handle and puts it among the timers.
fn schedule(
    this: &Ref<EventLoop>,
    when: Option<Obj>,
    seconds: f64,
    callback: &Obj,
    args: &[Obj],
    context: Obj,
) -> PyRes<Ref<TimerHandle>> {
    let handle = Ref::new(TimerHandle::payload(
        when,
        seconds,
        callback,
        args,
        context,
        this.obj(),
    )?)?;
    let job = Job {
        body: run_timer,
        object: handle.obj().clone(),
    };
    handle.scheduled_as(this.scheduler()?.add_timer(nanoseconds(seconds), job));
    Ok(handle)
}

/// `create_task`.
fn create_task(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    this.check_closed()?;
    let coro = args.req(0);
    if let Some(factory) = this.task_factory.get() {
        return call_factory(this, &factory, coro, args.keywords());
    }
    match args.keywords() {
        None if this.is_direct() => {
            Ref::<Task>::spawn(this, coro, &TaskOptions::default()).map(Ref::into_obj)
        }
        keywords => {
            let mut pairs = vec![(names::loop_().clone(), this.obj().clone())];
            if let Some(keywords) = keywords {
                for name in keywords.items()? {
                    if name.equals(names::loop_())? {
                        return Err(Raised::type_error(
                            "_asyncio.Task() got multiple values for keyword argument 'loop'",
                        ));
                    }
                    let value = keywords.item(&name)?;
                    pairs.push((name, value));
                }
            }
            let pairs: Vec<(&Obj, &Obj)> =
                pairs.iter().map(|(name, value)| (name, value)).collect();
            Task::class().object().call_kw(&[coro], &pairs)
        }
    }
}

/// Has the task factory make a task. From 3.14 on it gets every keyword; before, a name is set afterwards and a missing
/// context is left out, so that factories of two arguments work.
fn call_factory(this: &Ref<EventLoop>, factory: &Obj, coro: &Obj, keywords: Option<&Obj>) -> PyRes {
    let mut pairs = Vec::new();
    let mut name = None;
    if let Some(keywords) = keywords {
        for key in keywords.items()? {
            let value = keywords.item(&key)?;
            if !cfg!(Py_3_14) && key.equals(names::name())? {
                name = Some(value);
            } else if cfg!(Py_3_14) || !(value.is_none() && key.equals(names::context())?) {
                pairs.push((key, value));
            }
        }
    }
    let pairs: Vec<(&Obj, &Obj)> = pairs.iter().map(|(key, value)| (key, value)).collect();
    let task = factory.call_kw(&[this.obj(), coro], &pairs)?;
    if let Some(name) = name.filter(|name| !name.is_none())
        && let Some(set_name) = task.getattr_opt(names::set_name())?
    {
        set_name.call([&name])?;
    }
    Ok(task)
}
