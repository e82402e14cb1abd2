//! Native coroutines: what asyncio's `async def` functions return. Answers `asyncio/coroutines.py`.
//!
//! A [`Coroutine`] is the Python object, a [`Machine`] its body. The object keeps the rules of a coroutine: it starts
//! at the first `send`, refuses to run twice, closes itself when it is dropped, and warns if it never started.

use std::cell::{Cell, RefCell};

use crate::ffi::{
    Builtin, Class, ClassBuilder, Machine, MachineBox, Native, Obj, PyRes, Raised, Ref, Resume,
    Sent, Slot, Visit, Warning, awaitable_iterator, function_code, function_frame, send,
    stop_iteration, throw, warn,
};
use crate::{names, stdlib};

/// Where a coroutine is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not started.
    Created,
    /// Waiting.
    Suspended,
    /// Executing right now.
    Running,
    /// Finished, failed or closed.
    Closed,
}

impl State {
    /// The name that `inspect` has for it.
    fn word(self) -> &'static str {
        match self {
            Self::Created => "CORO_CREATED",
            Self::Suspended => "CORO_SUSPENDED",
            Self::Running => "CORO_RUNNING",
            Self::Closed => "CORO_CLOSED",
        }
    }
}

/// A native coroutine.
pub(crate) struct Coroutine {
    /// Its qualified name, such as `Lock.acquire`.
    qualname: &'static str,
    /// Where it is in its life.
    state: Cell<State>,
    /// The body; gone once closed.
    machine: RefCell<Option<MachineBox>>,
    /// Where it was made, if origins are tracked.
    origin: Slot,
}

/// Where the class is kept.
static CLASS: Class<Coroutine> = Class::new();

impl Native for Coroutine {
    const FREELIST: usize = 512;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            qualname: "",
            state: Cell::new(State::Closed),
            machine: RefCell::new(None),
            origin: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.origin);
        // While the body runs, what it holds counts as held from outside.
        if let Ok(machine) = self.machine.try_borrow()
            && let Some(machine) = machine.as_ref()
        {
            machine.traverse(visit);
        }
    }

    fn clear(&self) {
        let machine = self
            .machine
            .try_borrow_mut()
            .ok()
            .and_then(|mut machine| machine.take());
        self.state.set(State::Closed);
        drop(machine);
    }

    fn needs_finalizer(&self) -> bool {
        self.state.get() != State::Closed
    }

    fn finalize(this: &Ref<Self>) {
        match this.state.get() {
            State::Created => {
                if let Err(raised) = warn_never_awaited(this) {
                    raised.write_unraisable(Some(this.obj()));
                }
                this.finish();
            }
            State::Suspended => {
                if let Err(raised) = this.shut() {
                    raised.write_unraisable(Some(this.obj()));
                }
            }
            State::Running | State::Closed => {}
        }
    }
}

/// A coroutine around `machine`, named as the `async def` function that it stands for.
#[inline]
pub(crate) fn coroutine<M: Machine>(qualname: &'static str, machine: M) -> PyRes<Ref<Coroutine>> {
    Ref::new(Coroutine {
        qualname,
        state: Cell::new(State::Created),
        machine: RefCell::new(Some(MachineBox::new(machine))),
        origin: Slot::empty(),
    })
}

impl Ref<Coroutine> {
    /// Runs the body to its next wait or to its end.
    #[inline]
    pub(crate) fn drive(&self, input: Resume) -> PyRes<Sent> {
        match self.state.get() {
            State::Created => {
                if let Resume::Throw(exception) = input {
                    self.finish();
                    return Err(Raised::raise(&exception));
                }
            }
            State::Suspended => {}
            State::Running => return Err(Raised::value_error("coroutine already executing")),
            State::Closed => {
                return Err(match input {
                    Resume::Send => Raised::runtime_error("cannot reuse already awaited coroutine"),
                    Resume::Throw(exception) => Raised::raise(&exception),
                });
            }
        }
        self.state.set(State::Running);
        let outcome = match self.machine.borrow_mut().as_mut() {
            Some(machine) => machine.resume(input),
            None => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        };
        if let Ok(Sent::Yield(_)) = outcome {
            self.state.set(State::Suspended);
        } else {
            self.finish();
        }
        outcome
    }

    /// Ends it and gives up what the body held.
    fn finish(&self) {
        self.state.set(State::Closed);
        let machine = self.machine.borrow_mut().take();
        drop(machine);
    }

    /// `close()`.
    fn shut(&self) -> PyRes<()> {
        match self.state.get() {
            State::Created => {
                self.finish();
                Ok(())
            }
            State::Closed => Ok(()),
            State::Running => Err(Raised::value_error("coroutine already executing")),
            State::Suspended => match self
                .drive(Resume::Throw(Builtin::GeneratorExit.class().call([])?))
            {
                Ok(Sent::Yield(_)) => Err(Raised::runtime_error("coroutine ignored GeneratorExit")),
                Ok(Sent::Return(_)) => Ok(()),
                Err(raised)
                    if raised.is(Builtin::GeneratorExit) || raised.is(Builtin::StopIteration) =>
                {
                    raised.discard();
                    Ok(())
                }
                Err(raised) => Err(raised),
            },
        }
    }

    /// The name without its class.
    fn plain_name(&self) -> &'static str {
        self.qualname.rsplit('.').next().unwrap_or(self.qualname)
    }
}

/// Says that a coroutine was thrown away before it started, in Python's own words.
fn warn_never_awaited(this: &Ref<Coroutine>) -> PyRes<()> {
    let warn = Obj::import("warnings")?.getattr_str("_warn_unawaited_coroutine")?;
    warn.call([this.obj()]).map(drop)
}

/// Turns what `drive` gave into a method's answer: a value, or `StopIteration`.
fn answer(sent: Sent) -> PyRes {
    match sent {
        Sent::Yield(value) => Ok(value),
        Sent::Return(value) => Err(stop_iteration(&value)),
    }
}

/// How the errors of `throw` are phrased, which differs between coroutines and futures.
pub(crate) struct ThrowWords {
    /// For what is no exception; `{}` is the name of its class.
    not_an_exception: &'static str,
    /// For a third argument that is no traceback.
    not_a_traceback: &'static str,
}

impl ThrowWords {
    /// The words of coroutines.
    const COROUTINE: Self = Self {
        not_an_exception: "exceptions must be classes or instances deriving from BaseException, not {}",
        not_a_traceback: "throw() third argument must be a traceback object",
    };
    /// The words of `FutureIter`.
    pub(crate) const FUTURE_ITER: Self = Self {
        not_an_exception: "exceptions must be classes deriving BaseException or instances of such a class",
        not_a_traceback: "throw() third argument must be a traceback",
    };
}

/// The exception instance that `throw(type[, value[, traceback]])` means.
pub(crate) fn thrown_instance(
    kind: &Obj,
    value: Option<&Obj>,
    traceback: Option<&Obj>,
    words: &ThrowWords,
) -> PyRes {
    if cfg!(Py_3_12) && value.is_some() {
        warn(
            Warning::Deprecation,
            "the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.",
            1,
        )?;
    }
    let (value, traceback) = (
        value.filter(|value| !value.is_none()),
        traceback.filter(|given| !given.is_none()),
    );
    if let Some(traceback) = traceback
        && !traceback.isinstance(stdlib::traceback_type()?)?
    {
        return Err(Raised::type_error(words.not_a_traceback));
    }
    let exception = if kind.is_exception() {
        if value.is_some() {
            return Err(Raised::type_error(
                "instance exception may not have a separate value",
            ));
        }
        kind.clone()
    } else if kind.is_exception_class() {
        match value {
            Some(value) if value.isinstance(kind)? => value.clone(),
            Some(value) => kind.call([value])?,
            None => kind.call([])?,
        }
    } else {
        return Err(Raised::type_error(
            &words.not_an_exception.replace("{}", &kind.class_name()),
        ));
    };
    if traceback.is_some() {
        exception.set_traceback(traceback)?;
    }
    Ok(exception)
}

/// Waiting for any awaitable inside a machine, as `await` does.
pub(crate) struct Delegate(Obj);

impl Delegate {
    /// Gets the iterator of `awaitable`.
    pub(crate) fn new(awaitable: &Obj) -> PyRes<Self> {
        awaitable_iterator(awaitable).map(Self)
    }

    /// The first step, then every later one.
    pub(crate) fn resume(&self, input: Resume) -> PyRes<Sent> {
        match input {
            Resume::Send => send(&self.0, &Obj::none()),
            Resume::Throw(exception) if Builtin::GeneratorExit.is_class_of(&exception) => {
                if let Some(close) = self.0.getattr_opt(names::close())? {
                    close.call([])?;
                }
                Err(Raised::restore(exception))
            }
            Resume::Throw(exception) => throw(&self.0, &exception),
        }
    }

    /// What is awaited.
    pub(crate) fn awaited(&self) -> &Obj {
        &self.0
    }
}

/// Makes the class and enters it in `collections.abc.Coroutine`, so that `asyncio.iscoroutine` accepts it.
pub(crate) fn init() -> PyRes<()> {
    let builder =
        ClassBuilder::<Coroutine>::new("aioxide", "coroutine", "A coroutine of aioxide's own.")
            .sealed()
            .repr(|this| {
                Ok(format!(
                    "<coroutine object {} at {:#x}>",
                    this.qualname,
                    this.obj().address()
                ))
            })
            .awaited(|this| match this.state.get() {
                State::Suspended | State::Running => {
                    Err(Raised::runtime_error("coroutine is being awaited already"))
                }
                State::Created | State::Closed => Ok(this.obj().clone()),
            })
            // What `__await__` gives is iterated by hand too; CPython's own `asend` objects are their own iterators as well.
            .iterated(|this| Ok(this.obj().clone()))
            .driven(|this, value| {
                if this.state.get() == State::Created && !value.is_none() {
                    return Err(Raised::type_error(
                        "can't send non-None value to a just-started coroutine",
                    ));
                }
                this.drive(Resume::Send)
            })
            .method(
                "send(self, arg, /)",
                "Resumes the coroutine.",
                |this, args| {
                    if this.state.get() == State::Created && !args.req(0).is_none() {
                        return Err(Raised::type_error(
                            "can't send non-None value to a just-started coroutine",
                        ));
                    }
                    answer(this.drive(Resume::Send)?)
                },
            )
            .method(
                "throw(self, type, value=None, traceback=None, /)",
                "Raises an exception where it waits.",
                |this, args| {
                    let exception = thrown_instance(
                        args.req(0),
                        args.get(1),
                        args.get(2),
                        &ThrowWords::COROUTINE,
                    )?;
                    answer(this.drive(Resume::Throw(exception))?)
                },
            )
            .method("close(self)", "Ends the coroutine.", |this, _| this.shut())
            .getter("__name__", |this| Obj::str(this.plain_name()))
            .getter("__qualname__", |this| Obj::str(this.qualname))
            .getter("cr_running", |this| Ok(this.state.get() == State::Running))
            .getter("cr_suspended", |this| {
                Ok(this.state.get() == State::Suspended)
            })
            // It tells `inspect` that the coroutine is not closed, and reprs and stacks of tasks what is running.
            .getter("cr_frame", |this| match this.state.get() {
                State::Closed => Ok(Obj::none()),
                _ => function_frame(this.qualname),
            })
            .getter("cr_origin", |this| Ok(this.origin.get_or_none()))
            .getter("cr_code", |this| function_code(this.qualname))
            .getter("cr_await", |this| {
                Ok(this
                    .machine
                    .try_borrow()
                    .ok()
                    .and_then(|machine| machine.as_ref().and_then(MachineBox::awaits)))
            });
    // What `inspect.getcoroutinestate` reads.
    let builder = if cfg!(Py_3_15) {
        builder.getter("cr_state", |this| Obj::str(this.state.get().word()))
    } else {
        builder
    };
    let class = builder.build()?;
    stdlib::coroutine_abc()?
        .getattr_str("register")?
        .call([&class])?;
    Ok(())
}
