//! Races with staggered starts. Answers `asyncio/staggered.py`.
//!
//! A race is a chain of tasks. Each one waits until it may start and until the one before it has failed or its head
//! start is over, takes the next function, starts its successor, and runs. All share one [`Race`].

use std::cell::{Cell, RefCell};
use std::mem;

use crate::combinators::WaitFor;
use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::get_running_loop;
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Kind, Machine, Native, Obj, PyRes, Raised, Ref, Resume,
    Sent, Slot, Visit, add_to_module, function, task_state,
};
use crate::futures::{Observer, observe_any};
use crate::tasks::{Task, create_task_on, current_task};
use crate::waiter::{Waiter, create_future, exception_of, is_cancelled, is_done, set_result};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["staggered_race"];

/// Something that happens once, and that one coroutine may wait for.
struct Flag {
    /// Has it happened?
    raised: Cell<bool>,
    /// What the coroutine waits for.
    waiter: Slot,
}

/// Where the class is kept.
static FLAG: Class<Flag> = Class::new();

impl Native for Flag {
    fn class() -> &'static Class<Self> {
        &FLAG
    }

    fn empty() -> Self {
        Self {
            raised: Cell::new(false),
            waiter: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.waiter);
    }

    fn clear(&self) {
        self.waiter.clear();
    }
}

impl Flag {
    /// It happens.
    fn set(&self) -> PyRes<()> {
        self.raised.set(true);
        match self.waiter.take() {
            Some(waiter) if !is_done(&waiter)? => set_result(&waiter, Obj::bool(true)),
            _ => Ok(()),
        }
    }
}

/// The coroutine that waits for a flag.
struct FlagWait {
    /// The flag.
    flag: Ref<Flag>,
    /// What is waited for.
    waiter: Option<Waiter>,
}

impl FlagWait {
    /// A wait that has not begun.
    fn new(flag: &Ref<Flag>) -> Self {
        Self {
            flag: flag.clone(),
            waiter: None,
        }
    }
}

impl Machine for FlagWait {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(waiter) = &mut self.waiter {
            return waiter.resume(input);
        }
        if self.flag.raised.get() {
            return Ok(Sent::Return(Obj::bool(true)));
        }
        let mut waiter = Waiter::on(create_future(&get_running_loop()?)?);
        self.flag.waiter.set(waiter.future().clone());
        let sent = waiter.start();
        self.waiter = Some(waiter);
        sent
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.flag);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// What the coroutines of one race share.
struct Race {
    /// The loop.
    loop_: Slot,
    /// The task that called.
    parent: Slot,
    /// The coroutine functions that have not started.
    functions: Slot,
    /// The head start of each, in seconds, or `None`.
    delay: Slot,
    /// The tasks that are running.
    running: RefCell<Vec<Obj>>,
    /// What the caller waits for.
    on_completed: Slot,
    /// The winner's result.
    winner_result: Slot,
    /// The winner's place.
    winner_index: Cell<Option<usize>>,
    /// What each function has failed with: a list.
    exceptions: Slot,
    /// What the race itself has failed with.
    unhandled: RefCell<Vec<Obj>>,
}

/// Where the class is kept.
static RACE: Class<Race> = Class::new();

impl Native for Race {
    fn class() -> &'static Class<Self> {
        &RACE
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            parent: Slot::empty(),
            functions: Slot::empty(),
            delay: Slot::empty(),
            running: RefCell::default(),
            on_completed: Slot::empty(),
            winner_result: Slot::empty(),
            winner_index: Cell::new(None),
            exceptions: Slot::empty(),
            unhandled: RefCell::default(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        for slot in [
            &self.loop_,
            &self.parent,
            &self.functions,
            &self.delay,
            &self.on_completed,
            &self.winner_result,
            &self.exceptions,
        ] {
            visit.slot(slot);
        }
        for list in [&self.running, &self.unhandled] {
            if let Ok(list) = list.try_borrow() {
                list.iter().for_each(|object| visit.obj(object));
            }
        }
    }

    fn clear(&self) {
        self.parent.clear();
        self.functions.clear();
        self.on_completed.clear();
        self.winner_result.clear();
        self.exceptions.clear();
        let lists = [&self.running, &self.unhandled].map(RefCell::take);
        drop(lists);
    }
}

/// Called by each task of a race that is done.
static TASK_DONE: Observer = Observer {
    body: |owner, task| RACE.cast(owner).map_or(Ok(()), |race| race.task_done(task)),
    qualname: "staggered_race.<locals>.task_done",
};

impl Race {
    /// One of the tasks is done.
    fn task_done(&self, task: &Obj) -> PyRes<()> {
        let gone: Vec<Obj> = self
            .running
            .borrow_mut()
            .extract_if(.., |running| running.is(task))
            .collect();
        drop(gone);
        if cfg!(Py_3_14)
            && let Some(parent) = self.parent.get()
        {
            task_state::discard_awaited_by(task, &parent)?;
        }
        if let Some(waiter) = self.on_completed.get()
            && !is_done(&waiter)?
            && self.running.borrow().is_empty()
        {
            set_result(&waiter, Obj::none())?;
        }
        if is_cancelled(task)? {
            return Ok(());
        }
        if let Some(exception) = exception_of(task)? {
            self.unhandled.borrow_mut().push(exception);
        }
        Ok(())
    }

    /// The tasks that are running.
    fn running(&self) -> Vec<Obj> {
        self.running.borrow().clone()
    }
}

impl Ref<Race> {
    /// Starts the next task of the chain. It may run at once, but goes on only when it is known to be running.
    fn start_task(&self, previous_failed: Option<Ref<Flag>>) -> PyRes<()> {
        let loop_ = self.loop_.get_or_none();
        let ok_to_start = Ref::new(Flag::empty())?;
        let runner = Runner {
            race: self.clone(),
            previous_failed,
            this_failed: None,
            index: 0,
            step: Step::Starting(FlagWait::new(&ok_to_start)),
        };
        let coro = coroutine("staggered_race.<locals>.run_one_coro", runner)?;
        let task = create_task_on(&loop_, coro.obj())?;
        if cfg!(Py_3_14)
            && let Some(parent) = self.parent.get()
        {
            task_state::add_awaited_by(&task, &parent)?;
        }
        self.running.borrow_mut().push(task.clone());
        observe_any(&task, &TASK_DONE, self.obj())?;
        ok_to_start.set()
    }

    /// Nobody has won yet: now somebody has.
    fn win(&self, index: usize, result: Obj) -> PyRes<()> {
        if self.winner_index.get().is_some() {
            return Err(Builtin::Assertion.raise_bare());
        }
        self.winner_index.set(Some(index));
        self.winner_result.set(result);
        // CPython: cancelling the task that is being executed would make it end cancelled and not cancelled at once.
        let current = current_task(&self.loop_.get_or_none())?;
        for task in self.running() {
            if !current.as_ref().is_some_and(|current| current.is(&task)) {
                cancel(&task, &[])?;
            }
        }
        Ok(())
    }
}

/// `task.cancel(*args)`.
fn cancel(task: &Obj, args: &[Obj]) -> PyRes<()> {
    match (Task::class().exact(task), args) {
        (Some(native), []) => native.cancel(None).map(drop),
        _ => task.getattr(names::cancel())?.call_args(args).map(drop),
    }
}

/// One task of the chain.
struct Runner {
    /// What it belongs to.
    race: Ref<Race>,
    /// Has the one before it failed? The first has none before it.
    previous_failed: Option<Ref<Flag>>,
    /// Has this one failed?
    this_failed: Option<Ref<Flag>>,
    /// Its place.
    index: usize,
    /// How far it is.
    step: Step,
}

/// What a task of the chain waits for.
enum Step {
    /// To be known as running.
    Starting(FlagWait),
    /// The failure of the one before it, or the end of that one's head start.
    HeadStart(Box<WaitFor>),
    /// Its own coroutine.
    Running(Delegate),
    /// Finished.
    Over,
}

impl Runner {
    /// It is known as running: gives the one before it its head start.
    fn started(&mut self) -> PyRes<Sent> {
        let Some(previous) = self.previous_failed.clone() else {
            return self.run();
        };
        let wait = coroutine("Event.wait", FlagWait::new(&previous))?;
        let wait_for = WaitFor::new(wait.into_obj(), self.race.delay.get_or_none());
        self.head_start(Box::new(wait_for), Resume::Send)
    }

    /// Waits on, or goes on when the head start is over.
    fn head_start(&mut self, mut wait: Box<WaitFor>, input: Resume) -> PyRes<Sent> {
        match wait.resume(input) {
            Ok(Sent::Yield(awaited)) => {
                self.step = Step::HeadStart(wait);
                Ok(Sent::Yield(awaited))
            }
            Ok(Sent::Return(_)) => self.run(),
            Err(raised) if raised.is(Builtin::Timeout) => {
                raised.discard();
                self.run()
            }
            Err(raised) => Err(raised),
        }
    }

    /// Takes the next function, starts the successor, and runs.
    fn run(&mut self) -> PyRes<Sent> {
        let function = match self.race.functions.get() {
            Some(functions) => functions.next()?,
            None => None,
        };
        let Some(function) = function else {
            return Ok(Sent::Return(Obj::none()));
        };
        let exceptions = self.race.exceptions.get_or_none();
        self.index = exceptions.len()?;
        let failed = Ref::new(Flag::empty())?;
        self.this_failed = Some(failed.clone());
        self.race.start_task(Some(failed))?;
        // A successor that started at once has not taken its place: it waits for this one to fail.
        exceptions.append(&Obj::none())?;
        let sent = function.call([]).and_then(|awaitable| {
            let delegate = Delegate::new(&awaitable)?;
            let sent = delegate.resume(Resume::Send);
            self.step = Step::Running(delegate);
            sent
        });
        self.ran(sent)
    }

    /// Waits on, wins, or fails and lets the successor run.
    fn ran(&mut self, sent: PyRes<Sent>) -> PyRes<Sent> {
        let raised = match sent {
            Ok(Sent::Yield(_)) => return sent,
            Ok(Sent::Return(result)) => {
                self.step = Step::Over;
                self.race.win(self.index, result)?;
                return Ok(Sent::Return(Obj::none()));
            }
            Err(raised) => raised,
        };
        self.step = Step::Over;
        if crate::events::leaves_the_loop(&raised) {
            return Err(raised);
        }
        let exception = raised.take();
        let index = Obj::int(i64::try_from(self.index).unwrap_or(i64::MAX))?;
        self.race
            .exceptions
            .get_or_none()
            .set_item(&index, &exception)?;
        if let Some(failed) = &self.this_failed {
            failed.set()?;
        }
        Ok(Sent::Return(Obj::none()))
    }
}

impl Machine for Runner {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, Step::Over) {
            Step::Starting(mut wait) => match wait.resume(input)? {
                Sent::Yield(awaited) => {
                    self.step = Step::Starting(wait);
                    Ok(Sent::Yield(awaited))
                }
                Sent::Return(_) => self.started(),
            },
            Step::HeadStart(wait) => self.head_start(wait, input),
            Step::Running(delegate) => {
                let sent = delegate.resume(input);
                self.step = Step::Running(delegate);
                self.ran(sent)
            }
            Step::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.race);
        self.previous_failed
            .iter()
            .chain(&self.this_failed)
            .for_each(|flag| visit.native(flag));
        match &self.step {
            Step::Starting(wait) => wait.traverse(visit),
            Step::HeadStart(wait) => wait.traverse(visit),
            Step::Running(delegate) => visit.obj(delegate.awaited()),
            Step::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            Step::Starting(wait) => wait.awaits(),
            Step::HeadStart(wait) => wait.awaits(),
            Step::Running(delegate) => Some(delegate.awaited().clone()),
            Step::Over => None,
        }
    }
}

/// The caller's side of a race.
struct Caller {
    /// The arguments before the start: functions, delay, loop.
    given: Option<(Obj, Obj, Option<Obj>)>,
    /// The race, once it runs.
    race: Option<Ref<Race>>,
    /// What is waited for.
    waiter: Option<Waiter>,
    /// The cancellation to raise when all tasks have ended.
    cancelled: Option<Obj>,
}

impl Caller {
    /// Everything up to the first wait.
    fn start(&mut self, functions: &Obj, delay: &Obj, loop_: Option<&Obj>) -> PyRes<Sent> {
        let loop_ = match loop_ {
            Some(loop_) if loop_.truth()? => loop_.clone(),
            _ => get_running_loop()?,
        };
        let race = Ref::new(Race {
            functions: Slot::new(functions.iterator()?),
            delay: Slot::new(delay.clone()),
            exceptions: Slot::new(Obj::list([])?),
            ..Race::empty()
        })?;
        if let Some(parent) = current_task(&loop_)? {
            race.parent.set(parent);
        }
        race.loop_.set(loop_);
        race.start_task(None)?;
        self.wait(race)
    }

    /// Waits while tasks are running.
    fn wait(&mut self, race: Ref<Race>) -> PyRes<Sent> {
        while !race.running.borrow().is_empty() {
            let mut waiter = Waiter::create(&race.loop_.get_or_none())?;
            race.on_completed.set(waiter.future().clone());
            let sent = waiter.start();
            if let Some(sent) = self.waited(sent, waiter, &race)? {
                self.race = Some(race);
                return Ok(sent);
            }
        }
        self.finish(&race)
    }

    /// Waits on; a cancellation is handed to the tasks, whose end is waited for all the same.
    fn waited(
        &mut self,
        sent: PyRes<Sent>,
        waiter: Waiter,
        race: &Ref<Race>,
    ) -> PyRes<Option<Sent>> {
        match sent {
            Ok(Sent::Yield(awaited)) => {
                self.waiter = Some(waiter);
                return Ok(Some(Sent::Yield(awaited)));
            }
            Ok(Sent::Return(_)) => {}
            Err(raised) if raised.matches(stdlib::cancelled_error()?) => {
                let cancelled = raised.take();
                let args = cancelled.getattr_str("args")?.items()?;
                self.cancelled = Some(cancelled);
                for task in race.running() {
                    cancel(&task, &args)?;
                }
            }
            Err(raised) => return Err(raised),
        }
        race.on_completed.clear();
        Ok(None)
    }

    /// All tasks have ended.
    fn finish(&mut self, race: &Ref<Race>) -> PyRes<Sent> {
        let unhandled = race.unhandled.take();
        if !unhandled.is_empty() && Obj::import("builtins")?.getattr_str("__debug__")?.truth()? {
            let group = stdlib::exception_group()?
                .call([&Obj::str("staggered race failed")?, &Obj::list(unhandled)?])?;
            return Err(Raised::raise(&group));
        }
        if let Some(cancelled) = self.cancelled.take() {
            return Err(Raised::raise(&cancelled));
        }
        let index = match race.winner_index.get() {
            Some(index) => Obj::int(i64::try_from(index).unwrap_or(i64::MAX))?,
            None => Obj::none(),
        };
        let exceptions = race.exceptions.get_or_none();
        Obj::tuple([race.winner_result.get_or_none(), index, exceptions]).map(Sent::Return)
    }
}

impl Machine for Caller {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some((functions, delay, loop_)) = self.given.take() {
            return self.start(&functions, &delay, loop_.as_ref());
        }
        let (Some(race), Some(mut waiter)) = (self.race.take(), self.waiter.take()) else {
            return Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            ));
        };
        let sent = waiter.resume(input);
        match self.waited(sent, waiter, &race)? {
            Some(sent) => {
                self.race = Some(race);
                Ok(sent)
            }
            None => self.wait(race),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        if let Some((functions, delay, loop_)) = &self.given {
            visit.obj(functions);
            visit.obj(delay);
            if let Some(loop_) = loop_ {
                visit.obj(loop_);
            }
        }
        self.race.iter().for_each(|race| visit.native(race));
        self.waiter.iter().for_each(|waiter| waiter.traverse(visit));
        self.cancelled
            .iter()
            .for_each(|cancelled| visit.obj(cancelled));
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// `staggered_race(coro_fns, delay, *, loop=None)`.
fn staggered_race(args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    race(args.req(0), args.req(1), args.some(2))
}

/// The coroutine of a race.
pub(crate) fn race(functions: &Obj, delay: &Obj, loop_: Option<&Obj>) -> PyRes<Ref<Coroutine>> {
    let given = (functions.clone(), delay.clone(), loop_.cloned());
    coroutine(
        "staggered_race",
        Caller {
            given: Some(given),
            race: None,
            waiter: None,
            cancelled: None,
        },
    )
}

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Flag>::new(
        "aioxide",
        "race_flag",
        "Something that happens once in a race.",
    )
    .sealed()
    .build()?;
    ClassBuilder::<Race>::new(
        "aioxide",
        "race_state",
        "What the coroutines of one race share.",
    )
    .sealed()
    .build()?;
    let (_, race) = function(
        Kind::CoroutineFunction,
        "asyncio.staggered",
        "staggered_race(coro_fns, delay, *, loop=None)",
        "Runs coroutines with staggered starts until one succeeds; returns its result, its place and all exceptions.",
        staggered_race,
    )?;
    add_to_module(module, "staggered_race", &race)
}
