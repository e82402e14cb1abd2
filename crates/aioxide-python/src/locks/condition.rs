//! `Condition`.
//!
//! asyncio gives each condition the bound methods `locked`, `acquire` and `release` of its lock as attributes of its
//! own. Here they are properties: made when somebody reads them, kept when somebody assigns them, and made at once for
//! locks that are not ours and for subclasses. While nothing of that kind happened the lock is used directly.
//!
//! A wait that ends with an error, whatever it is, may have been notified before: it notifies another waiter.

use std::cell::Cell;
use std::mem;

use crate::coroutines::{Delegate, coroutine};
use crate::ffi::{
    Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    add_to_module, finally,
};
use crate::mixins::LoopBound;
use crate::waiter::{Waiter, is_done, set_result};
use crate::{names, stdlib};

use super::lock::{self, Lock};
use super::waiters::Waiters;
use super::{Bound, Guard, MODULE, bound, guarding, loop_of, repr_with};

/// A condition.
pub(super) struct Condition {
    /// The lock.
    lock: Slot,
    /// The attribute `locked`.
    locked: Slot,
    /// The attribute `acquire`.
    acquire: Slot,
    /// The attribute `release`.
    release: Slot,
    /// May these three be anything else than the methods of a lock of ours?
    foreign: Cell<bool>,
    /// Who waits to be notified.
    waiters: Waiters,
    /// The loop.
    loop_: LoopBound,
}

/// Where the class is kept.
static CLASS: Class<Condition> = Class::new();

impl Native for Condition {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            lock: Slot::empty(),
            locked: Slot::empty(),
            acquire: Slot::empty(),
            release: Slot::empty(),
            foreign: Cell::new(false),
            waiters: Waiters::empty(),
            loop_: LoopBound::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.lock);
        visit.slot(&self.locked);
        visit.slot(&self.acquire);
        visit.slot(&self.release);
        self.waiters.traverse(visit);
        self.loop_.traverse(visit);
    }

    fn clear(&self) {
        self.lock.clear();
        self.locked.clear();
        self.acquire.clear();
        self.release.clear();
        self.waiters.clear();
        self.loop_.clear();
    }
}

impl Bound for Condition {
    const STATE: &'static [&'static str] = &["_lock"];

    #[inline]
    fn loop_bound(&self) -> &LoopBound {
        &self.loop_
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.waiters)
    }
}

impl Guard for Condition {
    type Acquire = lock::Acquire;

    #[inline]
    fn guards_natively(this: &Ref<Self>) -> bool {
        this.native_lock().is_some()
    }

    #[inline]
    fn acquiring(this: &Ref<Self>) -> PyRes<lock::Acquire> {
        this.native_lock()
            .map(lock::Acquire::new)
            .ok_or_else(no_lock)
    }

    #[inline]
    fn try_acquire(this: &Ref<Self>) -> PyRes<bool> {
        this.native_lock()
            .map_or(Ok(false), |lock| lock.try_acquire())
    }

    #[inline]
    fn release(this: &Ref<Self>) -> PyRes<()> {
        this.give_up()
    }
}

/// The error of a condition whose `__init__` never ran.
#[cold]
fn no_lock() -> Raised {
    Raised::runtime_error("Condition object is not initialized.")
}

impl Condition {
    /// The attribute that stands for a method of the lock.
    fn slot(&self, name: &Obj) -> &Slot {
        if name.is(names::locked()) {
            &self.locked
        } else if name.is(names::acquire()) {
            &self.acquire
        } else {
            &self.release
        }
    }

    /// Reads such an attribute.
    fn lock_method(&self, name: &Obj) -> PyRes {
        if let Some(known) = self.slot(name).get() {
            return Ok(known);
        }
        let method = self.lock.get().ok_or_else(no_lock)?.getattr(name)?;
        self.slot(name).set(method.clone());
        Ok(method)
    }

    /// Assigns such an attribute; `None` for `del`.
    fn set_lock_method(&self, name: &Obj, value: Option<&Obj>) {
        self.foreign.set(true);
        drop(self.slot(name).replace(value.cloned()));
    }

    /// `_notify(count)` for as many as are said.
    fn notify_some(&self, count: i64) -> PyRes<()> {
        if count <= 0 || self.waiters.is_idle() {
            return Ok(());
        }
        if count == 1 {
            return match self.waiters.first_pending()? {
                Some(first) => set_result(&first, Obj::bool(false)),
                None => Ok(()),
            };
        }
        let mut notified = 0;
        for waiter in self.waiters.snapshot()? {
            if notified >= count {
                break;
            }
            if !is_done(&waiter)? {
                notified += 1;
                set_result(&waiter, Obj::bool(false))?;
            }
        }
        Ok(())
    }

    /// `_notify(n)` for any `n`, which is compared with the number of the notified as Python does.
    fn notify_up_to(&self, limit: &Obj) -> PyRes<()> {
        if limit.is_exact_int() {
            match limit.as_i64() {
                Ok(count) => return self.notify_some(count),
                Err(overflow) => overflow.discard(),
            }
        }
        let mut notified = 0;
        for waiter in self.waiters.snapshot()? {
            if Obj::int(notified)?.greater_or_equal(limit)? {
                break;
            }
            if !is_done(&waiter)? {
                notified += 1;
                set_result(&waiter, Obj::bool(false))?;
            }
        }
        Ok(())
    }
}

impl Ref<Condition> {
    /// A new condition with a lock of its own.
    pub(super) fn with_new_lock() -> PyRes<Self> {
        Self::new(Condition {
            lock: Slot::new(lock::new()?),
            ..Condition::empty()
        })
    }

    /// `__init__`.
    fn initialize(&self, given: Option<&Obj>) -> PyRes<()> {
        let lock = given.map_or_else(lock::new, |lock| Ok(lock.clone()))?;
        self.lock.set(lock.clone());
        self.locked.clear();
        self.acquire.clear();
        self.release.clear();
        let direct = self.is_exact() && lock::plain(&lock).is_some();
        self.foreign.set(!direct);
        if !direct {
            for name in [names::locked(), names::acquire(), names::release()] {
                let method = lock.getattr(name)?;
                // A subclass may define a method of this name: the attribute of the object comes first.
                self.obj().setattr(name, &method)?;
            }
        }
        self.waiters.restart();
        Ok(())
    }

    /// `_lock = value`: the methods stay those of the lock that was, if there was one.
    fn set_lock(&self, value: Option<&Obj>) -> PyRes<()> {
        if self.lock.is_none() {
            return self.initialize(value);
        }
        for name in [names::locked(), names::acquire(), names::release()] {
            self.lock_method(name)?;
        }
        self.foreign.set(true);
        drop(self.lock.replace(value.cloned()));
        Ok(())
    }

    /// The lock, if it may be used directly.
    #[inline]
    fn native_lock(&self) -> Option<Ref<Lock>> {
        if self.foreign.get() || !self.is_plain() {
            return None;
        }
        self.lock.get().as_ref().and_then(lock::plain).cloned()
    }

    /// `self.locked()`.
    #[inline]
    fn is_locked(&self) -> PyRes<bool> {
        match self.native_lock() {
            Some(lock) => Ok(lock.is_locked()),
            None => self.obj().method(names::locked(), [])?.truth(),
        }
    }

    /// `self.release()`.
    #[inline]
    pub(super) fn give_up(&self) -> PyRes<()> {
        match self.native_lock() {
            Some(lock) => lock.release(),
            None => self.obj().method(names::release(), []).map(drop),
        }
    }

    /// `self._notify(1)`.
    fn notify_another(&self) -> PyRes<()> {
        if self.is_plain() {
            return self.notify_some(1);
        }
        self.obj()
            .method(names::private_notify(), [&Obj::int(1)?])
            .map(drop)
    }

    /// Refuses to notify without the lock.
    fn check_notify(&self) -> PyRes<()> {
        if self.is_locked()? {
            return Ok(());
        }
        Err(Raised::runtime_error("cannot notify on un-acquired lock"))
    }

    /// `notify(n)`.
    fn notify(&self, limit: &Obj) -> PyRes<()> {
        self.check_notify()?;
        if self.is_plain() {
            return self.notify_up_to(limit);
        }
        self.obj()
            .method(names::private_notify(), [limit])
            .map(drop)
    }

    /// `notify_all()`.
    pub(super) fn notify_all(&self) -> PyRes<()> {
        let count = i64::try_from(self.waiters.len()?).unwrap_or(i64::MAX);
        if self.is_plain() {
            self.check_notify()?;
            return self.notify_some(count);
        }
        self.obj()
            .method(names::notify(), [&Obj::int(count)?])
            .map(drop)
    }
}

/// `await condition.acquire()`.
pub(super) enum Acquisition {
    /// Of the condition's own lock.
    Native(lock::Acquire),
    /// Of anything else.
    Visible(Delegate),
}

impl Acquisition {
    /// Not begun.
    pub(super) fn new(condition: &Ref<Condition>) -> PyRes<Self> {
        Ok(match condition.native_lock() {
            Some(lock) => Self::Native(lock::Acquire::new(lock)),
            None => Self::Visible(Delegate::new(
                &condition.obj().method(names::acquire(), [])?,
            )?),
        })
    }

    /// Goes on.
    #[inline]
    pub(super) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match self {
            Self::Native(acquire) => acquire.resume(input),
            Self::Visible(delegate) => delegate.resume(input),
        }
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Native(acquire) => acquire.traverse(visit),
            Self::Visible(delegate) => visit.obj(delegate.awaited()),
        }
    }

    /// What is waited for.
    pub(super) fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Native(acquire) => acquire.awaits(),
            Self::Visible(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// `wait`.
pub(super) struct Wait {
    /// The condition.
    condition: Ref<Condition>,
    /// Where the wait is.
    stage: Stage,
}

/// Where a wait is.
enum Stage {
    /// Not begun.
    Start,
    /// Waiting for a notification.
    Waiting(Waiter),
    /// Waiting for the lock.
    Acquiring {
        /// The lock's part.
        acquisition: Acquisition,
        /// What the wait for a notification raised.
        failure: Option<Obj>,
        /// The last cancellation that came since.
        cancelled: Option<Obj>,
    },
    /// Finished.
    Over,
}

impl Wait {
    /// Not begun.
    pub(super) fn new(condition: Ref<Condition>) -> Self {
        Self {
            condition,
            stage: Stage::Start,
        }
    }

    /// Gives the lock up and waits.
    fn begin(&mut self) -> PyRes<Sent> {
        let condition = &self.condition;
        if !condition.is_locked()? {
            return Err(Raised::runtime_error("cannot wait on un-acquired lock"));
        }
        let mut waiter = Waiter::create(&loop_of(condition)?)?;
        condition.give_up()?;
        let sent = match condition.waiters.push(waiter.future()) {
            Ok(()) => waiter.start(),
            Err(raised) => return self.acquire(Some(raised.take())),
        };
        self.waited(sent, waiter)
    }

    /// Waits on, or goes for the lock.
    fn waited(&mut self, sent: PyRes<Sent>, waiter: Waiter) -> PyRes<Sent> {
        if matches!(sent, Ok(Sent::Yield(_))) {
            self.stage = Stage::Waiting(waiter);
            return sent;
        }
        match finally(sent, || self.condition.waiters.remove(waiter.future())) {
            Ok(_) => self.acquire(None),
            Err(raised) => self.acquire(Some(raised.take())),
        }
    }

    /// Goes for the lock.
    fn acquire(&mut self, failure: Option<Obj>) -> PyRes<Sent> {
        self.acquiring(None, Resume::Send, failure, None)
    }

    /// Waits for the lock until it is there, whatever is cancelled meanwhile.
    fn acquiring(
        &mut self,
        mut current: Option<Acquisition>,
        mut input: Resume,
        failure: Option<Obj>,
        mut cancelled: Option<Obj>,
    ) -> PyRes<Sent> {
        loop {
            let attempt = match current.take() {
                Some(acquisition) => Ok(acquisition),
                None => Acquisition::new(&self.condition),
            };
            let raised = match attempt {
                Err(raised) => raised,
                Ok(mut acquisition) => {
                    match acquisition.resume(mem::replace(&mut input, Resume::Send)) {
                        Ok(Sent::Return(_)) => return self.over(cancelled.or(failure)),
                        Ok(sent) => {
                            self.stage = Stage::Acquiring {
                                acquisition,
                                failure,
                                cancelled,
                            };
                            return Ok(sent);
                        }
                        Err(raised) => raised,
                    }
                }
            };
            let raised = match &failure {
                Some(failure) => raised.during(failure.clone()),
                None => raised,
            };
            let again = raised.matches(stdlib::cancelled_error()?);
            let exception = raised.take();
            if !again {
                return self.over(Some(exception));
            }
            cancelled = Some(exception);
        }
    }

    /// Ends the wait.
    fn over(&self, failure: Option<Obj>) -> PyRes<Sent> {
        match failure {
            None => Ok(Sent::Return(Obj::bool(true))),
            Some(failure) => finally(Err(Raised::restore(failure)), || {
                self.condition.notify_another()
            }),
        }
    }
}

impl Machine for Wait {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Start => self.begin(),
            Stage::Waiting(mut waiter) => {
                let sent = waiter.resume(input);
                self.waited(sent, waiter)
            }
            Stage::Acquiring {
                acquisition,
                failure,
                cancelled,
            } => self.acquiring(Some(acquisition), input, failure, cancelled),
            Stage::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.condition);
        match &self.stage {
            Stage::Start | Stage::Over => {}
            Stage::Waiting(waiter) => waiter.traverse(visit),
            Stage::Acquiring {
                acquisition,
                failure,
                cancelled,
            } => {
                acquisition.traverse(visit);
                failure
                    .iter()
                    .chain(cancelled)
                    .for_each(|exception| visit.obj(exception));
            }
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.stage {
            Stage::Start | Stage::Over => None,
            Stage::Waiting(waiter) => Some(waiter.future().clone()),
            Stage::Acquiring { acquisition, .. } => acquisition.awaits(),
        }
    }
}

/// One wait of `wait_for`.
enum Round {
    /// By the native `wait`.
    Native(Wait),
    /// By another one.
    Visible(Delegate),
}

/// `wait_for`.
struct WaitFor {
    /// The condition.
    condition: Ref<Condition>,
    /// What is asked before each wait.
    predicate: Obj,
    /// The wait.
    round: Option<Round>,
}

impl WaitFor {
    /// Asks; waits until the answer is true.
    fn ask(&mut self) -> PyRes<Sent> {
        loop {
            let answer = self.predicate.call([])?;
            if answer.truth()? {
                return Ok(Sent::Return(answer));
            }
            let condition = &self.condition;
            let round = if condition.is_plain() {
                Round::Native(Wait::new(condition.clone()))
            } else {
                Round::Visible(Delegate::new(&condition.obj().method(names::wait(), [])?)?)
            };
            let sent = self.round.insert(round).resume(Resume::Send)?;
            if matches!(sent, Sent::Yield(_)) {
                return Ok(sent);
            }
        }
    }
}

impl Round {
    /// Goes on.
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match self {
            Self::Native(wait) => wait.resume(input),
            Self::Visible(delegate) => delegate.resume(input),
        }
    }
}

impl Machine for WaitFor {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(round) = &mut self.round {
            let sent = round.resume(input)?;
            if matches!(sent, Sent::Yield(_)) {
                return Ok(sent);
            }
        }
        self.ask()
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.condition);
        visit.obj(&self.predicate);
        match &self.round {
            None => {}
            Some(Round::Native(wait)) => wait.traverse(visit),
            Some(Round::Visible(delegate)) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.round {
            None => None,
            Some(Round::Native(wait)) => wait.awaits(),
            Some(Round::Visible(delegate)) => Some(delegate.awaited().clone()),
        }
    }
}

/// Makes the class.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<Condition>::new(
        MODULE,
        "Condition",
        "Tasks that hold a lock wait for others to tell them that something changed.\n\n\
         Without a `lock` it makes one. Use it with `async with`.",
    )
    .init("(self, lock=None)", |this, args| {
        this.initialize(args.some(0))
    })
    .repr(|this| {
        let state = if this.is_locked()? {
            "locked"
        } else {
            "unlocked"
        };
        repr_with(
            this.obj(),
            &format!("{state}{}", this.waiters.repr_suffix()?),
        )
    })
    .coroutine(
        "wait(self)",
        "Gives the lock up, waits to be notified, takes the lock again and returns `True`.\n\n\
         It may also return without a notification: look again at what you wait for.\n\
         Raises `RuntimeError` if the lock is not taken.",
        |this, _| coroutine("Condition.wait", Wait::new(this.clone())),
    )
    .coroutine(
        "wait_for(self, predicate)",
        "Waits until `predicate()` is true and returns what it returned.",
        |this, args| {
            let predicate = args.req(0).clone();
            coroutine(
                "Condition.wait_for",
                WaitFor {
                    condition: this.clone(),
                    predicate,
                    round: None,
                },
            )
        },
    )
    .method(
        "notify(self, n=1)",
        "Wakes up to `n` tasks that wait; they go on once they have got the lock.\n\n\
         Raises `RuntimeError` if the lock is not taken.",
        |this, args| match args.get(0) {
            Some(limit) => this.notify(limit),
            None => this.notify(&Obj::int(1)?),
        },
    )
    .method(
        "notify_all(self)",
        "Wakes all tasks that wait.",
        |this, _| this.notify_all(),
    )
    .method(
        "_notify(self, n)",
        "Wakes up to `n` tasks that wait, whether the lock is taken or not.",
        |this, args| this.notify_up_to(args.req(0)),
    )
    .property(
        "locked",
        |this| this.lock_method(names::locked()),
        |this, value| {
            this.set_lock_method(names::locked(), value);
            Ok(())
        },
    )
    .property(
        "acquire",
        |this| this.lock_method(names::acquire()),
        |this, value| {
            this.set_lock_method(names::acquire(), value);
            Ok(())
        },
    )
    .property(
        "release",
        |this| this.lock_method(names::release()),
        |this, value| {
            this.set_lock_method(names::release(), value);
            Ok(())
        },
    )
    .property(
        "_lock",
        |this| Ok(this.lock.get()),
        Ref::<Condition>::set_lock,
    )
    .property(
        "_waiters",
        |this| this.waiters.show(),
        |this, value| {
            this.waiters.assign(value);
            Ok(())
        },
    );
    let class = bound(guarding(builder, "Condition"), "Condition").build()?;
    add_to_module(module, "Condition", &class)
}
