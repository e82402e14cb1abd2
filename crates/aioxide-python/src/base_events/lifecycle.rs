//! Making, running, stopping and closing a loop; one turn.

use std::rc::Rc;

use aioxide_engine::{Plan, Scheduler, monotonic_ns};

use crate::clock::{nanoseconds, now};
use crate::events::{EventLoop, Handle, Job, JobBody, count_fork, forks};
use crate::ffi::{
    Args, Builtin, ClassBuilder, GilCell, Kind, Native, Obj, PyRes, Raised, Ref, Slot,
    check_signals, copy_current_context, finally, function, ident, os_error, preserving_exception,
    task_state, warn_resource, without_gil,
};
use crate::tasks::ensure_future;
use crate::{base_subprocess, names, selector_events, stdlib, unix_events};

/// Has this interpreter ever made a loop? The command line tells a program that has not run on one.
static HAS_MADE_LOOPS: GilCell<bool> = GilCell::new(false);

/// Whether any loop was ever made.
pub(super) fn has_made_loops() -> bool {
    HAS_MADE_LOOPS.get()
}

/// `__init__`.
pub(super) fn init_loop(this: &Ref<EventLoop>) -> PyRes<()> {
    if this.initialized.get() {
        return Err(Raised::runtime_error(
            "the event loop is already initialized",
        ));
    }
    let scheduler = Scheduler::new().map_err(|error| os_error(&error))?;
    *this.scheduler.borrow_mut() = Some(Rc::new(scheduler));
    this.initialized.set(true);
    HAS_MADE_LOOPS.set(true);
    this.debug.set(stdlib::is_debug_mode()?.call([])?.truth()?);
    this.asyncgens.set(stdlib::weak_set()?.call([])?);
    this.slow_callback_duration.set(Obj::float(0.1)?);
    this.unix_server_sockets.set(Obj::dict()?);
    crate::tasks::link_registry()?;
    this.find_direct();
    Ok(())
}

/// `__repr__`.
pub(super) fn repr(this: &Ref<EventLoop>) -> String {
    let word = |value: bool| if value { "True" } else { "False" };
    format!(
        "<{} running={} closed={} debug={}>",
        this.obj().class_name(),
        word(this.thread_id.get() != 0),
        word(this.closed.get()),
        word(this.debug.get())
    )
}

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "run_forever(self)",
            "Runs until `stop()` is called.",
            |this, _| run_forever(this),
        )
        .method(
            "run_until_complete(self, future)",
            "Runs until the future is done; returns its result or raises its exception.",
            |this, args| run_until_complete(this, args.req(0)),
        )
        .method(
            "stop(self)",
            "Ends `run_forever` after the current turn.",
            |this, _| {
                this.stopping.set(true);
                Ok(())
            },
        )
        .method("is_running(self)", "Is the loop running?", |this, _| {
            Ok(this.thread_id.get() != 0)
        })
        .method("is_closed(self)", "Was the loop closed?", |this, _| {
            Ok(this.closed.get())
        })
        .method(
            "close(self)",
            "Closes the loop: drops what is queued, does not wait for the executor.",
            |this, _| close(this),
        )
        .method(
            "time(self)",
            "The loop's clock, in seconds: `time.monotonic()`.",
            |_, _| Ok(now()),
        )
        .method("get_debug(self)", "Is debug mode on?", |this, _| {
            Ok(this.debug.get())
        })
        .method(
            "set_debug(self, enabled)",
            "Turns debug mode on or off.",
            set_debug,
        )
        .method(
            "_check_closed(self)",
            "Raises if the loop is closed.",
            |this, _| this.check_closed(),
        )
        .method(
            "_check_running(self)",
            "Raises if this or another loop is running.",
            |this, _| check_running(this),
        )
        .method(
            "_set_coroutine_origin_tracking(self, enabled)",
            "Turns the tracking of where coroutines were made on or off.",
            |this, args| track_origins(this, args.req(0).truth()?),
        )
}

/// Refuses to run while a loop runs here.
fn check_running(this: &Ref<EventLoop>) -> PyRes<()> {
    if this.thread_id.get() != 0 {
        return Err(Raised::runtime_error("This event loop is already running"));
    }
    if crate::events::running_loop()?.is_some() {
        return Err(Raised::runtime_error(
            "Cannot run the event loop while another loop is running",
        ));
    }
    Ok(())
}

/// What `run_forever` changed and has to put back.
struct Setup {
    /// The hooks for async generators.
    agen_hooks: Obj,
    /// The descriptor that signals were written to, if ours is in its place.
    wakeup_fd: Option<Obj>,
}

/// In a forked child, takes the parent's loop over: with a selector and a waker of its own.
fn adopt(this: &Ref<EventLoop>) -> PyRes<()> {
    this.scheduler()?.adopt().map_err(|error| os_error(&error))
}

/// In a child that was forked by a callback of this run, goes on with the run: the loop is the child's own from now on.
fn go_on_in_child(this: &Ref<EventLoop>) -> PyRes<()> {
    adopt(this)?;
    stdlib::set_running_loop()?.call([this.obj()])?;
    wake_on_signals(this).map(drop)
}

/// The same if it leaves the run by an exception, often to end: what the loop does from now on, as the runner has it tidy
/// up, takes nothing from the parent's descriptors, and its tasks are not this process's to cancel.
fn leave_to_parent(this: &Ref<EventLoop>) -> PyRes<()> {
    this.left_to_parent.set(true);
    task_state::forget_registered();
    drop(this.scheduler()?.unregister_all());
    Ok(())
}

/// Prepares the thread for the loop.
fn set_up(this: &Ref<EventLoop>) -> PyRes<Setup> {
    this.check_closed()?;
    check_running(this)?;
    adopt(this)?;
    track_origins(this, this.debug.get())?;
    let agen_hooks = stdlib::get_asyncgen_hooks()?.call([])?;
    this.thread_id.set(ident());
    let hooked = || -> PyRes<Option<Obj>> {
        let first = this.obj().getattr(names::asyncgen_firstiter_hook())?;
        let last = this.obj().getattr(names::asyncgen_finalizer_hook())?;
        stdlib::set_asyncgen_hooks()?.call_kw(
            &[],
            &[(names::firstiter(), &first), (names::finalizer(), &last)],
        )?;
        stdlib::set_running_loop()?.call([this.obj()])?;
        wake_on_signals(this)
    };
    match hooked() {
        Ok(wakeup_fd) => Ok(Setup {
            agen_hooks,
            wakeup_fd,
        }),
        Err(raised) => {
            preserving_exception(|| {
                if let Err(raised) = tear_down(
                    this,
                    &Setup {
                        agen_hooks,
                        wakeup_fd: None,
                    },
                ) {
                    raised.discard();
                }
            });
            Err(raised)
        }
    }
}

/// In the main thread, has the loop woken by every signal; gives the descriptor that was there before.
fn wake_on_signals(this: &Ref<EventLoop>) -> PyRes<Option<Obj>> {
    let main = stdlib::main_thread()?.call([])?.getattr(names::ident())?;
    if main.is_none() || main.as_i64()?.cast_unsigned() != ident() {
        return Ok(None);
    }
    let fd = Obj::int(i64::from(this.scheduler()?.wakeup_fd()))?;
    let no = Obj::bool(false);
    match stdlib::set_wakeup_fd()?.call_kw(&[&fd], &[(names::warn_on_full_buffer(), &no)]) {
        Ok(previous) => {
            SIGNALS_ARE_OURS.set(true);
            *this.signal_balance.borrow_mut() = [0; 65];
            this.wakeup_fd_before
                .set(i32::try_from(previous.as_i64()?).unwrap_or(-1));
            Ok(Some(previous))
        }
        // Not the main interpreter: no signals arrive here.
        Err(raised) if raised.is(Builtin::Value) => {
            raised.discard();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// Puts the thread back as it was. Goes on when a part fails, and raises the first failure.
fn tear_down(this: &Ref<EventLoop>, setup: &Setup) -> PyRes<()> {
    this.stopping.set(false);
    this.thread_id.set(0);
    let steps: [&dyn Fn() -> PyRes<()>; 4] = [
        &|| stdlib::set_running_loop()?.call([&Obj::none()]).map(drop),
        &|| track_origins(this, false),
        &|| {
            let args = setup.agen_hooks.items()?;
            stdlib::set_asyncgen_hooks()?.call_args(&args).map(drop)
        },
        &|| match &setup.wakeup_fd {
            Some(previous) => restore_wakeup_fd(this, previous),
            None => Ok(()),
        },
    ];
    let mut first = Ok(());
    for step in steps {
        let outcome = step();
        match (&first, outcome) {
            (Ok(()), outcome) => first = outcome,
            (Err(_), Err(raised)) => raised.discard(),
            (Err(_), Ok(())) => {}
        }
    }
    first
}

/// Gives signals back to the descriptor from before, unless somebody else has put in another one meanwhile.
fn restore_wakeup_fd(this: &Ref<EventLoop>, previous: &Obj) -> PyRes<()> {
    if !SIGNALS_ARE_OURS.get() {
        // A child that was forked in this run gave it up already.
        return Ok(());
    }
    SIGNALS_ARE_OURS.set(false);
    let found = stdlib::set_wakeup_fd()?.call([previous])?;
    let heard = super::signals::hear_the_last(this);
    this.wakeup_fd_before.set(-1);
    let ours = this
        .scheduler()
        .map_or(-1, |scheduler| i64::from(scheduler.wakeup_fd()));
    if found.as_i64()? != ours && found.as_i64()? != -1 {
        stdlib::set_wakeup_fd()?.call([&found])?;
    }
    heard
}

/// `run_forever`.
fn run_forever(this: &Ref<EventLoop>) -> PyRes<()> {
    let setup = set_up(this)?;
    let outcome = run_turns(this);
    match outcome {
        Ok(()) => tear_down(this, &setup),
        Err(raised) => {
            preserving_exception(|| {
                if let Err(raised) = tear_down(this, &setup) {
                    raised.write_unraisable(Some(this.obj()));
                }
            });
            Err(raised)
        }
    }
}

/// Turns until the loop is stopped or an exception leaves it.
fn run_turns(this: &Ref<EventLoop>) -> PyRes<()> {
    this.scheduler()?.begin_run();
    let mut known = forks();
    loop {
        if forks() != known {
            // A callback forked, and this is the child, which goes on. Often it does not.
            known = forks();
            go_on_in_child(this)?;
        }
        if let Err(raised) = turn(this) {
            if forks() != known {
                leave_to_parent(this)?;
            }
            return Err(raised);
        }
        if this.stopping.get() {
            return Ok(());
        }
    }
}

/// One turn: look at descriptors and timers, then run the jobs that are ready by then.
fn turn(this: &Ref<EventLoop>) -> PyRes<()> {
    let scheduler = this.scheduler()?;
    let failed = Slot::empty();
    let clock = || {
        if this.has_native_clock() {
            return monotonic_ns();
        }
        match this
            .obj()
            .method(names::time(), [])
            .and_then(|time| time.as_f64())
        {
            Ok(time) => nanoseconds(time),
            Err(raised) => {
                failed.set(raised.take());
                0
            }
        }
    };
    match scheduler.plan(clock, this.stopping.get()) {
        Plan::Run {
            check_signals: false,
        } => {}
        Plan::Run {
            check_signals: true,
        } => check_signals()?,
        // Without a clock there is no telling how long to wait.
        Plan::Wait(wait) if failed.is_some() => scheduler.finish(wait, || 0),
        Plan::Wait(mut wait) => {
            let waited = if wait.may_block() {
                without_gil(|| wait.block())
            } else {
                wait.block()
            };
            scheduler.finish(wait, clock);
            super::signals::heard(this, &scheduler.take_wakeup_bytes())?;
            waited.map_err(|error| os_error(&error))?;
            check_signals()?;
        }
    }
    if let Some(exception) = failed.take() {
        return Err(Raised::restore(exception));
    }
    this.in_job.set(true);
    let outcome = run_ready(this, &scheduler);
    this.in_job.set(false);
    outcome
}

/// Runs the jobs that are ready, and after each what it deferred.
fn run_ready(this: &Ref<EventLoop>, scheduler: &Scheduler<Job>) -> PyRes<()> {
    for _ in 0..scheduler.ready_len() {
        let Some(job) = scheduler.pop() else { break };
        let outcome = if this.debug.get() {
            run_timed(this, job.body, job.object)
        } else {
            (job.body)(this, job.object)
        };
        if this.has_deferred.get() {
            finally(outcome, || this.run_deferred())?;
        } else {
            outcome?;
        }
    }
    Ok(())
}

/// Runs a job in debug mode: what takes long and has, or in asyncio would have, a handle is logged.
#[cold]
fn run_timed(this: &Ref<EventLoop>, body: JobBody, object: Obj) -> PyRes<()> {
    let Some(handle) = handle_of(this, body, &object)? else {
        return body(this, object);
    };
    this.current_handle.set(handle.clone());
    let started = now();
    let outcome = body(this, object);
    let took = now() - started;
    this.current_handle.clear();
    outcome?;
    let limit = this.slow_callback_duration.get_or_none();
    if !Obj::float(took)?.less_than(&limit)? {
        let shown = stdlib::format_handle()?.call([&handle])?;
        let text = Obj::str("Executing %s took %.3f seconds")?;
        stdlib::logger()?.method(names::warning(), [&text, &shown, &Obj::float(took)?])?;
    }
    Ok(())
}

/// The handle of a job, one made for the purpose if it is a transport's. None for one that is cancelled, which asyncio
/// would not run.
fn handle_of(this: &Ref<EventLoop>, body: JobBody, object: &Obj) -> PyRes<Option<Obj>> {
    if let Some(handle) = Handle::class().cast(object) {
        return Ok((!handle.is_cancelled()).then(|| object.clone()));
    }
    let method = selector_events::ready_method(body)
        .or_else(|| unix_events::ready_method(body))
        .or_else(|| base_subprocess::ready_method(body));
    let Some(method) = method else {
        return Ok(None);
    };
    let callback = object.getattr(method)?;
    let context = copy_current_context()?;
    let handle = Ref::new(Handle::payload(&callback, &[], context, this.obj())?)?;
    Ok(Some(handle.into_obj()))
}

/// `run_until_complete`.
fn run_until_complete(this: &Ref<EventLoop>, future: &Obj) -> PyRes {
    this.check_closed()?;
    check_running(this)?;
    let new_task = !crate::futures::is_future(future)?;
    let future = ensure_future(future, Some(this.obj()))?;
    if new_task {
        // If it stays pending, the caller hears so from the exception below.
        future.setattr(names::log_destroy_pending(), &Obj::bool(false))?;
    }
    let callback = stdlib::run_until_complete_cb()?;
    future.method(names::add_done_callback(), [callback])?;
    // Python-visible, for subclasses that override it.
    let outcome = this.obj().method(names::run_forever(), []);
    let failed = outcome.is_err();
    let cleaned = || -> PyRes<()> {
        if failed
            && new_task
            && future.method(names::done(), [])?.truth()?
            && !future.method(names::cancelled(), [])?.truth()?
        {
            // The coroutine raised something that left the loop: nobody else will retrieve it.
            future.method(names::exception(), [])?;
        }
        future
            .method(names::remove_done_callback(), [callback])
            .map(drop)
    };
    match outcome {
        Ok(_) => cleaned()?,
        Err(raised) => {
            preserving_exception(|| {
                if let Err(raised) = cleaned() {
                    raised.write_unraisable(Some(this.obj()));
                }
            });
            return Err(raised);
        }
    }
    if !future.method(names::done(), [])?.truth()? {
        return Err(Raised::runtime_error(
            "Event loop stopped before Future completed.",
        ));
    }
    future.method(names::result(), [])
}

/// `close`.
fn close(this: &Ref<EventLoop>) -> PyRes<()> {
    if this.thread_id.get() != 0 {
        return Err(Raised::runtime_error("Cannot close a running event loop"));
    }
    if this.closed.get() {
        return Ok(());
    }
    if this.debug.get() {
        stdlib::logger()?.method(names::debug(), [&Obj::str("Close %r")?, this.obj()])?;
    }
    this.closed.set(true);
    this.find_direct();
    let scheduler = this.scheduler.borrow_mut().take();
    if let Some(scheduler) = scheduler {
        drop(scheduler.clear());
    }
    let watched = std::mem::take(&mut *this.descriptors.borrow_mut());
    drop(watched);
    this.executor_shutdown_called.set(true);
    if let Some(executor) = this.default_executor.take() {
        executor.method_kw(
            names::shutdown(),
            &[],
            &[(names::wait(), &Obj::bool(false))],
        )?;
    }
    super::resolver::close(this)?;
    super::signals::remove_all(this)
}

/// What happens to a loop that nobody closed.
pub(crate) fn finalize(this: &Ref<EventLoop>) -> PyRes<()> {
    let warned = warn_resource(
        this.obj(),
        &format!("unclosed event loop {}", this.obj().repr()?),
        1,
    );
    if this.thread_id.get() == 0 {
        match warned {
            Ok(()) => this.obj().method(names::close(), [])?,
            Err(raised) => {
                preserving_exception(|| {
                    if let Err(raised) = this.obj().method(names::close(), []) {
                        raised.write_unraisable(None);
                    }
                });
                return Err(raised);
            }
        };
        return Ok(());
    }
    warned
}

/// `set_debug`.
fn set_debug(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<()> {
    this.debug.set(args.req(0).truth()?);
    this.find_direct();
    if this.thread_id.get() != 0 {
        let track = this.obj().getattr_str("_set_coroutine_origin_tracking")?;
        this.obj()
            .method(names::call_soon_threadsafe(), [&track, args.req(0)])?;
    }
    Ok(())
}

/// Turns origin tracking on or off and remembers the depth from before.
fn track_origins(this: &Ref<EventLoop>, enabled: bool) -> PyRes<()> {
    if enabled == this.saved_origin_depth.get().is_some() {
        return Ok(());
    }
    if enabled {
        let depth = stdlib::get_origin_depth()?.call([])?.as_i64()?;
        this.saved_origin_depth.set(Some(depth));
        stdlib::set_origin_depth()?.call([stdlib::debug_stack_depth()?])?;
    } else if let Some(depth) = this.saved_origin_depth.take() {
        stdlib::set_origin_depth()?.call([&Obj::int(depth)?])?;
    }
    Ok(())
}

/// Has forked children give up the wakeup descriptor, which belongs to the parent's loop.
pub(super) fn watch_forks() -> PyRes<()> {
    let (_, after) = function(
        Kind::Builtin,
        "aioxide._aioxide",
        "_after_fork_in_child()",
        "Gives up the signal wakeup descriptor that was inherited from a running loop.",
        |_| after_fork_in_child(),
    )?;
    let (_, before) = function(
        Kind::Builtin,
        "aioxide._aioxide",
        "_before_fork()",
        "Sends what the current callback wrote, which must not be sent twice.",
        |_| before_fork(),
    )?;
    let (_, parent) = function(
        Kind::Builtin,
        "aioxide._aioxide",
        "_after_fork_in_parent()",
        "Goes on with the current callback.",
        |_| after_fork_in_parent(),
    )?;
    let register = Obj::import("os")?.getattr_str("register_at_fork")?;
    register
        .call_kw(
            &[],
            &[
                (&Obj::str("before")?, &before),
                (&Obj::str("after_in_parent")?, &parent),
                (&Obj::str("after_in_child")?, &after),
            ],
        )
        .map(drop)
}

/// The native loop that runs in this thread.
fn running_here() -> PyRes<Option<Ref<EventLoop>>> {
    let running = crate::events::running_loop()?;
    Ok(running.and_then(|running| EventLoop::class().cast(&running).cloned()))
}

/// Does now what the current job has left for its end, and what TLS has made and not sent, since both processes would do
/// it. In the child nothing is left for the end any more: it may never come.
fn before_fork() -> PyRes<()> {
    let Some(loop_) = running_here()? else {
        return Ok(());
    };
    loop_.forked_in_job.set(loop_.in_job.replace(false));
    let sent = loop_.run_deferred();
    finally(sent, || selector_events::send_before_fork(&loop_))
}

/// In the parent the job goes on.
fn after_fork_in_parent() -> PyRes<()> {
    if let Some(loop_) = running_here()? {
        loop_.in_job.set(loop_.forked_in_job.replace(false));
    }
    Ok(())
}

/// In the child: no loop is running, and signals must not be written to the parent's socket.
fn after_fork_in_child() -> PyRes<()> {
    count_fork();
    if SIGNALS_ARE_OURS.get() {
        SIGNALS_ARE_OURS.set(false);
        stdlib::set_wakeup_fd()?.call([&Obj::int(-1)?])?;
    }
    stdlib::set_running_loop()?.call([&Obj::none()]).map(drop)
}

/// Are signals written to the socket of this loop, as long as it runs?
pub(super) fn hears_signals(this: &Ref<EventLoop>) -> bool {
    SIGNALS_ARE_OURS.get() && this.thread_id.get() != 0
}

/// Are signals written to the socket of one of our loops right now?
static SIGNALS_ARE_OURS: GilCell<bool> = GilCell::new(false);
