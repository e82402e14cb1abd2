//! Queues. Answers `asyncio/queues.py`, as of 3.15 on every Python.
//!
//! Items and waiters stand in native rows ([`Line`]) until somebody reads `_queue`, `_getters` or `_putters`: then the
//! row becomes the Python object that asyncio has there, for good. The items of a priority queue are a Python list from
//! the start, ordered by the C functions of `heapq`. Likewise "all tasks are finished" is a flag until `_finished` is
//! read or somebody waits for it, and an `Event` from then on.
//!
//! asyncio's queues are made to be subclassed: each of their methods calls the others on `self`. So every such call asks
//! [`Ref::overrides`] first, which is a load and two compares while nothing changed: does the class, as it is now, find
//! another method than the native one, or was one assigned on the instance? Only then does the call go through Python.
//!
//! Invariants: no row is borrowed while Python code can run. `overridden` is right if `class_version` is the class's
//! version.

mod line;
mod overrides;
mod store;
mod waits;

use std::cell::Cell;
use std::fmt::Write as _;

use crate::coroutines::coroutine;
use crate::ffi::{
    Builtin, Class, ClassBuilder, Extends, GilSlot, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    add_to_module,
};
use crate::mixins::LoopBound;
use crate::waiter::{is_done, set_result};
use crate::{names, stdlib};

use line::Line;
use overrides::{FORMAT, GET_LOOP, INIT, MAXSIZE, QUEUE, WAKEUP_NEXT, remember_native};
use store::{ODD, Store, UNBOUNDED};
use waits::{Get, Join, Put};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["Queue", "PriorityQueue", "LifoQueue", "QueueShutDown"];

/// What a class's instances are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// First in, first out.
    Queue,
    /// Lowest first.
    Priority,
    /// Last in, first out.
    Lifo,
}

/// All kinds, in the order of their numbers.
const KINDS: [Kind; 3] = [Kind::Queue, Kind::Priority, Kind::Lifo];

/// A side of the queue on which tasks wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// For an item.
    Getters,
    /// For room.
    Putters,
}

/// The attributes that a copy of a queue gets.
const STATE: [&str; 6] = [
    "_maxsize",
    "_queue",
    "_getters",
    "_putters",
    "_unfinished_tasks",
    "_is_shutdown",
];

/// `QueueShutDown`.
static SHUT_DOWN: GilSlot = GilSlot::new();

/// The class of `_finished`.
static EVENT: GilSlot = GilSlot::new();

/// A queue.
struct Queue {
    /// What its native class is.
    kind: Cell<Kind>,
    /// What `_queue` is.
    store: Cell<Store>,
    /// The items.
    items: Line,
    /// `maxsize` as it was given.
    maxsize: Slot,
    /// From how many items on the queue is full; `UNBOUNDED` or `ODD`.
    limit: Cell<usize>,
    /// Tasks that wait for an item.
    getters: Line,
    /// Tasks that wait for room.
    putters: Line,
    /// Items put whose task is not done.
    unfinished_tasks: Cell<i64>,
    /// Are all tasks done? Meaningless once the event exists.
    finished: Cell<bool>,
    /// The same as an `Event`, once somebody looks or waits.
    event: Slot,
    /// Was it shut down?
    is_shutdown: Cell<bool>,
    /// The loop.
    loop_: LoopBound,
    /// The class's version when it was last looked at.
    class_version: Cell<u32>,
    /// What is overridden, by the class or on the instance.
    overridden: Cell<u32>,
    /// What is overridden on the instance.
    assigned: Cell<u32>,
}

/// Where the class is kept.
static CLASS: Class<Queue> = Class::new();

impl Native for Queue {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            kind: Cell::new(Kind::Queue),
            store: Cell::new(Store::Missing),
            items: Line::new(),
            maxsize: Slot::empty(),
            limit: Cell::new(ODD),
            getters: Line::new(),
            putters: Line::new(),
            unfinished_tasks: Cell::new(0),
            finished: Cell::new(true),
            event: Slot::empty(),
            is_shutdown: Cell::new(false),
            loop_: LoopBound::new(),
            class_version: Cell::new(0),
            overridden: Cell::new(0),
            assigned: Cell::new(0),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.items.traverse(visit);
        visit.slot(&self.maxsize);
        self.getters.traverse(visit);
        self.putters.traverse(visit);
        visit.slot(&self.event);
        self.loop_.traverse(visit);
    }

    fn clear(&self) {
        self.items.become_(None);
        self.maxsize.clear();
        self.limit.set(UNBOUNDED);
        self.getters.become_(None);
        self.putters.become_(None);
        self.event.clear();
        self.loop_.clear();
    }
}

/// Declares a native subclass of [`Queue`], which adds nothing to the payload.
macro_rules! subclass {
    ($(#[$doc:meta])* $name:ident, $class:ident) => {
        $(#[$doc])*
        struct $name(Queue);

        /// Where the class is kept.
        static $class: Class<$name> = Class::new();

        impl Native for $name {
            const FREELIST: usize = 16;

            fn class() -> &'static Class<Self> {
                &$class
            }

            fn empty() -> Self {
                Self(Queue::empty())
            }

            fn traverse(&self, visit: &mut Visit<'_>) {
                self.0.traverse(visit);
            }

            fn clear(&self) {
                self.0.clear();
            }
        }

        impl Extends<Queue> for $name {
            fn base(&self) -> &Queue {
                &self.0
            }
        }
    };
}

subclass! {
    /// A queue that gives the lowest item first.
    PriorityQueue, PRIORITY
}

subclass! {
    /// A queue that gives the newest item first.
    LifoQueue, LIFO
}

/// `QueueShutDown`, raised.
#[cold]
fn shut_down() -> Raised {
    match SHUT_DOWN.get() {
        Ok(class) => Raised::bare(&class),
        Err(raised) => raised,
    }
}

/// Wakes the next of a row of waiters that is not done; `waiters` is any object.
fn wakeup_next(waiters: &Obj) -> PyRes<()> {
    while waiters.truth()? {
        let waiter = waiters.method(names::popleft(), [])?;
        if !is_done(&waiter)? {
            return set_result(&waiter, Obj::none());
        }
    }
    Ok(())
}

impl Ref<Queue> {
    /// `__init__`.
    fn initialize(&self, maxsize: Option<&Obj>) -> PyRes<()> {
        let maxsize = maxsize.map_or_else(|| Obj::int(0), |maxsize| Ok(maxsize.clone()))?;
        self.class_version.set(0);
        if self.overrides(MAXSIZE) {
            self.obj().setattr(names::private_maxsize(), &maxsize)?;
        } else {
            self.set_maxsize(maxsize.clone());
        }
        self.getters.become_(None);
        self.putters.become_(None);
        self.unfinished_tasks.set(0);
        self.finished.set(true);
        self.event.clear();
        self.is_shutdown.set(false);
        if self.overrides(INIT) {
            self.obj().method(names::private_init(), [&maxsize])?;
        } else {
            self.renew(self.kind.get())?;
        }
        self.is_shutdown.set(false);
        Ok(())
    }

    /// The loop, bound now if it was not: `self._get_loop()`.
    #[inline]
    fn current_loop(&self) -> PyRes {
        if self.overrides(GET_LOOP) {
            return self.obj().method(names::private_get_loop(), []);
        }
        self.loop_.get(self.obj())
    }

    /// The waiters of one side.
    #[inline]
    fn line(&self, side: Side) -> &Line {
        match side {
            Side::Getters => &self.getters,
            Side::Putters => &self.putters,
        }
    }

    // Waiters.

    /// `self._wakeup_next(waiters)`.
    #[inline]
    fn wake(&self, side: Side) -> PyRes<()> {
        // Perf: "Queue(64)"; mostly nobody waits.
        if self.line(side).is_idle() && !self.overrides(WAKEUP_NEXT) {
            return Ok(());
        }
        self.wake_waiter(side)
    }

    /// The same, if somebody may be waiting.
    #[inline(never)]
    fn wake_waiter(&self, side: Side) -> PyRes<()> {
        let line = self.line(side);
        if self.overrides(WAKEUP_NEXT) {
            return self
                .obj()
                .method(names::wakeup_next(), [&line.deque()?])
                .map(drop);
        }
        while let Some(waiter) = line.pop()? {
            if !is_done(&waiter)? {
                return set_result(&waiter, Obj::none());
            }
        }
        Ok(())
    }

    // Putting and getting.

    /// Is all native, so that what was just seen need not be looked at again?
    #[inline]
    fn is_direct(&self) -> bool {
        self.limit.get() != ODD && !self.overrides(u32::MAX) && self.items.visible().is_none()
    }

    /// `put_nowait(item)`.
    #[inline]
    fn put_nowait(&self, item: &Obj) -> PyRes<()> {
        if self.is_shutdown.get() {
            return Err(shut_down());
        }
        if self.is_full()? {
            return Err(Raised::bare(stdlib::queue_full()?));
        }
        self.put_in(item)
    }

    /// What `put_nowait(item)` does when there is room.
    #[inline]
    fn put_in(&self, item: &Obj) -> PyRes<()> {
        self.put_item(item)?;
        self.unfinished_tasks.set(self.unfinished_tasks.get() + 1);
        self.unfinish()?;
        self.wake(Side::Getters)
    }

    /// `get_nowait()`.
    #[inline]
    fn get_nowait(&self) -> PyRes {
        if self.is_empty()? {
            return Err(if self.is_shutdown.get() {
                shut_down()
            } else {
                Raised::bare(stdlib::queue_empty()?)
            });
        }
        self.take_out()
    }

    /// What `get_nowait()` does when there is an item.
    #[inline]
    fn take_out(&self) -> PyRes {
        let item = self.get_item()?;
        self.wake(Side::Putters)?;
        Ok(item)
    }

    // Unfinished tasks.

    /// `self._finished.clear()`.
    #[inline]
    fn unfinish(&self) -> PyRes<()> {
        self.finished.set(false);
        match self.event.get() {
            None => Ok(()),
            Some(event) => event.method(names::clear(), []).map(drop),
        }
    }

    /// `self._finished.set()`.
    #[inline]
    fn finish(&self) -> PyRes<()> {
        self.finished.set(true);
        match self.event.get() {
            None => Ok(()),
            Some(event) => event.method(names::set(), []).map(drop),
        }
    }

    /// `_finished`.
    fn finished_event(&self) -> PyRes {
        if let Some(event) = self.event.get() {
            return Ok(event);
        }
        let event = EVENT.get()?.call([])?;
        // To make it may have run any code.
        if let Some(event) = self.event.get() {
            return Ok(event);
        }
        self.event.set(event.clone());
        if self.finished.get() {
            event.method(names::set(), [])?;
        }
        Ok(event)
    }

    /// `task_done()`.
    fn task_done(&self) -> PyRes<()> {
        let unfinished = self.unfinished_tasks.get();
        if unfinished <= 0 {
            return Err(Raised::value_error("task_done() called too many times"));
        }
        self.unfinished_tasks.set(unfinished - 1);
        if unfinished == 1 {
            self.finish()
        } else {
            Ok(())
        }
    }

    /// `shutdown(immediate)`.
    fn shutdown(&self, immediate: bool) -> PyRes<()> {
        self.is_shutdown.set(true);
        if immediate {
            while !self.is_empty()? {
                drop(self.get_item()?);
                let unfinished = self.unfinished_tasks.get();
                if unfinished > 0 {
                    self.unfinished_tasks.set(unfinished - 1);
                }
            }
            if self.unfinished_tasks.get() == 0 {
                self.finish()?;
            }
        }
        for line in [&self.getters, &self.putters] {
            while let Some(waiter) = line.pop()? {
                if !is_done(&waiter)? {
                    set_result(&waiter, Obj::none())?;
                }
            }
        }
        Ok(())
    }

    // Copies.

    /// `__getstate__()`: what asyncio's queues have in `__dict__`. The event is told by its flag.
    fn state(&self) -> PyRes {
        let state = self
            .obj()
            .getattr_str("__dict__")?
            .method(&Obj::str("copy")?, [])?;
        for name in STATE {
            let name = Obj::str(name)?;
            if let Some(value) = self.obj().getattr_opt(&name)? {
                state.set_item(&name, &value)?;
            }
        }
        if let Some(loop_) = self.loop_.bound() {
            state.set_item(names::private_loop(), &loop_)?;
        }
        let finished = match self.event.get() {
            Some(event) => event.method(&Obj::str("is_set")?, [])?,
            None => Obj::bool(self.finished.get()),
        };
        state.set_item(names::private_finished(), &finished)?;
        Ok(state)
    }

    /// `__setstate__(state)`.
    fn set_state(&self, state: &Obj) -> PyRes<()> {
        for name in state.items()? {
            let value = state.item(&name)?;
            if name.equals(names::private_finished())? && value.is_exactly(&Obj::bool(true).class())
            {
                self.event.clear();
                self.finished.set(value.truth()?);
            } else {
                self.obj().setattr(&name, &value)?;
            }
        }
        Ok(())
    }

    // Texts.

    /// The items, if there are any, for `_format`.
    fn items_to_show(&self) -> PyRes<Option<Obj>> {
        let visible = if self.overrides(QUEUE) {
            self.obj().getattr_opt(names::private_queue())?
        } else {
            self.items.visible()
        };
        let items = match visible {
            Some(visible) if visible.truth()? => visible.items()?,
            Some(_) => return Ok(None),
            None => self.items.native_items(),
        };
        if items.is_empty() && self.items.visible().is_none() {
            return Ok(None);
        }
        Obj::list_of(items).map(Some)
    }

    /// `_format()`.
    fn format(&self) -> PyRes<String> {
        let mut text = format!("maxsize={}", self.current_maxsize()?.repr()?);
        if let Some(items) = self.items_to_show()? {
            let _ = write!(text, " _queue={}", items.repr()?);
        }
        for (name, line) in [("_getters", &self.getters), ("_putters", &self.putters)] {
            let count = line.count()?;
            if count != 0 {
                let _ = write!(text, " {name}[{count}]");
            }
        }
        let unfinished = self.unfinished_tasks.get();
        if unfinished != 0 {
            let _ = write!(text, " tasks={unfinished}");
        }
        if self.is_shutdown.get() {
            text.push_str(" shutdown");
        }
        Ok(text)
    }

    /// `self._format()`.
    fn current_format(&self) -> PyRes<String> {
        if self.overrides(FORMAT) {
            return self
                .obj()
                .method(names::private_format(), [])?
                .to_str()?
                .text();
        }
        self.format()
    }
}

/// A property that shows a row of waiters.
macro_rules! row {
    ($builder:expr, $name:literal, $field:ident) => {
        $builder.property(
            $name,
            |this| this.$field.deque(),
            |this, value| {
                this.$field.become_(value.cloned());
                Ok(())
            },
        )
    };
}

/// Makes `Queue`.
fn make_queue_class() -> PyRes {
    let builder = ClassBuilder::<Queue>::new(
        "asyncio.queues",
        "Queue",
        "A queue between tasks.\n\n\
         With a `maxsize` above zero, `put()` waits while there are that many items.",
    )
    .init("(self, maxsize=0)", |this, args| this.initialize(args.get(0)))
    .on_setattr(|this, name, value| {
        this.note_assignment(name, value);
        Ok(())
    })
    .repr(|this| {
        let (name, address) = (this.obj().class_name(), this.obj().address());
        Ok(format!("<{name} at {address:#x} {}>", this.current_format()?))
    })
    .method("__str__(self, /)", "Return str(self).", |this, _| {
        Ok(format!("<{} {}>", this.obj().class_name(), this.current_format()?))
    })
    .coroutine("put(self, item)", "Puts an item into the queue, as soon as there is room.", |this, args| {
        coroutine("Queue.put", Put { queue: this.clone(), item: args.req(0).clone(), waiter: None })
    })
    .coroutine("get(self)", "Takes the next item out of the queue, as soon as there is one.", |this, _| {
        coroutine("Queue.get", Get { queue: this.clone(), waiter: None })
    })
    .coroutine("join(self)", "Waits until `task_done()` was called for each item that was put.", |this, _| {
        coroutine("Queue.join", Join { queue: this.clone(), wait: None })
    })
    .method("put_nowait(self, item)", "Puts an item into the queue; raises `QueueFull` if there is no room.", |this, args| {
        this.put_nowait(args.req(0))
    })
    .method("get_nowait(self)", "Takes the next item out of the queue; raises `QueueEmpty` if there is none.", |this, _| {
        this.get_nowait()
    })
    .method("task_done(self)", "Says that the task of one item is done; `join()` counts them.", |this, _| this.task_done())
    .method(
        "shutdown(self, immediate=False)",
        "Makes `put()`, and `get()` of an empty queue, raise `QueueShutDown`, also for those who wait already.\n\n\
         With `immediate`, all items are thrown away and count as done.",
        |this, args| this.shutdown(args.truth(0, false)?),
    )
    .method("qsize(self)", "How many items there are.", |this, _| this.size())
    .method("empty(self)", "Is there no item?", |this, _| this.has_no_items())
    .method("full(self)", "Are there `maxsize` items?", |this, _| this.fullness())
    .property("maxsize", Ref::<Queue>::current_maxsize, |this, value| {
        let lacks = if value.is_some() { "setter" } else { "deleter" };
        let class = this.obj().class_name();
        Err(Builtin::Attribute.raise(&format!("property 'maxsize' of '{class}' object has no {lacks}")))
    })
    .method("_init(self, maxsize)", "Makes the store of the items.", |this, _| this.renew(Kind::Queue))
    .method("_put(self, item)", "Adds an item to the store.", |this, args| this.add(Kind::Queue, args.req(0)))
    .method("_get(self)", "Takes an item out of the store.", |this, _| this.take(Kind::Queue))
    .method("_wakeup_next(self, waiters)", "Wakes the next waiter.", |_, args| wakeup_next(args.req(0)))
    .method("_get_loop(self)", "The loop, bound now if it was not.", |this, _| this.loop_.get(this.obj()))
    .method("_format(self)", "The state, for the repr.", |this, _| this.format())
    .method("__getstate__(self)", "What a copy gets.", |this, _| this.state())
    .method("__setstate__(self, state)", "Takes what a copy gets.", |this, args| this.set_state(args.req(0)))
    .attribute(
        "__class_getitem__",
        Obj::import("builtins")?.getattr_str("classmethod")?.call([stdlib::generic_alias()?])?,
    )
    .property("_queue", Ref::<Queue>::queue_object, |this, value| {
        this.store.set(if value.is_some() { Store::List } else { Store::Missing });
        this.items.become_(value.cloned());
        Ok(())
    })
    .property("_maxsize", |this| this.maxsize.get().ok_or_else(|| this.no_attribute("_maxsize")), |this, value| {
        if let Some(value) = value {
            this.set_maxsize(value.clone());
        } else {
            this.limit.set(ODD);
            this.maxsize.clear();
        }
        Ok(())
    })
    .property("_unfinished_tasks", |this| Ok(this.unfinished_tasks.get()), |this, value| {
        this.unfinished_tasks.set(value.map_or(Ok(0), Obj::as_i64)?);
        Ok(())
    })
    .property("_finished", Ref::<Queue>::finished_event, |this, value| {
        drop(this.event.replace(value.cloned()));
        Ok(())
    })
    .property("_is_shutdown", |this| Ok(this.is_shutdown.get()), |this, value| {
        this.is_shutdown.set(value.map_or(Ok(false), Obj::truth)?);
        Ok(())
    })
    .property("_loop", |this| Ok(this.loop_.bound()), |this, value| {
        this.loop_.bind(value);
        Ok(())
    });
    let builder = row!(builder, "_getters", getters);
    row!(builder, "_putters", putters).build()
}

/// Makes `PriorityQueue`.
fn make_priority_queue_class() -> PyRes {
    ClassBuilder::<PriorityQueue>::new(
        "asyncio.queues",
        "PriorityQueue",
        "A queue that gives the lowest item first.\n\nItems are often tuples of a priority and what it is of.",
    )
    .extends::<Queue>()
    .method("_init(self, maxsize)", "Makes the store of the items.", |this, _| {
        this.upcast::<Queue>().renew(Kind::Priority)
    })
    .method("_put(self, item, heappush=None)", "Adds an item to the heap.", |this, args| {
        match args.some(1) {
            Some(heappush) => heappush.call([&this.upcast::<Queue>().current_queue()?, args.req(0)]).map(drop),
            None => this.upcast::<Queue>().add(Kind::Priority, args.req(0)),
        }
    })
    .method("_get(self, heappop=None)", "Takes the lowest item out of the heap.", |this, args| {
        match args.some(0) {
            Some(heappop) => heappop.call([&this.upcast::<Queue>().current_queue()?]),
            None => this.upcast::<Queue>().take(Kind::Priority),
        }
    })
    // asyncio's has no `__init__` of its own, which errors of wrong calls tell.
    .phrased_by(CLASS.object())
    .init("(self, maxsize=0)", |this, args| this.upcast::<Queue>().initialize(args.get(0)))
    .build()
}

/// Makes `LifoQueue`.
fn make_lifo_queue_class() -> PyRes {
    ClassBuilder::<LifoQueue>::new(
        "asyncio.queues",
        "LifoQueue",
        "A queue that gives the newest item first.",
    )
    .extends::<Queue>()
    .method(
        "_init(self, maxsize)",
        "Makes the store of the items.",
        |this, _| this.upcast::<Queue>().renew(Kind::Lifo),
    )
    .method(
        "_put(self, item)",
        "Adds an item to the stack.",
        |this, args| this.upcast::<Queue>().add(Kind::Lifo, args.req(0)),
    )
    .method(
        "_get(self)",
        "Takes the newest item off the stack.",
        |this, _| this.upcast::<Queue>().take(Kind::Lifo),
    )
    .phrased_by(CLASS.object())
    .init("(self, maxsize=0)", |this, args| {
        this.upcast::<Queue>().initialize(args.get(0))
    })
    .build()
}

/// The class `QueueShutDown`: the stdlib's where it has one.
fn shut_down_class() -> PyRes {
    if let Some(class) = Obj::import("asyncio.queues")?.getattr_opt(names::queue_shut_down())? {
        return Ok(class);
    }
    let namespace = Obj::dict()?;
    namespace.set_item(&Obj::str("__module__")?, &Obj::str("aioxide")?)?;
    let doc = "Raised when putting into or getting from a queue that was shut down.";
    namespace.set_item(&Obj::str("__doc__")?, &Obj::str(doc)?)?;
    let bases = Obj::tuple([Builtin::Exception.class()])?;
    Obj::import("builtins")?.getattr_str("type")?.call([
        names::queue_shut_down(),
        &bases,
        &namespace,
    ])
}

/// Makes the classes.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    let shut_down = shut_down_class()?;
    SHUT_DOWN.set(&shut_down);
    add_to_module(module, "QueueShutDown", &shut_down)?;
    EVENT.set(&match module.getattr_opt(&Obj::str("Event")?)? {
        Some(native) => native,
        None => stdlib::event()?.clone(),
    });
    let classes = [
        ("Queue", make_queue_class()?),
        ("PriorityQueue", make_priority_queue_class()?),
        ("LifoQueue", make_lifo_queue_class()?),
    ];
    for (kind, (name, class)) in KINDS.into_iter().zip(&classes) {
        remember_native(kind, class)?;
        add_to_module(module, name, class)?;
    }
    Ok(())
}
