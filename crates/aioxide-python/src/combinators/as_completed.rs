//! `as_completed`: an object that is both a plain and an asynchronous iterator.
//!
//! Finished futures go into a queue; whoever asks for one waits in line for it. A timeout puts one "nothing" into the
//! queue for each future that is not done. Invariant: `left` counts the items that nobody has asked for yet.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;

use crate::coroutines::{Coroutine, coroutine};
use crate::events::{EventLoop, get_event_loop, get_running_loop};
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, preserving_exception, task_state,
};
use crate::futures::{Observer, is_future, observe_any, unobserve_any};
use crate::mixins::LoopBound;
use crate::stdlib;
use crate::tasks::{cancel_any, current_task, ensure_future};
use crate::waiter::{Waiter, is_cancelled, is_done, result_of, set_result};

use super::timer::{Alarm, Timer};

/// What `as_completed` returns.
struct AsCompleted {
    /// The arguments until it begins. CPython: up to 3.12 it is a generator, which begins when it is first iterated.
    given: Cell<Option<(Obj, Option<Obj>)>>,
    /// The futures that are not done: a set.
    todo: Slot,
    /// How many items nobody has asked for.
    left: Cell<usize>,
    /// Futures that are done, or nothing for one that was not done in time.
    done: RefCell<VecDeque<Option<Obj>>>,
    /// Futures that are finished when there is something to get.
    getters: RefCell<VecDeque<Obj>>,
    /// The loop of the getters.
    loop_: LoopBound,
    /// The timeout, if there is one.
    timer: Cell<Option<Timer>>,
    /// The task that made it, where futures know who waits for them.
    task: Slot,
}

/// Where the class is kept.
static CLASS: Class<AsCompleted> = Class::new();

impl Native for AsCompleted {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            given: Cell::new(None),
            todo: Slot::empty(),
            left: Cell::new(0),
            done: RefCell::default(),
            getters: RefCell::default(),
            loop_: LoopBound::new(),
            timer: Cell::new(None),
            task: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        let given = self.given.take();
        if let Some((fs, timeout)) = &given {
            visit.obj(fs);
            if let Some(timeout) = timeout {
                visit.obj(timeout);
            }
        }
        self.given.set(given);
        visit.slot(&self.todo);
        visit.slot(&self.task);
        self.loop_.traverse(visit);
        if let Ok(done) = self.done.try_borrow() {
            done.iter().flatten().for_each(|future| visit.obj(future));
        }
        if let Ok(getters) = self.getters.try_borrow() {
            getters.iter().for_each(|getter| visit.obj(getter));
        }
        let timer = self.timer.take();
        if let Some(timer) = &timer {
            timer.traverse(visit);
        }
        self.timer.set(timer);
    }

    fn clear(&self) {
        self.todo.clear();
        self.task.clear();
        self.loop_.clear();
        let done = self
            .done
            .try_borrow_mut()
            .map(|mut done| mem::take(&mut *done))
            .ok();
        let getters = self
            .getters
            .try_borrow_mut()
            .map(|mut getters| mem::take(&mut *getters))
            .ok();
        drop((done, getters, self.timer.take(), self.given.take()));
    }
}

/// Called by each future that is done.
static COMPLETED: Observer = Observer {
    body: |owner, future| {
        CLASS
            .cast(owner)
            .map_or(Ok(()), |this| this.completed(future))
    },
    qualname: "_AsCompletedIterator._handle_completion",
};

/// Called by the timeout.
static TIME_IS_UP: Alarm = Alarm {
    body: |owner| CLASS.cast(owner).map_or(Ok(()), Ref::time_is_up),
    qualname: "_AsCompletedIterator._handle_timeout",
};

/// The job of a native timeout.
fn time_is_up(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    TIME_IS_UP.ring(loop_, &object)
}

impl AsCompleted {
    /// Puts an item into the queue and calls the next in line.
    fn put(&self, item: Option<Obj>) -> PyRes<()> {
        self.done.borrow_mut().push_back(item);
        self.call_next()
    }

    /// Finishes the first getter that is still waiting.
    fn call_next(&self) -> PyRes<()> {
        loop {
            let getter = self.getters.borrow_mut().pop_front();
            let Some(getter) = getter else { return Ok(()) };
            if !is_done(&getter)? {
                return set_result(&getter, Obj::none());
            }
        }
    }

    /// Takes a getter out of the line.
    fn leave_line(&self, getter: &Obj) {
        let mut getters = self.getters.borrow_mut();
        let place = getters.iter().position(|waiting| waiting.is(getter));
        let gone = place.and_then(|place| getters.remove(place));
        drop(getters);
        drop(gone);
    }

    /// Takes the task out of what a future knows.
    fn forget(&self, future: &Obj) -> PyRes<()> {
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            return task_state::discard_awaited_by(future, &task);
        }
        Ok(())
    }

    /// A future is done.
    fn completed(&self, future: &Obj) -> PyRes<()> {
        let Some(todo) = self.todo.get() else {
            return Ok(());
        };
        if todo.len()? == 0 {
            // The timeout was here first.
            return Ok(());
        }
        todo.set_discard(future)?;
        self.forget(future)?;
        self.put(Some(future.clone()))?;
        if todo.len()? == 0
            && let Some(timer) = self.timer.take()
        {
            timer.cancel()?;
        }
        Ok(())
    }
}

impl Ref<AsCompleted> {
    /// The futures that are not done are given up.
    fn time_is_up(&self) -> PyRes<()> {
        drop(self.timer.take());
        let Some(todo) = self.todo.get() else {
            return Ok(());
        };
        for future in todo.items()? {
            unobserve_any(&future, &COMPLETED, self.obj())?;
            self.forget(&future)?;
            self.put(None)?;
        }
        self.todo.set(Obj::set()?);
        Ok(())
    }

    /// Begins, unless it has begun.
    fn begin(&self) -> PyRes<()> {
        self.given
            .take()
            .map_or(Ok(()), |(fs, timeout)| self.watch(&fs, timeout.as_ref()))
    }

    /// Begins to watch everything in `fs`.
    fn watch(&self, fs: &Obj, timeout: Option<&Obj>) -> PyRes<()> {
        if is_future(fs)? || stdlib::isawaitable()?.call([fs])?.truth()? {
            let expected = if cfg!(Py_3_13) {
                "expects an iterable of awaitables"
            } else {
                "expect an iterable of futures"
            };
            return Err(Raised::type_error(&format!(
                "{expected}, not {}",
                fs.class_name()
            )));
        }
        let loop_ = get_event_loop()?;
        if cfg!(Py_3_14)
            && let Some(task) = current_task(&get_running_loop()?)?
        {
            self.task.set(task);
        }
        let todo = Obj::set()?;
        for awaitable in Obj::set_of(fs)?.items()? {
            todo.set_add(&ensure_future(&awaitable, Some(&loop_))?)?;
        }
        let futures = todo.items()?;
        self.todo.set(todo);
        self.left.set(futures.len());
        for future in &futures {
            observe_any(future, &COMPLETED, self.obj())?;
            if cfg!(Py_3_14)
                && let Some(task) = self.task.get()
            {
                task_state::add_awaited_by(future, &task)?;
            }
        }
        if let Some(timeout) = timeout.filter(|_| !futures.is_empty()) {
            self.timer.set(Some(
                match Timer::native(&loop_, timeout, time_is_up, self.obj())? {
                    Some(timer) => timer,
                    None => {
                        Timer::visible(&loop_, timeout, TIME_IS_UP.callback(self.obj())?.obj())?
                    }
                },
            ));
        }
        Ok(())
    }

    /// Claims one item. `None` says that all are claimed.
    fn claim(&self) -> Option<()> {
        self.left.set(self.left.get().checked_sub(1)?);
        Some(())
    }
}

/// What becomes of an item that was got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deliver {
    /// The future itself.
    Future,
    /// Its outcome.
    Outcome,
}

/// The coroutine that waits for one item.
struct One {
    /// The iterator.
    owner: Ref<AsCompleted>,
    /// What to return.
    deliver: Deliver,
    /// Is the item claimed?
    claimed: bool,
    /// What is waited for.
    getter: Option<Waiter>,
}

impl One {
    /// Gets an item, or waits in line for one.
    fn get(&mut self) -> PyRes<Sent> {
        loop {
            let item = self.owner.done.borrow_mut().pop_front();
            if let Some(item) = item {
                return self.hand_over(item);
            }
            let waiting = self
                .owner
                .loop_
                .get(self.owner.obj())
                .and_then(|loop_| Waiter::create(&loop_));
            let mut getter = match waiting {
                Ok(getter) => getter,
                Err(raised) => return Err(self.give_back(raised)),
            };
            self.owner
                .getters
                .borrow_mut()
                .push_back(getter.future().clone());
            let sent = getter.start();
            if let Some(sent) = self.waited(sent, getter)? {
                return Ok(sent);
            }
        }
    }

    /// The claim is given back.
    fn give_back(&self, raised: Raised) -> Raised {
        self.owner.left.set(self.owner.left.get() + 1);
        raised
    }

    /// Waits on, or leaves the line with an error; `None` says that there may be something to get.
    fn waited(&mut self, sent: PyRes<Sent>, getter: Waiter) -> PyRes<Option<Sent>> {
        match sent {
            Ok(Sent::Yield(awaited)) => {
                self.getter = Some(getter);
                Ok(Some(Sent::Yield(awaited)))
            }
            Ok(Sent::Return(_)) => Ok(None),
            Err(raised) => {
                let future = getter.future();
                preserving_exception(|| {
                    let leave = || -> PyRes<()> {
                        cancel_any(future, None)?;
                        self.owner.leave_line(future);
                        if !self.owner.done.borrow().is_empty() && !is_cancelled(future)? {
                            // It was called and does not come: the next one shall.
                            self.owner.call_next()?;
                        }
                        Ok(())
                    };
                    if let Err(raised) = leave() {
                        raised.discard();
                    }
                });
                Err(self.give_back(raised))
            }
        }
    }

    /// Returns what was got.
    fn hand_over(&self, item: Option<Obj>) -> PyRes<Sent> {
        let Some(future) = item else {
            return Err(Builtin::Timeout.raise_bare());
        };
        match self.deliver {
            Deliver::Future => Ok(Sent::Return(future)),
            Deliver::Outcome => result_of(&future).map(Sent::Return),
        }
    }
}

impl Machine for One {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(mut getter) = self.getter.take() {
            let sent = getter.resume(input);
            return match self.waited(sent, getter)? {
                Some(sent) => Ok(sent),
                None => self.get(),
            };
        }
        if !self.claimed {
            if self.owner.claim().is_none() {
                return Err(Builtin::StopAsyncIteration.raise_bare());
            }
            self.claimed = true;
        }
        self.get()
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.owner);
        if let Some(getter) = &self.getter {
            getter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.getter.as_ref().map(|getter| getter.future().clone())
    }
}

/// `as_completed(fs, *, timeout=None)`.
pub(super) fn as_completed(args: &Args<'_>) -> PyRes {
    let this = Ref::new(AsCompleted {
        given: Cell::new(Some((args.req(0).clone(), args.some(1).cloned()))),
        ..AsCompleted::empty()
    })?;
    if cfg!(Py_3_13) {
        this.begin()?;
    }
    Ok(this.into_obj())
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<AsCompleted>::new(
        super::MODULE,
        "_AsCompletedIterator",
        "What `as_completed()` returns: futures for `async for`, coroutines for `for`.",
    )
    .sealed()
    .iterated(|this| Ok(this.obj().clone()))
    .aiter(|this| Ok(this.obj().clone()))
    .next(|this| {
        this.begin()?;
        if this.claim().is_none() {
            return Ok(None);
        }
        let one = One {
            owner: this.clone(),
            deliver: Deliver::Outcome,
            claimed: true,
            getter: None,
        };
        coroutine("_AsCompletedIterator._wait_for_one", one)
            .map(|one: Ref<Coroutine>| Some(one.into_obj()))
    })
    .anext(|this| {
        this.begin()?;
        let one = One {
            owner: this.clone(),
            deliver: Deliver::Future,
            claimed: false,
            getter: None,
        };
        coroutine("_AsCompletedIterator.__anext__", one).map(Ref::into_obj)
    })
    .build()
    .map(drop)
}
