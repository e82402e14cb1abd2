//! `Barrier`.
//!
//! Tasks come in while it is *filling*. When the last one has come it is *draining*: whoever is in goes out, and
//! others wait before it until the last has left. *Resetting* is the same with an error for those who are in. A
//! *broken* barrier lets nobody in until it is reset. State and count change under the lock of a condition, which is
//! notified of every change.

use std::cell::Cell;
use std::mem;

use crate::coroutines::{Delegate, coroutine};
use crate::ffi::{
    Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    add_to_module, finally,
};
use crate::mixins::LoopBound;
use crate::{names, stdlib};

use super::condition::{Acquisition, Condition, Wait};
use super::number::Number;
use super::waiters::Waiters;
use super::{Bound, MODULE, bound, repr_with};

/// What a barrier does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Tasks come in.
    Filling,
    /// All have come; they go out.
    Draining,
    /// Those who are in go out with an error.
    Resetting,
    /// Nobody may come in.
    Broken,
}

impl State {
    /// All of them.
    const ALL: [Self; 4] = [Self::Filling, Self::Draining, Self::Resetting, Self::Broken];

    /// The word in reprs.
    fn word(self) -> &'static str {
        match self {
            Self::Filling => "filling",
            Self::Draining => "draining",
            Self::Resetting => "resetting",
            Self::Broken => "broken",
        }
    }

    /// The member of asyncio's own enumeration, which `_state` shows.
    fn member(self) -> PyRes {
        stdlib::barrier_state()?.call([&Obj::str(self.word())?])
    }

    /// The state that such a member stands for.
    fn of(member: &Obj) -> PyRes<Self> {
        let word = member.getattr(names::value())?.to_str()?.text()?;
        let found = Self::ALL.into_iter().find(|state| state.word() == word);
        found.ok_or_else(|| Raised::value_error("not a state of a barrier"))
    }
}

/// A barrier.
struct Barrier {
    /// The condition.
    condition: Slot<Ref<Condition>>,
    /// How many tasks it takes.
    parties: Number,
    /// What it does.
    state: Cell<State>,
    /// How many tasks are in.
    count: Cell<i64>,
    /// The loop.
    loop_: LoopBound,
}

/// Where the class is kept.
static CLASS: Class<Barrier> = Class::new();

impl Native for Barrier {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            condition: Slot::empty(),
            parties: Number::new(1),
            state: Cell::new(State::Filling),
            count: Cell::new(0),
            loop_: LoopBound::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.condition);
        self.parties.traverse(visit);
        self.loop_.traverse(visit);
    }

    fn clear(&self) {
        self.condition.clear();
        self.parties.clear();
        self.loop_.clear();
    }
}

impl Bound for Barrier {
    const STATE: &'static [&'static str] = &["_cond", "_parties", "_state", "_count"];

    fn loop_bound(&self) -> &LoopBound {
        &self.loop_
    }

    fn waiters(&self) -> Option<&Waiters> {
        None
    }
}

/// `BrokenBarrierError(message)`.
#[cold]
fn broken(message: &str) -> Raised {
    stdlib::broken_barrier_error()
        .map_or_else(|raised| raised, |class| Raised::with(class, message))
}

impl Barrier {
    /// The condition.
    fn condition(&self) -> PyRes<Ref<Condition>> {
        self.condition
            .get()
            .ok_or_else(|| Raised::runtime_error("Barrier object is not initialized."))
    }

    /// `n_waiting`.
    fn n_waiting(&self) -> i64 {
        if self.state.get() == State::Filling {
            self.count.get()
        } else {
            0
        }
    }

    /// `_release()`.
    fn release(&self) -> PyRes<()> {
        self.state.set(State::Draining);
        self.condition()?.notify_all()
    }

    /// `_exit()`: the last one out lets those in who wait before the barrier.
    fn exit(&self) -> PyRes<()> {
        if self.count.get() != 0 {
            return Ok(());
        }
        if matches!(self.state.get(), State::Resetting | State::Draining) {
            self.state.set(State::Filling);
        }
        self.condition()?.notify_all()
    }

    /// What `reset()` does under the lock.
    fn reset(&self) -> PyRes<()> {
        self.state.set(if self.count.get() > 0 {
            State::Resetting
        } else {
            State::Filling
        });
        self.condition()?.notify_all()
    }

    /// What `abort()` does under the lock.
    fn abort(&self) -> PyRes<()> {
        self.state.set(State::Broken);
        self.condition()?.notify_all()
    }
}

/// What a task waits for at a barrier.
#[derive(Clone, Copy)]
enum Turn {
    /// To be let in: `_block()`.
    In,
    /// To be let out: `_wait()`.
    Out,
}

impl Turn {
    /// Has it come?
    fn has_come(self, state: State) -> bool {
        match self {
            Self::In => !matches!(state, State::Draining | State::Resetting),
            Self::Out => state != State::Filling,
        }
    }

    /// The error that waits there, if any.
    fn check(self, state: State) -> PyRes<()> {
        match (self, state) {
            (Self::In, State::Broken) => Err(broken("Barrier aborted")),
            (Self::Out, State::Broken | State::Resetting) => {
                Err(broken("Abort or reset of barrier"))
            }
            _ => Ok(()),
        }
    }

    /// The name of the method.
    fn name(self) -> &'static Obj {
        match self {
            Self::In => names::barrier_block(),
            Self::Out => names::barrier_wait(),
        }
    }
}

/// `_block` and `_wait`.
struct Await {
    /// The barrier.
    barrier: Ref<Barrier>,
    /// What is waited for.
    turn: Turn,
    /// The wait for a change, once that began.
    wait: Option<Wait>,
}

impl Machine for Await {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(wait) = &mut self.wait {
            let sent = wait.resume(input)?;
            if matches!(sent, Sent::Yield(_)) {
                return Ok(sent);
            }
        }
        while !self.turn.has_come(self.barrier.state.get()) {
            let wait = self.wait.insert(Wait::new(self.barrier.condition()?));
            let sent = wait.resume(Resume::Send)?;
            if matches!(sent, Sent::Yield(_)) {
                return Ok(sent);
            }
        }
        self.turn.check(self.barrier.state.get())?;
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.barrier);
        if let Some(wait) = &self.wait {
            wait.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.wait.as_ref().and_then(Wait::awaits)
    }
}

/// `await self._block()`, `_release()` or `_wait()`, as a subclass has them.
enum Part {
    /// The native one.
    Native(Await),
    /// Another one.
    Visible(Delegate),
}

impl Part {
    /// One of the waits, not begun.
    fn wait(barrier: &Ref<Barrier>, turn: Turn) -> PyRes<Self> {
        if barrier.is_plain() {
            return Ok(Self::Native(Await {
                barrier: barrier.clone(),
                turn,
                wait: None,
            }));
        }
        Self::visible(barrier, turn.name())
    }

    /// A method that may be overridden.
    fn visible(barrier: &Ref<Barrier>, name: &Obj) -> PyRes<Self> {
        Ok(Self::Visible(Delegate::new(
            &barrier.obj().method(name, [])?,
        )?))
    }

    /// Goes on.
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match self {
            Self::Native(wait) => wait.resume(input),
            Self::Visible(delegate) => delegate.resume(input),
        }
    }

    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Native(wait) => wait.traverse(visit),
            Self::Visible(delegate) => visit.obj(delegate.awaited()),
        }
    }

    /// What is waited for.
    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Native(wait) => wait.awaits(),
            Self::Visible(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// `wait`.
struct Pass {
    /// The barrier.
    barrier: Ref<Barrier>,
    /// Where the task is.
    place: Place,
}

/// Where a task is that passes a barrier.
enum Place {
    /// Nowhere as yet.
    Start,
    /// Waiting for the lock.
    Entering(Acquisition),
    /// Before the barrier.
    Before(Part),
    /// In it, with its number.
    Inside(Part, i64),
    /// Through.
    Over,
}

impl Pass {
    /// Waits for the lock.
    fn enter(&mut self, mut acquisition: Acquisition, input: Resume) -> PyRes<Sent> {
        let sent = acquisition.resume(input)?;
        if matches!(sent, Sent::Yield(_)) {
            self.place = Place::Entering(acquisition);
            return Ok(sent);
        }
        match Part::wait(&self.barrier, Turn::In) {
            Ok(part) => self.before(part, Resume::Send),
            Err(raised) => self.leave(Err(raised)),
        }
    }

    /// Waits to be let in.
    fn before(&mut self, mut part: Part, input: Resume) -> PyRes<Sent> {
        match part.resume(input) {
            Ok(Sent::Return(_)) => {}
            Ok(sent) => {
                self.place = Place::Before(part);
                return Ok(sent);
            }
            Err(raised) => return self.leave(Err(raised)),
        }
        let index = self.barrier.count.get();
        self.barrier.count.set(index + 1);
        match self.inside_part(index) {
            Ok(Some(part)) => self.inside(part, index, Resume::Send),
            Ok(None) => self.out(Ok(index)),
            Err(raised) => self.out(Err(raised)),
        }
    }

    /// What there is to await inside.
    fn inside_part(&self, index: i64) -> PyRes<Option<Part>> {
        let barrier = &self.barrier;
        if !barrier.parties.equals(index + 1)? {
            return Part::wait(barrier, Turn::Out).map(Some);
        }
        if barrier.is_plain() {
            barrier.release()?;
            return Ok(None);
        }
        Part::visible(barrier, names::barrier_release()).map(Some)
    }

    /// Waits to be let out.
    fn inside(&mut self, mut part: Part, index: i64, input: Resume) -> PyRes<Sent> {
        match part.resume(input) {
            Ok(Sent::Return(_)) => self.out(Ok(index)),
            Ok(sent) => {
                self.place = Place::Inside(part, index);
                Ok(sent)
            }
            Err(raised) => self.out(Err(raised)),
        }
    }

    /// Goes out.
    fn out(&self, outcome: PyRes<i64>) -> PyRes<Sent> {
        let barrier = &self.barrier;
        self.leave(finally(outcome, || {
            barrier.count.set(barrier.count.get() - 1);
            if barrier.is_plain() {
                return barrier.exit();
            }
            barrier.obj().method(names::barrier_exit(), []).map(drop)
        }))
    }

    /// Gives the lock up.
    fn leave(&self, outcome: PyRes<i64>) -> PyRes<Sent> {
        let index = finally(outcome, || self.barrier.condition()?.give_up())?;
        Ok(Sent::Return(Obj::int(index)?))
    }
}

impl Machine for Pass {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.place, Place::Over) {
            Place::Start => {
                let acquisition = Acquisition::new(&self.barrier.condition()?)?;
                self.enter(acquisition, Resume::Send)
            }
            Place::Entering(acquisition) => self.enter(acquisition, input),
            Place::Before(part) => self.before(part, input),
            Place::Inside(part, index) => self.inside(part, index, input),
            Place::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.barrier);
        match &self.place {
            Place::Start | Place::Over => {}
            Place::Entering(acquisition) => acquisition.traverse(visit),
            Place::Before(part) | Place::Inside(part, _) => part.traverse(visit),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.place {
            Place::Start | Place::Over => None,
            Place::Entering(acquisition) => acquisition.awaits(),
            Place::Before(part) | Place::Inside(part, _) => part.awaits(),
        }
    }
}

/// `__aenter__`.
struct Enter {
    /// The barrier.
    barrier: Ref<Barrier>,
    /// `wait()`, once that began.
    wait: Option<Passing>,
}

/// `await self.wait()`, as a subclass has it.
enum Passing {
    /// The native one.
    Native(Pass),
    /// Another one.
    Visible(Delegate),
}

impl Machine for Enter {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let barrier = &self.barrier;
        let wait = match &mut self.wait {
            Some(wait) => wait,
            unset if barrier.is_plain() => unset.insert(Passing::Native(Pass {
                barrier: barrier.clone(),
                place: Place::Start,
            })),
            unset => unset.insert(Passing::Visible(Delegate::new(
                &barrier.obj().method(names::wait(), [])?,
            )?)),
        };
        match wait {
            Passing::Native(pass) => pass.resume(input),
            Passing::Visible(delegate) => delegate.resume(input),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.barrier);
        match &self.wait {
            None => {}
            Some(Passing::Native(pass)) => pass.traverse(visit),
            Some(Passing::Visible(delegate)) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.wait {
            None => None,
            Some(Passing::Native(pass)) => pass.awaits(),
            Some(Passing::Visible(delegate)) => Some(delegate.awaited().clone()),
        }
    }
}

/// `reset` and `abort`.
struct Change {
    /// The barrier.
    barrier: Ref<Barrier>,
    /// What is done under the lock.
    body: fn(&Barrier) -> PyRes<()>,
    /// The wait for the lock, once that began.
    acquisition: Option<Acquisition>,
}

impl Machine for Change {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let acquisition = match &mut self.acquisition {
            Some(acquisition) => acquisition,
            unset => unset.insert(Acquisition::new(&self.barrier.condition()?)?),
        };
        let sent = acquisition.resume(input)?;
        if matches!(sent, Sent::Yield(_)) {
            return Ok(sent);
        }
        finally((self.body)(&self.barrier), || {
            self.barrier.condition()?.give_up()
        })?;
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.barrier);
        if let Some(acquisition) = &self.acquisition {
            acquisition.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.acquisition.as_ref().and_then(Acquisition::awaits)
    }
}

/// `_release` as a coroutine, for subclasses that call it.
struct Release(Ref<Barrier>);

impl Machine for Release {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        self.0.release()?;
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.0);
    }
}

/// The repr.
fn repr_text(this: &Ref<Barrier>) -> PyRes<String> {
    let state = this.state.get().word();
    let read = |name: &Obj| this.obj().getattr(name);
    if read(names::broken())?.truth()? {
        return repr_with(this.obj(), state);
    }
    let waiting = read(names::n_waiting())?.to_str()?.text()?;
    let parties = read(names::parties())?.to_str()?.text()?;
    repr_with(this.obj(), &format!("{state}, waiters:{waiting}/{parties}"))
}

/// Adds what asyncio keeps to itself.
fn private(builder: ClassBuilder<Barrier>) -> ClassBuilder<Barrier> {
    builder
        .coroutine("_block(self)", "Waits to be let in.", |this, _| {
            coroutine(
                "Barrier._block",
                Await {
                    barrier: this.clone(),
                    turn: Turn::In,
                    wait: None,
                },
            )
        })
        .coroutine("_release(self)", "Lets those out who are in.", |this, _| {
            coroutine("Barrier._release", Release(this.clone()))
        })
        .coroutine("_wait(self)", "Waits to be let out.", |this, _| {
            coroutine(
                "Barrier._wait",
                Await {
                    barrier: this.clone(),
                    turn: Turn::Out,
                    wait: None,
                },
            )
        })
        .method(
            "_exit(self)",
            "Lets others in if nobody is in any more.",
            |this, _| this.exit(),
        )
        .property(
            "_cond",
            |this| Ok(this.condition.get().map(Ref::into_obj)),
            |this, value| {
                let condition = value.and_then(|value| Condition::class().cast(value));
                let condition =
                    condition.ok_or_else(|| Raised::type_error("_cond must be a Condition"))?;
                this.condition.set(condition.clone());
                Ok(())
            },
        )
        .property(
            "_parties",
            |this| this.parties.get(),
            |this, value| {
                this.parties.set(value.unwrap_or(&Obj::none()));
                Ok(())
            },
        )
        .property(
            "_state",
            |this| this.state.get().member(),
            |this, value| {
                this.state.set(State::of(value.unwrap_or(&Obj::none()))?);
                Ok(())
            },
        )
        .property(
            "_count",
            |this| Ok(this.count.get()),
            |this, value| {
                this.count.set(value.map_or(Ok(0), Obj::as_i64)?);
                Ok(())
            },
        )
}

/// Makes the class.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<Barrier>::new(
        MODULE,
        "Barrier",
        "Holds tasks until as many have come as there are `parties`, then lets them all go on.\n\n\
         Use it with `async with`, or by `wait()`.",
    )
    .init("(self, parties)", |this, args| {
        let parties = args.req(0);
        if parties.less_than(&Obj::int(1)?)? {
            return Err(Raised::value_error(if cfg!(Py_3_14) { "parties must be >= 1" } else { "parties must be > 0" }));
        }
        this.condition.set(Ref::<Condition>::with_new_lock()?);
        this.parties.set(parties);
        this.state.set(State::Filling);
        this.count.set(0);
        Ok(())
    })
    .repr(repr_text)
    .coroutine("__aenter__(self)", "Waits until all have come and returns the number of the task.", |this, _| {
        coroutine("Barrier.__aenter__", Enter { barrier: this.clone(), wait: None })
    })
    .coroutine("__aexit__(self, *args)", "Does nothing.", |_, _| coroutine("Barrier.__aexit__", Nothing))
    .coroutine(
        "wait(self)",
        "Waits until all have come; returns the number of the task, from 0 to `parties - 1`.",
        |this, _| coroutine("Barrier.wait", Pass { barrier: this.clone(), place: Place::Start }),
    )
    .coroutine(
        "reset(self)",
        "Empties the barrier: whoever waits gets a `BrokenBarrierError`.",
        |this, _| coroutine("Barrier.reset", Change { barrier: this.clone(), body: Barrier::reset, acquisition: None }),
    )
    .coroutine(
        "abort(self)",
        "Breaks the barrier: whoever waits, or comes until it is reset, gets a `BrokenBarrierError`.",
        |this, _| coroutine("Barrier.abort", Change { barrier: this.clone(), body: Barrier::abort, acquisition: None }),
    )
    .property("parties", |this| this.parties.get(), |this, value| {
        Err(Raised::no_setter(this.obj(), "parties", value))
    })
    .property("n_waiting", |this| Ok(this.n_waiting()), |this, value| {
        Err(Raised::no_setter(this.obj(), "n_waiting", value))
    })
    .property("broken", |this| Ok(this.state.get() == State::Broken), |this, value| {
        Err(Raised::no_setter(this.obj(), "broken", value))
    });
    let class = bound(private(builder), "Barrier").build()?;
    add_to_module(module, "Barrier", &class)
}

/// `__aexit__`.
struct Nothing;

impl Machine for Nothing {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, _: &mut Visit<'_>) {}
}
