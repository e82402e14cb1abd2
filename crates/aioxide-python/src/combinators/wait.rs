//! `wait`: until the first, the first failed, or all of several futures are done.
//!
//! One [`Watch`] is the owner of the observers of all the futures. It counts, and finishes the waiter.

use std::cell::Cell;
use std::mem;

use crate::coroutines::{Coroutine, coroutine};
use crate::events::{EventLoop, get_running_loop};
use crate::ffi::{
    Args, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    task_state,
};
use crate::futures::{Observer, exact_or_task, is_future, observe_any, unobserve_any};
use crate::tasks::current_task;
use crate::waiter::{Waiter, exception_of, is_cancelled, is_done, set_result};
use crate::{names, stdlib};

use super::finally;
use super::timer::{Timer, report};

/// `wait(fs, *, timeout=None, return_when=ALL_COMPLETED)`.
pub(super) fn wait(args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let machine = Wait::Start {
        fs: args.req(0).clone(),
        timeout: args.some(1).cloned(),
        return_when: args.get(2).cloned(),
    };
    coroutine("wait", machine)
}

/// When the wait is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// When all are done.
    All,
    /// When one is done.
    First,
    /// When one has failed, or all are done.
    FirstFailed,
}

/// `return_when` as a value.
fn until(return_when: Option<&Obj>) -> PyRes<Until> {
    let Some(given) = return_when else {
        return Ok(Until::All);
    };
    for (name, value) in [
        (stdlib::first_completed()?, Until::First),
        (stdlib::first_exception()?, Until::FirstFailed),
        (stdlib::all_completed()?, Until::All),
    ] {
        if given.equals(name)? {
            return Ok(value);
        }
    }
    Err(Raised::value_error(&format!(
        "Invalid return_when value: {}",
        given.to_str()?.text()?
    )))
}

/// What the observers of one wait share.
struct Watch {
    /// How many futures are not done.
    left: Cell<usize>,
    /// When the wait is over.
    until: Cell<Until>,
    /// What the waiting task waits for.
    waiter: Slot,
    /// The timeout, if there is one.
    timer: Cell<Option<Timer>>,
    /// The waiting task, where futures know who waits for them.
    task: Slot,
}

/// Where the class is kept.
static WATCH: Class<Watch> = Class::new();

impl Native for Watch {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &WATCH
    }

    fn empty() -> Self {
        Self {
            left: Cell::new(0),
            until: Cell::new(Until::All),
            waiter: Slot::empty(),
            timer: Cell::new(None),
            task: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.waiter);
        visit.slot(&self.task);
        let timer = self.timer.take();
        if let Some(timer) = &timer {
            timer.traverse(visit);
        }
        self.timer.set(timer);
    }

    fn clear(&self) {
        self.waiter.clear();
        self.task.clear();
        drop(self.timer.take());
    }
}

impl Watch {
    /// Cancels the timeout.
    fn cancel_timer(&self) -> PyRes<()> {
        self.timer
            .take()
            .map_or(Ok(()), |timer| timer.cancel().map(drop))
    }

    /// Finishes the waiter.
    fn release(&self) -> PyRes<()> {
        match self.waiter.get() {
            Some(waiter) if !is_done(&waiter)? => set_result(&waiter, Obj::none()),
            _ => Ok(()),
        }
    }

    /// One future is done.
    fn completed(&self, future: &Obj) -> PyRes<()> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        let over = left == 0
            || match self.until.get() {
                Until::All => false,
                Until::First => true,
                Until::FirstFailed => !is_cancelled(future)? && exception_of(future)?.is_some(),
            };
        if over {
            self.cancel_timer()?;
            self.release()?;
        }
        self.forget(future)
    }

    /// Takes the waiting task out of what the future knows.
    #[inline]
    fn forget(&self, future: &Obj) -> PyRes<()> {
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            return task_state::discard_awaited_by(future, &task);
        }
        Ok(())
    }

    /// Tells the future who waits.
    #[inline]
    fn remember(&self, future: &Obj) -> PyRes<()> {
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            return task_state::add_awaited_by(future, &task);
        }
        Ok(())
    }
}

/// Called by each future that is done.
static COMPLETED: Observer = Observer {
    body: |owner, future| {
        WATCH
            .cast(owner)
            .map_or(Ok(()), |watch| watch.completed(future))
    },
    qualname: "_wait.<locals>._on_completion",
};

/// The job of a native timeout.
fn time_is_up(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(watch) = WATCH.cast(&object) else {
        return Ok(());
    };
    drop(watch.timer.take());
    match watch.release() {
        Ok(()) => Ok(()),
        Err(raised) => report(loop_, raised, stdlib::release_waiter()?),
    }
}

/// Where a wait is.
enum Wait {
    /// Not begun.
    Start {
        /// The futures.
        fs: Obj,
        /// How long to wait at most.
        timeout: Option<Obj>,
        /// Until when.
        return_when: Option<Obj>,
    },
    /// It waits.
    Waiting {
        /// The futures, each once.
        fs: Vec<Obj>,
        /// The owner of their observers.
        watch: Ref<Watch>,
        /// What is waited for.
        waiter: Waiter,
    },
    /// Finished.
    Over,
}

/// The futures to wait for, each once.
fn futures_of(fs: &Obj) -> PyRes<Vec<Obj>> {
    let futures = Obj::set_of(fs)?.items()?;
    for future in &futures {
        if exact_or_task(future).is_none() && stdlib::iscoroutine()?.call([future])?.truth()? {
            return Err(Raised::type_error(
                "Passing coroutines is forbidden, use tasks explicitly.",
            ));
        }
    }
    Ok(futures)
}

impl Wait {
    /// Everything up to the wait.
    fn start(&mut self, fs: &Obj, timeout: Option<&Obj>, return_when: Option<&Obj>) -> PyRes<Sent> {
        if is_future(fs)? || stdlib::iscoroutine()?.call([fs])?.truth()? {
            return Err(Raised::type_error(&format!(
                "expect a list of futures, not {}",
                fs.class_name()
            )));
        }
        if !fs.truth()? {
            return Err(Raised::value_error("Set of Tasks/Futures is empty."));
        }
        let until = until(return_when)?;
        let fs = futures_of(fs)?;
        let loop_ = get_running_loop()?;
        if fs.is_empty() {
            return Err(crate::ffi::Builtin::Assertion.raise("Set of Futures is empty."));
        }
        let mut waiter = Waiter::create(&loop_)?;
        let watch = Ref::new(Watch {
            left: Cell::new(fs.len()),
            until: Cell::new(until),
            waiter: Slot::new(waiter.future().clone()),
            ..Watch::empty()
        })?;
        if let Some(timeout) = timeout {
            watch.timer.set(Some(
                if let Some(timer) = Timer::native(&loop_, timeout, time_is_up, watch.obj())? {
                    timer
                } else {
                    let callback = stdlib::release_waiter()?;
                    Timer::Handle(
                        loop_.method(names::call_later(), [timeout, callback, waiter.future()])?,
                    )
                },
            ));
        }
        if cfg!(Py_3_14)
            && let Some(task) = current_task(&loop_)?
        {
            watch.task.set(task);
        }
        for future in &fs {
            observe_any(future, &COMPLETED, watch.obj())?;
            watch.remember(future)?;
        }
        let sent = waiter.start();
        self.waited(sent, fs, watch, waiter)
    }

    /// Waits on, or ends.
    fn waited(
        &mut self,
        sent: PyRes<Sent>,
        fs: Vec<Obj>,
        watch: Ref<Watch>,
        waiter: Waiter,
    ) -> PyRes<Sent> {
        if matches!(sent, Ok(Sent::Yield(_))) {
            *self = Self::Waiting { fs, watch, waiter };
            return sent;
        }
        finally(sent, || {
            watch.cancel_timer()?;
            for future in &fs {
                unobserve_any(future, &COMPLETED, watch.obj())?;
                watch.forget(future)?;
            }
            Ok(())
        })?;
        let (done, pending) = (Obj::set()?, Obj::set()?);
        for future in &fs {
            if is_done(future)? { &done } else { &pending }.set_add(future)?;
        }
        Obj::tuple([done, pending]).map(Sent::Return)
    }
}

impl Machine for Wait {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(self, Self::Over) {
            Self::Start {
                fs,
                timeout,
                return_when,
            } => self.start(&fs, timeout.as_ref(), return_when.as_ref()),
            Self::Waiting {
                fs,
                watch,
                mut waiter,
            } => {
                let sent = waiter.resume(input);
                self.waited(sent, fs, watch, waiter)
            }
            Self::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start {
                fs,
                timeout,
                return_when,
            } => {
                visit.obj(fs);
                timeout
                    .iter()
                    .chain(return_when)
                    .for_each(|given| visit.obj(given));
            }
            Self::Waiting { fs, watch, waiter } => {
                for future in fs {
                    visit.obj(future);
                }
                visit.native(watch);
                waiter.traverse(visit);
            }
            Self::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Waiting { waiter, .. } => Some(waiter.future().clone()),
            _ => None,
        }
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Watch>::new(
        "aioxide",
        "wait_state",
        "What the futures of one `wait()` call back.",
    )
    .sealed()
    .build()
    .map(drop)
}
