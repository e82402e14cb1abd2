//! Handles and the event loop's data. Answers `asyncio/events.py`; the loop's methods are in `base_events`.
//!
//! The ready queue holds [`Job`]s: a function and the object that it works on. A handle is one kind of object; a task
//! to step or to wake and a future whose callbacks are due are others, and need no handle.
//!
//! The direct path: native code pushes jobs itself while nobody could tell the difference, that is, while the loop is
//! open, not in debug mode, and none of the scheduling methods is overridden by a subclass, by an attribute of the
//! instance, or by an assignment to the class. Otherwise everything goes through the Python-visible methods.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use aioxide_engine::{Job as EngineJob, Scheduler, TimerId};

use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Compare, Extends, GilCell, GilSlot, Native, Obj, PyRes,
    Raised, Ref, Slot, Visit, ident, in_context, os_error, task_state, while_handling, without_gil,
};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = if cfg!(Py_3_14) {
    &["Handle", "TimerHandle", "_ThreadSafeHandle"]
} else {
    &["Handle", "TimerHandle"]
};

/// What runs a job. An error is an exception that must leave `run_forever`.
pub(crate) type JobBody = fn(&Ref<EventLoop>, Obj) -> PyRes<()>;

/// An interned name, as `names` gives it.
type Name = fn() -> &'static Obj;

/// The method that asyncio would have called for a job, if the job is one of these.
pub(crate) fn method_of(body: JobBody, methods: &[(JobBody, Name)]) -> Option<&'static Obj> {
    methods
        .iter()
        .find(|(job, _)| std::ptr::fn_addr_eq(body, *job))
        .map(|(_, method)| method())
}

/// One entry of the ready queue.
#[derive(Clone)]
pub(crate) struct Job {
    /// What to do.
    pub body: JobBody,
    /// What to do it to.
    pub object: Obj,
}

impl EngineJob for Job {}

/// An event loop.
pub(crate) struct EventLoop {
    /// Queues, timers, descriptors: from `__init__` to `close`, which gives the descriptors back.
    pub scheduler: RefCell<Option<Rc<Scheduler<Job>>>>,
    /// Has `__init__` run?
    pub initialized: Cell<bool>,
    /// May native code push jobs itself? See the head of the file.
    direct: Cell<bool>,
    /// The version of the class for which `direct` was found.
    class_version: Cell<u32>,
    /// Has a scheduling method been assigned on the instance?
    overridden: Cell<bool>,
    /// Was `close()` called?
    pub closed: Cell<bool>,
    /// Was `stop()` called?
    pub stopping: Cell<bool>,
    /// The thread that runs the loop, 0 when it is not running.
    pub thread_id: Cell<u64>,
    /// Is debug mode on?
    pub debug: Cell<bool>,
    /// The task being executed, for versions whose slot is a dict (up to 3.13).
    current_task: Slot,
    /// Was the current task written to CPython's dict?
    published: Cell<bool>,
    /// The handle being executed, for the slow callback report.
    pub current_handle: Slot,
    /// `set_exception_handler`.
    pub exception_handler: Slot,
    /// `set_task_factory`.
    pub task_factory: Slot,
    /// The executor of `run_in_executor(None, …)`.
    pub default_executor: Slot,
    /// Before how many forks the loop made it; none for somebody else's.
    pub executor_forks: Cell<Option<u32>>,
    /// Was `shutdown_default_executor` called?
    pub executor_shutdown_called: Cell<bool>,
    /// The threads that look up names, once there were any.
    pub resolver: Slot,
    /// A `WeakSet` of the async generators that started on this loop.
    pub asyncgens: Slot,
    /// Was `shutdown_asyncgens` called?
    pub asyncgens_shutdown_called: Cell<bool>,
    /// `slow_callback_duration`, in seconds.
    pub slow_callback_duration: Slot,
    /// The depth of origin tracking before debug mode changed it.
    pub saved_origin_depth: Cell<Option<i64>>,
    /// Reader and writer handles by descriptor, so that a second registration can cancel the first.
    pub descriptors: RefCell<ByNumber<Watched>>,
    /// The handles of signals, in a dict, once there are any.
    pub signal_handlers: Slot,
    /// What signals were written to before the loop ran and took its place, -1 if there was nothing.
    pub wakeup_fd_before: Cell<i32>,
    /// For each signal by number, how much oftener Python called its relay in this run than its number was heard.
    pub signal_balance: RefCell<[i8; 65]>,
    /// What runs when the current job is over.
    deferred: RefCell<VecDeque<Job>>,
    /// Is there anything of that kind?
    pub has_deferred: Cell<bool>,
    /// Is a job running, after which what is deferred will run?
    pub in_job: Cell<bool>,
    /// Was a job running when a fork began?
    pub forked_in_job: Cell<bool>,
    /// Is this a forked child that left the run in which it was forked, by an exception?
    pub left_to_parent: Cell<bool>,
    /// What transports receive into; taken out while it is in use.
    read_buffer: Cell<Vec<u8>>,
    /// Weak references to the transports of descriptors.
    pub transports: RefCell<ByNumber<Obj>>,
    /// The inodes of the Unix sockets to be removed, by listening socket: a dict.
    pub unix_server_sockets: Slot,
}

/// How often Python forked on the way from the first process to this one.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.get()
}

/// Notes, in a forked child, that it is one.
pub(crate) fn count_fork() {
    FORKS.set(FORKS.get().wrapping_add(1));
}

/// How often Python forked on the way from the first process to this one.
static FORKS: GilCell<u32> = GilCell::new(0);

/// The size of a loop's read buffer, in bytes.
///
/// Perf: "receive, protocol". Of 256 KiB, the half would have left the core's cache before it is looked at.
pub(crate) const READ_BUFFER: usize = 128 * 1024;

/// Something for each of some descriptors.
pub(crate) type ByNumber<T> = HashMap<i32, T, BuildHasherDefault<NumberHasher>>;

/// Something for each of some objects, by their addresses.
pub(crate) type ByAddress<T> = HashMap<usize, T, BuildHasherDefault<NumberHasher>>;

/// Spreads small numbers and addresses, which nobody chooses with bad intent.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i32(i32::from(*byte));
        }
    }

    /// An address, whose last bits are zero.
    #[inline]
    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64)
            .rotate_right(4)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    #[inline]
    fn write_i32(&mut self, number: i32) {
        self.0 = (self.0 ^ u64::from(number.cast_unsigned())).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Reading or writing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

/// The handles of one descriptor.
#[derive(Default)]
pub(crate) struct Watched {
    /// The reader's handle.
    pub reader: Option<Ref<Handle>>,
    /// The writer's handle.
    pub writer: Option<Ref<Handle>>,
    /// The file object that was last given for it: once closed, it has no other number to be found by.
    pub object: Option<Obj>,
}

impl Watched {
    /// The handle of a direction.
    pub(crate) fn handle_mut(&mut self, direction: Direction) -> &mut Option<Ref<Handle>> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }
}

/// Where the native base class of loops is kept.
static LOOP: Class<EventLoop> = Class::new();

impl Native for EventLoop {
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &LOOP
    }

    fn empty() -> Self {
        Self {
            scheduler: RefCell::new(None),
            initialized: Cell::new(false),
            direct: Cell::new(false),
            class_version: Cell::new(0),
            overridden: Cell::new(false),
            closed: Cell::new(false),
            stopping: Cell::new(false),
            thread_id: Cell::new(0),
            debug: Cell::new(false),
            current_task: Slot::empty(),
            published: Cell::new(false),
            current_handle: Slot::empty(),
            exception_handler: Slot::empty(),
            task_factory: Slot::empty(),
            default_executor: Slot::empty(),
            executor_forks: Cell::new(None),
            executor_shutdown_called: Cell::new(false),
            resolver: Slot::empty(),
            asyncgens: Slot::empty(),
            asyncgens_shutdown_called: Cell::new(false),
            slow_callback_duration: Slot::empty(),
            saved_origin_depth: Cell::new(None),
            descriptors: RefCell::default(),
            signal_handlers: Slot::empty(),
            wakeup_fd_before: Cell::new(-1),
            signal_balance: RefCell::new([0; 65]),
            deferred: RefCell::default(),
            has_deferred: Cell::new(false),
            in_job: Cell::new(false),
            forked_in_job: Cell::new(false),
            left_to_parent: Cell::new(false),
            read_buffer: Cell::default(),
            transports: RefCell::default(),
            unix_server_sockets: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        if let Ok(scheduler) = self.scheduler.try_borrow()
            && let Some(scheduler) = scheduler.as_ref()
        {
            scheduler.for_each_job(|job| visit.obj(&job.object));
        }
        visit.slot(&self.current_task);
        visit.slot(&self.current_handle);
        visit.slot(&self.exception_handler);
        visit.slot(&self.task_factory);
        visit.slot(&self.default_executor);
        visit.slot(&self.resolver);
        visit.slot(&self.asyncgens);
        visit.slot(&self.slow_callback_duration);
        visit.slot(&self.signal_handlers);
        if let Ok(deferred) = self.deferred.try_borrow() {
            for job in deferred.iter() {
                visit.obj(&job.object);
            }
        }
        if let Ok(transports) = self.transports.try_borrow() {
            for transport in transports.values() {
                visit.obj(transport);
            }
        }
        visit.slot(&self.unix_server_sockets);
        if let Ok(descriptors) = self.descriptors.try_borrow() {
            for watched in descriptors.values() {
                for handle in watched.reader.iter().chain(&watched.writer) {
                    visit.native(handle);
                }
                if let Some(object) = &watched.object {
                    visit.obj(object);
                }
            }
        }
    }

    fn clear(&self) {
        let scheduler = self
            .scheduler
            .try_borrow()
            .ok()
            .and_then(|scheduler| scheduler.clone());
        if let Some(scheduler) = scheduler {
            drop(scheduler.clear());
        }
        self.current_task.clear();
        self.current_handle.clear();
        self.exception_handler.clear();
        self.task_factory.clear();
        self.default_executor.clear();
        self.resolver.clear();
        self.asyncgens.clear();
        self.signal_handlers.clear();
        let deferred = self
            .deferred
            .try_borrow_mut()
            .map(|mut deferred| std::mem::take(&mut *deferred))
            .ok();
        drop(deferred);
        let transports = self
            .transports
            .try_borrow_mut()
            .map(|mut map| std::mem::take(&mut *map))
            .ok();
        drop(transports);
        self.unix_server_sockets.clear();
        let watched = self
            .descriptors
            .try_borrow_mut()
            .map(|mut map| std::mem::take(&mut *map))
            .ok();
        drop(watched);
    }

    fn needs_finalizer(&self) -> bool {
        !self.closed.get() && self.initialized.get()
    }

    fn finalize(this: &Ref<Self>) {
        if this.needs_finalizer()
            && let Err(raised) = crate::base_events::finalize(this)
        {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

/// The methods that must be native for the direct path.
const SCHEDULING: [&str; 8] = [
    "call_soon",
    "call_later",
    "call_at",
    "call_soon_threadsafe",
    "time",
    "create_future",
    "create_task",
    "get_debug",
];

/// The methods of those names that the class was made with: it can be assigned to, too.
static NATIVE_SCHEDULING: GilSlot = GilSlot::new();

impl EventLoop {
    /// Is this name one of a scheduling method?
    pub(crate) fn is_scheduling_name(name: &str) -> bool {
        SCHEDULING.contains(&name)
    }

    /// Notes the scheduling methods of the class, which has just been made.
    pub(crate) fn remember_scheduling(class: &Obj) -> PyRes<()> {
        let methods: PyRes<Vec<Obj>> = SCHEDULING
            .iter()
            .map(|name| class.getattr_str(name))
            .collect();
        NATIVE_SCHEDULING.set(&Obj::tuple(methods?)?);
        Ok(())
    }
}

impl Ref<EventLoop> {
    /// May native code push jobs itself? A load and two compares while nothing changed.
    #[inline]
    pub(crate) fn is_direct(&self) -> bool {
        if self.class_version.get() == self.obj().class_version() {
            self.direct.get()
        } else {
            self.find_direct()
        }
    }

    /// Finds out again whether the direct path is open: after a change of the class, the instance or the mode.
    #[cold]
    pub(crate) fn find_direct(&self) -> bool {
        let open = !self.overridden.get()
            && !self.debug.get()
            && !self.closed.get()
            && self.initialized.get()
            && self.class_schedules_natively();
        self.direct.set(open);
        self.class_version.set(self.obj().class_version());
        open
    }

    /// Are the scheduling methods that the class finds the native ones?
    fn class_schedules_natively(&self) -> bool {
        let class = self.obj().class();
        let Ok(native) = NATIVE_SCHEDULING.get() else {
            return false;
        };
        SCHEDULING
            .iter()
            .zip(native.tuple_items())
            .all(|(name, native)| {
                let found = class.getattr_str(name).map(|method| method.is(native));
                found.unwrap_or_else(|raised| {
                    raised.discard();
                    false
                })
            })
    }

    /// Notes that a scheduling method was assigned on the instance (or deleted again).
    pub(crate) fn note_assignment(&self, assigned: bool) {
        if assigned {
            self.overridden.set(true);
        }
        self.find_direct();
    }

    /// The scheduler of an open loop.
    #[inline]
    pub(crate) fn scheduler(&self) -> PyRes<Rc<Scheduler<Job>>> {
        self.scheduler.borrow().clone().ok_or_else(|| {
            Raised::runtime_error(if self.initialized.get() {
                "Event loop is closed"
            } else {
                "Event loop is not initialized"
            })
        })
    }

    /// Appends a job to the ready queue; for callers that saw `is_direct`.
    #[inline]
    pub(crate) fn push(&self, body: JobBody, object: Obj) {
        if let Some(scheduler) = self.scheduler.borrow().as_ref() {
            scheduler.push(Job { body, object });
        }
    }

    /// Makes a job the next one to run: the rest of a job that an exception left.
    #[cold]
    pub(crate) fn push_front(&self, body: JobBody, object: Obj) {
        if let Some(scheduler) = self.scheduler.borrow().as_ref() {
            scheduler.push_front(Job { body, object });
        }
    }

    /// Hands a job over from any thread and wakes the loop.
    #[inline]
    pub(crate) fn push_threadsafe(&self, body: JobBody, object: Obj) -> PyRes<()> {
        match self.scheduler()?.push_remote(Job { body, object }) {
            Ok(()) => Ok(()),
            Err(job) => {
                drop(job);
                Err(Raised::runtime_error("Event loop is closed"))
            }
        }
    }

    /// Runs a job in each turn that finds the descriptor ready: natively, without a handle. What watched it before, a
    /// handle of `add_reader` too, does so no more.
    pub(crate) fn watch(
        &self,
        fd: i32,
        direction: Direction,
        body: JobBody,
        object: Obj,
    ) -> PyRes<()> {
        self.check_closed()?;
        self.register(fd, direction, Job { body, object })?;
        self.cancel_watched(fd, direction)
    }

    /// Has the selector give out a job; the one that was there is dropped.
    pub(crate) fn register(&self, fd: i32, direction: Direction, job: Job) -> PyRes<()> {
        let scheduler = self.scheduler()?;
        let replaced = match direction {
            Direction::Read => scheduler.add_reader(fd, job),
            Direction::Write => scheduler.add_writer(fd, job),
        };
        replaced.map(drop).map_err(|error| os_error(&error))
    }

    /// Ends a watch, or what `add_reader` began. Was there one? A closed loop watches nothing.
    pub(crate) fn unwatch(&self, fd: i32, direction: Direction) -> PyRes<bool> {
        let found = self.take_watch(fd, direction).is_some();
        self.cancel_watched(fd, direction)?;
        Ok(found)
    }

    /// Ends a watch that may soon begin again, as that of somebody who waits for one message after another. While a job
    /// runs, the kernel is told only before the next look at the selector, if it is not watched again by then.
    pub(crate) fn suspend_watch(&self, fd: i32, direction: Direction) -> PyRes<bool> {
        if !self.is_running_job() {
            return self.unwatch(fd, direction);
        }
        let scheduler = self.scheduler.borrow().clone();
        let job = scheduler.and_then(|scheduler| match direction {
            Direction::Read => scheduler.suspend_reader(fd),
            Direction::Write => scheduler.suspend_writer(fd),
        });
        let found = job.is_some();
        drop(job);
        self.cancel_watched(fd, direction)?;
        Ok(found)
    }

    /// Takes the job that watches a descriptor.
    fn take_watch(&self, fd: i32, direction: Direction) -> Option<Job> {
        let scheduler = self.scheduler.borrow().clone()?;
        match direction {
            Direction::Read => scheduler.remove_reader(fd),
            Direction::Write => scheduler.remove_writer(fd),
        }
    }

    /// Ends the watch of `object`, if it is that which watches: a number may have another owner by now.
    pub(crate) fn unwatch_own(&self, fd: i32, direction: Direction, object: &Obj) -> PyRes<()> {
        let is_own = |job: &Job| job.object.is(object);
        let own = self
            .scheduler
            .borrow()
            .as_ref()
            .is_some_and(|scheduler| match direction {
                Direction::Read => scheduler.has_reader_like(fd, is_own),
                Direction::Write => scheduler.has_writer_like(fd, is_own),
            });
        if own {
            self.unwatch(fd, direction)?;
        }
        Ok(())
    }

    /// Is the descriptor watched?
    pub(crate) fn is_watched(&self, fd: i32, direction: Direction) -> bool {
        self.scheduler
            .borrow()
            .as_ref()
            .is_some_and(|scheduler| match direction {
                Direction::Read => scheduler.has_reader(fd),
                Direction::Write => scheduler.has_writer(fd),
            })
    }

    /// Is a job running, so that what is deferred will soon run?
    #[inline]
    pub(crate) fn is_running_job(&self) -> bool {
        self.in_job.get()
    }

    /// Is this the copy of a loop in a forked child that does not go on with it?
    pub(crate) fn is_parents(&self) -> bool {
        self.left_to_parent.get()
            || self
                .scheduler
                .borrow()
                .as_ref()
                .is_some_and(|scheduler| scheduler.is_forked())
    }

    /// Has a job run right after the current one.
    #[inline]
    pub(crate) fn defer(&self, body: JobBody, object: Obj) {
        self.deferred.borrow_mut().push_back(Job { body, object });
        self.has_deferred.set(true);
    }

    /// Runs what was deferred. All of it, also if one fails; the first error counts.
    pub(crate) fn run_deferred(&self) -> PyRes<()> {
        let mut outcome = Ok(());
        while self.has_deferred.get()
            && let Some(job) = self.take_deferred()
        {
            outcome = crate::ffi::finally(outcome, || (job.body)(self, job.object));
        }
        outcome
    }

    /// What was deferred first. One at a time: a fork meanwhile is to find the others here, or both processes would do
    /// them.
    #[inline]
    fn take_deferred(&self) -> Option<Job> {
        let mut deferred = self.deferred.borrow_mut();
        let job = deferred.pop_front();
        self.has_deferred.set(!deferred.is_empty());
        job
    }

    /// Lends the loop's buffer for receiving. Another look meanwhile gets another buffer.
    #[inline]
    pub(crate) fn with_read_buffer<R>(&self, body: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.read_buffer.take();
        if buffer.is_empty() {
            buffer = vec![0; READ_BUFFER];
        }
        let outcome = body(&mut buffer);
        self.read_buffer.set(buffer);
        outcome
    }

    /// Remembers the transport of a descriptor, which nobody else may watch then.
    pub(crate) fn note_transport(&self, fd: i32, transport: &Obj) -> PyRes<()> {
        let weak = transport.weak_reference()?;
        let previous = self.transports.borrow_mut().insert(fd, weak);
        drop(previous);
        Ok(())
    }

    /// The transport of a descriptor, if there is one that lives.
    pub(crate) fn transport_of(&self, fd: i32) -> PyRes<Option<Obj>> {
        let known = self.transports.borrow().get(&fd).cloned();
        match known {
            Some(weak) => weak.referent(),
            None => Ok(None),
        }
    }

    /// The transports of descriptors that are alive.
    pub(crate) fn known_transports(&self) -> PyRes<Vec<(i32, Obj)>> {
        let known: Vec<(i32, Obj)> = self
            .transports
            .borrow()
            .iter()
            .map(|(fd, weak)| (*fd, weak.clone()))
            .collect();
        let mut found = Vec::with_capacity(known.len());
        for (fd, weak) in known {
            if let Some(transport) = weak.referent()? {
                found.push((fd, transport));
            }
        }
        Ok(found)
    }

    /// Forgets the transport of a descriptor, unless there is another one by now.
    pub(crate) fn forget_transport(&self, fd: i32, transport: &Obj) {
        let is_it = self.transport_of(fd).map_or_else(
            |raised| {
                raised.discard();
                false
            },
            |known| known.is_none_or(|known| known.is(transport)),
        );
        if is_it {
            let weak = self.transports.borrow_mut().remove(&fd);
            drop(weak);
        }
    }

    /// Takes the handle of a direction out and cancels it.
    fn cancel_watched(&self, fd: i32, direction: Direction) -> PyRes<()> {
        // What is left of the entry holds a file object: it is dropped after the borrow.
        let (handle, rest) = {
            let mut descriptors = self.descriptors.borrow_mut();
            let Some(watched) = descriptors.get_mut(&fd) else {
                return Ok(());
            };
            let handle = watched.handle_mut(direction).take();
            let rest = (watched.reader.is_none() && watched.writer.is_none())
                .then(|| descriptors.remove(&fd));
            (handle, rest)
        };
        drop(rest);
        handle.map_or(Ok(()), |handle| handle.cancel())
    }

    /// Refuses a closed loop.
    #[inline]
    pub(crate) fn check_closed(&self) -> PyRes<()> {
        if self.closed.get() {
            return Err(Raised::runtime_error("Event loop is closed"));
        }
        Ok(())
    }

    /// Is `time` the native clock, so that no Python code has to be asked?
    #[inline]
    pub(crate) fn has_native_clock(&self) -> bool {
        self.is_direct() || self.class_schedules_natively() && !self.overridden.get()
    }

    /// The task being executed.
    #[cfg(not(Py_3_14))]
    pub(crate) fn current_task(&self) -> Option<Obj> {
        self.current_task.get()
    }

    /// The task being executed, unless CPython's dict has to be asked, which others write to.
    #[cfg(not(Py_3_14))]
    #[inline]
    pub(crate) fn unpublished_task(&self) -> Option<Obj> {
        if self.published.get() {
            None
        } else {
            self.current_task.get()
        }
    }

    /// Makes `task` the current task and gives the previous one (up to 3.13; later versions have a slot of their own).
    #[cfg(not(Py_3_14))]
    #[inline]
    pub(crate) fn swap_current_task(&self, task: Option<Obj>) -> PyRes<Option<Obj>> {
        let previous = self.current_task.replace(task);
        if self.published.get() {
            self.publish_current_task()?;
        }
        Ok(previous)
    }

    /// Writes the current task to CPython's dict. Called when somebody is about to look: every look-up hashes the loop.
    pub(crate) fn publish_current_task(&self) -> PyRes<()> {
        let current = self.current_task.get();
        // Set first: storing into the dict hashes the loop, which comes here again.
        self.published.set(current.is_some());
        let tasks = stdlib::current_tasks()?;
        match current {
            Some(task) => tasks.set_item(self.obj(), &task),
            None if tasks.dict_get(self.obj())?.is_some() => tasks.del_item(self.obj()),
            None => Ok(()),
        }
    }

    /// Called by `__hash__`: shows the current task to whoever looks it up in CPython's dict.
    pub(crate) fn before_lookup(&self) -> PyRes<()> {
        if !self.published.get() && self.current_task.is_some() {
            return self.publish_current_task();
        }
        Ok(())
    }
}

/// A loop as futures and tasks keep it: native, or anybody's.
#[derive(Clone)]
pub(crate) enum LoopRef {
    /// One of ours, or a subclass.
    Native(Ref<EventLoop>),
    /// Any other object.
    Foreign(Obj),
}

impl LoopRef {
    /// Looks at an object as a loop.
    #[inline]
    pub(crate) fn new(object: &Obj) -> Self {
        match LOOP.cast(object) {
            Some(native) => Self::Native(native.clone()),
            None => Self::Foreign(object.clone()),
        }
    }

    /// The loop as an object.
    #[inline]
    pub(crate) fn obj(&self) -> &Obj {
        match self {
            Self::Native(native) => native.obj(),
            Self::Foreign(object) => object,
        }
    }

    /// The native loop, while the direct path is open.
    #[inline]
    pub(crate) fn direct(&self) -> Option<&Ref<EventLoop>> {
        match self {
            Self::Native(native) if native.is_direct() => Some(native),
            _ => None,
        }
    }

    /// Is this a native loop's copy in a forked child that does not go on with it?
    pub(crate) fn is_parents(&self) -> bool {
        matches!(self, Self::Native(native) if native.is_parents())
    }

    /// `loop.get_debug()`.
    #[inline]
    pub(crate) fn debug(&self) -> PyRes<bool> {
        if self.direct().is_some() {
            return Ok(false);
        }
        self.obj().method(names::get_debug(), [])?.truth()
    }

    /// `loop.call_soon(callback, *args, context=context)` through the Python-visible method.
    pub(crate) fn call_soon(&self, callback: &Obj, args: &[&Obj], context: Option<&Obj>) -> PyRes {
        let mut all = vec![callback];
        all.extend(args);
        match context {
            Some(context) => {
                self.obj()
                    .method_kw(names::call_soon(), &all, &[(names::context(), context)])
            }
            None => self.obj().method_kw(names::call_soon(), &all, &[]),
        }
    }

    /// `loop.call_exception_handler(context)`.
    pub(crate) fn call_exception_handler(&self, context: &Obj) -> PyRes<()> {
        self.obj()
            .method(names::call_exception_handler(), [context])
            .map(drop)
    }
}

/// The loop running in this thread.
pub(crate) fn running_loop() -> PyRes<Option<Obj>> {
    task_state::running_loop()
}

/// `get_running_loop()`.
pub(crate) fn get_running_loop() -> PyRes {
    running_loop()?.ok_or_else(|| Raised::runtime_error("no running event loop"))
}

/// `get_event_loop()`, as CPython has it.
pub(crate) fn get_event_loop() -> PyRes {
    match running_loop()? {
        Some(running) => Ok(running),
        None => stdlib::get_event_loop()?.call([]),
    }
}

/// How many arguments a handle keeps without a tuple.
const FEW: usize = 3;

/// A callback with its arguments and context.
#[repr(C)]
pub(crate) struct Handle {
    /// The callable; gone when cancelled.
    callback: Slot,
    /// The first arguments, if there are no more than these.
    few: [Slot; FEW],
    /// All arguments in a tuple, if there are more.
    many: Slot,
    /// How many of `few` are used.
    count: Cell<u8>,
    /// Was it cancelled?
    cancelled: Cell<bool>,
    /// Where it runs.
    context: Slot,
    /// The loop.
    loop_: Slot,
    /// Where it was made, in debug mode.
    source_traceback: Slot,
    /// Its repr from before it was cancelled, in debug mode.
    saved_repr: Slot,
}

/// Where the class is kept.
static HANDLE: Class<Handle> = Class::new();

impl Native for Handle {
    const FREELIST: usize = 2048;

    fn class() -> &'static Class<Self> {
        &HANDLE
    }

    fn empty() -> Self {
        Self {
            callback: Slot::empty(),
            few: [const { Slot::empty() }; FEW],
            many: Slot::empty(),
            count: Cell::new(0),
            cancelled: Cell::new(false),
            context: Slot::empty(),
            loop_: Slot::empty(),
            source_traceback: Slot::empty(),
            saved_repr: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.callback);
        for slot in &self.few {
            visit.slot(slot);
        }
        visit.slot(&self.many);
        visit.slot(&self.context);
        visit.slot(&self.loop_);
        visit.slot(&self.source_traceback);
    }

    fn clear(&self) {
        self.forget_call();
        self.context.clear();
        self.loop_.clear();
        self.source_traceback.clear();
    }
}

impl Handle {
    /// A handle's payload.
    #[inline]
    pub(crate) fn payload(callback: &Obj, args: &[Obj], context: Obj, loop_: &Obj) -> PyRes<Self> {
        let keep = |index: usize| args.get(index).cloned().map_or_else(Slot::empty, Slot::new);
        let (few, many) = if args.len() <= FEW {
            ([keep(0), keep(1), keep(2)], Slot::empty())
        } else {
            let all = Obj::tuple(args.iter().cloned())?;
            ([const { Slot::empty() }; FEW], Slot::new(all))
        };
        Ok(Self {
            callback: Slot::new(callback.clone()),
            few,
            many,
            count: Cell::new(
                u8::try_from(args.len())
                    .ok()
                    .filter(|&count| usize::from(count) <= FEW)
                    .unwrap_or(0),
            ),
            cancelled: Cell::new(false),
            context: Slot::new(context),
            loop_: Slot::new(loop_.clone()),
            source_traceback: Slot::empty(),
            saved_repr: Slot::empty(),
        })
    }

    /// The payload of a handle whose work is not a Python callback, but that of the class that extends it.
    #[inline]
    pub(crate) fn native(context: Obj, loop_: &Obj) -> Self {
        let handle = Self::empty();
        handle.context.set(context);
        handle.loop_.set(loop_.clone());
        handle
    }

    /// Where it runs.
    #[inline]
    pub(crate) fn context(&self) -> Option<Obj> {
        self.context.get()
    }

    /// Fills an empty handle; the tuple of arguments is kept as it is.
    fn fill(&self, callback: &Obj, args: &Obj, context: Obj, loop_: &Obj) {
        self.callback.set(callback.clone());
        self.many.set(args.clone());
        self.context.set(context);
        self.loop_.set(loop_.clone());
    }

    /// Gives up callback and arguments.
    fn forget_call(&self) {
        self.callback.clear();
        for slot in &self.few {
            slot.clear();
        }
        self.many.clear();
    }

    /// Was it cancelled?
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// The arguments as a tuple, `None` once cancelled.
    pub(crate) fn args(&self) -> PyRes<Option<Obj>> {
        if self.cancelled.get() {
            return Ok(None);
        }
        match self.many.get() {
            Some(all) => Ok(Some(all)),
            None => Obj::tuple(
                self.few[..usize::from(self.count.get())]
                    .iter()
                    .filter_map(Slot::get),
            )
            .map(Some),
        }
    }

    /// Calls the callback in its context, whatever comes of it.
    #[inline]
    fn call(&self) -> PyRes<()> {
        let (Some(callback), Some(context)) = (self.callback.get(), self.context.get()) else {
            return Ok(());
        };
        if !context.is_context() {
            return call_in_stranger(&context, callback, self.args()?);
        }
        if let Some(all) = self.many.get() {
            return in_context(&context, || callback.call_dict(&all, None)).map(drop);
        }
        let few = [self.few[0].get(), self.few[1].get(), self.few[2].get()];
        in_context(&context, || match &few {
            [None, ..] => callback.call([]),
            [Some(a), None, _] => callback.call([a]),
            [Some(a), Some(b), None] => callback.call([a, b]),
            [Some(a), Some(b), Some(c)] => callback.call([a, b, c]),
        })
        .map(drop)
    }

    /// Where it was made, if that was recorded.
    pub(crate) fn source(&self) -> Option<Obj> {
        self.source_traceback.get()
    }

    /// Keeps the stack of the caller, for debug mode.
    pub(crate) fn record_source(&self) -> PyRes<()> {
        self.source_traceback
            .set(stdlib::extract_stack()?.call([])?);
        Ok(())
    }
}

/// Calls a callback in what is no context, through its `run`, as asyncio does with any.
#[cold]
fn call_in_stranger(context: &Obj, callback: Obj, args: Option<Obj>) -> PyRes<()> {
    let mut all = vec![callback];
    if let Some(args) = args {
        all.extend(args.items()?);
    }
    context.getattr(names::run())?.call_args(&all).map(drop)
}

/// Is this an exception that must leave the loop?
pub(crate) fn leaves_the_loop(raised: &Raised) -> bool {
    raised.is(Builtin::KeyboardInterrupt) || raised.is(Builtin::SystemExit)
}

/// Reports what a callback raised: `KeyboardInterrupt` and `SystemExit` go on, the rest goes to the loop's handler.
#[cold]
pub(crate) fn report_callback_error(
    raised: Raised,
    loop_: &Obj,
    callback: &Obj,
    args: &Obj,
    handle: &Obj,
    source_traceback: Option<&Obj>,
) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let source = format_callback_source(loop_, callback, args)?;
    report_error_in(&source, &exception, loop_, handle, source_traceback)
}

/// The same for a callback that is known by its name.
pub(crate) fn report_error_in(
    source: &str,
    exception: &Obj,
    loop_: &Obj,
    handle: &Obj,
    source_traceback: Option<&Obj>,
) -> PyRes<()> {
    let context = Obj::dict()?;
    context.set_item(
        names::message(),
        &Obj::str(&format!("Exception in callback {source}"))?,
    )?;
    context.set_item(names::exception(), exception)?;
    context.set_item(names::handle(), handle)?;
    if let Some(traceback) = source_traceback {
        context.set_item(names::source_traceback(), traceback)?;
    }
    while_handling(exception, || {
        loop_.method(names::call_exception_handler(), [&context])
    })
    .map(drop)
}

/// `format_helpers._format_callback_source`, with arguments shown as the running version does.
fn format_callback_source(loop_: &Obj, callback: &Obj, args: &Obj) -> PyRes<String> {
    let format = stdlib::format_callback_source()?;
    if cfg!(Py_3_13) {
        let debug = loop_.method(names::get_debug(), [])?;
        format
            .call_kw(&[callback, args], &[(names::debug(), &debug)])?
            .text()
    } else {
        format.call([callback, args])?.text()
    }
}

impl Ref<EventLoop> {
    /// Ends the watch of a descriptor that was closed: the selector does not know it any more, so its job runs now, for
    /// the last time, and finds that out.
    pub(crate) fn run_last(&self, fd: i32, direction: Direction) -> PyRes<()> {
        match self.take_watch(fd, direction) {
            Some(job) => (job.body)(self, job.object),
            None => Ok(()),
        }
    }
}

impl Ref<Handle> {
    /// Runs the callback; errors go to the loop's exception handler.
    pub(crate) fn run(&self) -> PyRes<()> {
        if self.cancelled.get() {
            return Ok(());
        }
        let Err(raised) = self.call() else {
            return Ok(());
        };
        let (Some(loop_), Some(callback)) = (self.loop_.get(), self.callback.get()) else {
            // Cancelled by its own callback, which then raised: the callback is gone, the error is not.
            return self.report_cancelled(raised);
        };
        let args = self.args()?.map_or_else(|| Obj::tuple([]), Ok)?;
        report_callback_error(
            raised,
            &loop_,
            &callback,
            &args,
            self.obj(),
            self.source_traceback.get().as_ref(),
        )
    }

    /// Reports the error of a callback that cancelled its own handle.
    #[cold]
    fn report_cancelled(&self, raised: Raised) -> PyRes<()> {
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        let Some(loop_) = self.loop_.get() else {
            return Err(raised);
        };
        let exception = raised.take();
        let context = Obj::dict()?;
        let source = format_callback_source(&loop_, &Obj::none(), &Obj::tuple([])?)?;
        context.set_item(
            names::message(),
            &Obj::str(&format!("Exception in callback {source}"))?,
        )?;
        context.set_item(names::exception(), &exception)?;
        context.set_item(names::handle(), self.obj())?;
        while_handling(&exception, || {
            loop_.method(names::call_exception_handler(), [&context])
        })
        .map(drop)
    }

    /// `Handle.cancel()`.
    pub(crate) fn cancel(&self) -> PyRes<()> {
        if self.cancelled.get() {
            return Ok(());
        }
        if let Some(loop_) = self.loop_.get()
            && LoopRef::new(&loop_).debug()?
        {
            self.cancelled.set(true);
            self.saved_repr.set(Obj::str(&self.obj().repr()?)?);
        }
        self.cancelled.set(true);
        self.forget_call();
        Ok(())
    }

    /// The words of the repr.
    fn repr_words(&self, when: Option<&str>) -> PyRes<String> {
        let mut words = vec![self.obj().class_name()];
        if self.cancelled.get() {
            words.push(String::from("cancelled"));
        }
        if let Some(when) = when {
            words.push(format!("when={when}"));
        }
        if let (Some(callback), Some(loop_)) = (self.callback.get(), self.loop_.get()) {
            let args = match self.many.get() {
                Some(all) => all,
                None => Obj::tuple(
                    self.few[..usize::from(self.count.get())]
                        .iter()
                        .filter_map(Slot::get),
                )?,
            };
            words.push(format_callback_source(&loop_, &callback, &args)?);
        }
        words.extend(created_at(self.source().as_ref())?);
        Ok(format!("<{}>", words.join(" ")))
    }

    /// The repr, as it was before the handle was cancelled if that was kept.
    fn repr_text(&self, when: Option<&str>) -> PyRes<String> {
        match self.saved_repr.get() {
            Some(saved) => saved.text(),
            None => self.repr_words(when),
        }
    }
}

/// `created at file:line`, from the last frame of a source traceback.
pub(crate) fn created_at(source_traceback: Option<&Obj>) -> PyRes<Option<String>> {
    let Some(frames) = source_traceback else {
        return Ok(None);
    };
    let frames = frames.items()?;
    let Some(frame) = frames.last() else {
        return Ok(None);
    };
    let (file, line) = (frame.item(&Obj::int(0)?)?, frame.item(&Obj::int(1)?)?);
    Ok(Some(format!(
        "created at {}:{}",
        file.to_str()?.text()?,
        line.to_str()?.text()?
    )))
}

/// The job of a handle.
pub(crate) fn run_handle(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match HANDLE.cast(&object) {
        Some(handle) => handle.run(),
        None => Ok(()),
    }
}

/// A handle that waits for its time.
#[repr(C)]
pub(crate) struct TimerHandle {
    /// The callback.
    handle: Handle,
    /// The deadline as it was given, in seconds of `loop.time()`; empty if it is the number below.
    when: Slot,
    /// The deadline as a number.
    seconds: Cell<f64>,
    /// The timer, while it waits.
    timer: Cell<Option<TimerId>>,
    /// Does the loop hold it as scheduled?
    scheduled: Cell<bool>,
}

/// Where the class is kept.
static TIMER_HANDLE: Class<TimerHandle> = Class::new();

impl Native for TimerHandle {
    const FREELIST: usize = 2048;

    fn class() -> &'static Class<Self> {
        &TIMER_HANDLE
    }

    fn empty() -> Self {
        Self {
            handle: Handle::empty(),
            when: Slot::empty(),
            seconds: Cell::new(0.0),
            timer: Cell::new(None),
            scheduled: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.handle.traverse(visit);
        visit.slot(&self.when);
    }

    fn clear(&self) {
        self.handle.clear();
    }
}

impl Extends<Handle> for TimerHandle {
    fn base(&self) -> &Handle {
        &self.handle
    }
}

impl TimerHandle {
    /// A timer handle's payload. `when` is left out if it would be a `float` of `seconds`.
    #[inline]
    pub(crate) fn payload(
        when: Option<Obj>,
        seconds: f64,
        callback: &Obj,
        args: &[Obj],
        context: Obj,
        loop_: &Obj,
    ) -> PyRes<Self> {
        Ok(Self {
            handle: Handle::payload(callback, args, context, loop_)?,
            when: when.map_or_else(Slot::empty, Slot::new),
            seconds: Cell::new(seconds),
            timer: Cell::new(None),
            scheduled: Cell::new(false),
        })
    }

    /// `when()`.
    fn when(&self) -> PyRes {
        self.when
            .get()
            .map_or_else(|| Obj::float(self.seconds.get()), Ok)
    }
}

impl Ref<TimerHandle> {
    /// Notes the timer that will run this handle.
    pub(crate) fn scheduled_as(&self, timer: TimerId) {
        self.timer.set(Some(timer));
        self.scheduled.set(true);
    }

    /// Notes that the timer fired.
    pub(crate) fn fired(&self) {
        self.timer.set(None);
        self.scheduled.set(false);
    }

    /// `TimerHandle.cancel()`: takes the timer out of the heap at once.
    pub(crate) fn cancel(&self) -> PyRes<()> {
        if self.handle.cancelled.get() {
            return Ok(());
        }
        let loop_ = self.handle.loop_.get();
        match loop_.as_ref().map(LoopRef::new) {
            Some(LoopRef::Native(native)) => {
                let job = self
                    .timer
                    .take()
                    .and_then(|timer| native.scheduler.borrow().as_ref()?.cancel_timer(timer));
                self.scheduled.set(false);
                self.upcast::<Handle>().cancel()?;
                drop(job);
                Ok(())
            }
            Some(LoopRef::Foreign(foreign)) => {
                foreign.method(names::timer_handle_cancelled(), [self.obj()])?;
                self.upcast::<Handle>().cancel()
            }
            None => self.upcast::<Handle>().cancel(),
        }
    }

    /// Compares deadlines, and for equality everything, as asyncio does.
    fn compare(&self, other: &Obj, how: Compare) -> PyRes<Option<bool>> {
        let Some(other) = TIMER_HANDLE.cast(other) else {
            return Ok(None);
        };
        let (mine, theirs) = (self.when()?, other.when()?);
        let equal = || -> PyRes<bool> {
            Ok(mine.equals(&theirs)?
                && self
                    .handle
                    .callback
                    .get_or_none()
                    .equals(&other.handle.callback.get_or_none())?
                && self
                    .args()?
                    .unwrap_or_else(Obj::none)
                    .equals(&other.args()?.unwrap_or_else(Obj::none))?
                && self.handle.cancelled.get() == other.handle.cancelled.get())
        };
        Ok(Some(match how {
            Compare::Lt => mine.less_than(&theirs)?,
            Compare::Gt => theirs.less_than(&mine)?,
            Compare::Le => mine.less_than(&theirs)? || equal()?,
            Compare::Ge => theirs.less_than(&mine)? || equal()?,
            Compare::Eq => equal()?,
            Compare::Ne => !equal()?,
        }))
    }

    /// The arguments as a tuple, `None` once cancelled.
    fn args(&self) -> PyRes<Option<Obj>> {
        self.handle.args()
    }
}

/// The job of a timer handle.
pub(crate) fn run_timer(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match TIMER_HANDLE.cast(&object) {
        Some(timer) => {
            timer.fired();
            timer.upcast::<Handle>().run()
        }
        None => Ok(()),
    }
}

/// A handle from `call_soon_threadsafe`, from 3.14 on: cancelling it in another thread waits while it runs.
#[repr(C)]
pub(crate) struct ThreadSafeHandle {
    /// The callback.
    handle: Handle,
    /// The thread that is running the callback, 0 for none.
    running_in: Cell<u64>,
}

/// Where the class is kept.
static THREAD_SAFE_HANDLE: Class<ThreadSafeHandle> = Class::new();

impl Native for ThreadSafeHandle {
    const FREELIST: usize = 2048;

    fn class() -> &'static Class<Self> {
        &THREAD_SAFE_HANDLE
    }

    fn empty() -> Self {
        Self {
            handle: Handle::empty(),
            running_in: Cell::new(0),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.handle.traverse(visit);
    }

    fn clear(&self) {
        self.handle.clear();
    }
}

impl Extends<Handle> for ThreadSafeHandle {
    fn base(&self) -> &Handle {
        &self.handle
    }
}

/// Counts the runs of thread-safe handles that ended while somebody waited for one.
static ENDED: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
/// How many threads wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl ThreadSafeHandle {
    /// A handle's payload.
    pub(crate) fn payload(callback: &Obj, args: &[Obj], context: Obj, loop_: &Obj) -> PyRes<Self> {
        Ok(Self {
            handle: Handle::payload(callback, args, context, loop_)?,
            running_in: Cell::new(0),
        })
    }

    /// Waits until no other thread runs the callback. The GIL is released meanwhile.
    fn wait_for_run(&self) {
        while self.running_in.get() != 0 && self.running_in.get() != ident() {
            WAITING.fetch_add(1, Ordering::SeqCst);
            let seen = *ENDED.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The run cannot end before the GIL is released below, so that its end is not missed.
            without_gil(|| {
                let mut ended = ENDED.0.lock().unwrap_or_else(PoisonError::into_inner);
                while *ended == seen {
                    ended = ENDED.1.wait(ended).unwrap_or_else(PoisonError::into_inner);
                }
            });
            WAITING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Ref<ThreadSafeHandle> {
    /// Runs the callback, noting the thread.
    fn run_noted(&self) -> PyRes<()> {
        self.running_in.set(ident());
        let outcome = self.upcast::<Handle>().run();
        self.running_in.set(0);
        if WAITING.load(Ordering::SeqCst) > 0 {
            *ENDED.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            ENDED.1.notify_all();
        }
        outcome
    }
}

/// The job of a thread-safe handle.
pub(crate) fn run_thread_safe(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match THREAD_SAFE_HANDLE.cast(&object) {
        Some(handle) => handle.run_noted(),
        None => Ok(()),
    }
}

/// What `Handle(callback, args, loop, context=None)` does.
fn init_handle(
    handle: &Handle,
    callback: &Obj,
    args: &Obj,
    loop_: &Obj,
    context: Option<&Obj>,
) -> PyRes<()> {
    let context = context.map_or_else(crate::ffi::copy_current_context, |context| {
        Ok(context.clone())
    })?;
    handle.fill(callback, args, context, loop_);
    if loop_.method(names::get_debug(), [])?.truth()? {
        handle.record_source()?;
    }
    Ok(())
}

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    let handle = handle_class()?;
    thread_safe_handle_class(handle.clone())?;
    timer_handle_class(handle)?;
    Ok(())
}

/// `Handle`.
fn handle_class() -> PyRes {
    ClassBuilder::<Handle>::new(
        "asyncio.events",
        "Handle",
        "What `loop.call_soon()` and `loop.call_soon_threadsafe()` return.",
    )
    .init(
        "(self, callback, args, loop, context=None)",
        |this, args| init_handle(this, args.req(0), args.req(1), args.req(2), args.some(3)),
    )
    .repr(|this| this.repr_text(None))
    .method(
        "cancel(self)",
        "Cancels the callback; it will not run.",
        |this, _| this.cancel(),
    )
    .method(
        "cancelled(self)",
        "Was the callback cancelled?",
        |this, _| Ok(this.cancelled.get()),
    )
    .method(
        "get_context(self)",
        "The context in which the callback runs.",
        |this, _| Ok(this.context.get()),
    )
    .method("_run(self)", "Runs the callback.", |this, _| this.run())
    .method("_repr_info(self)", "The words of the repr.", |this, _| {
        let text = this.repr_words(None)?;
        Obj::list([Obj::str(text.trim_matches(['<', '>']))?])
    })
    .getter("_callback", |this| Ok(this.callback.get()))
    .getter("_args", |this| this.args())
    .getter("_context", |this| Ok(this.context.get()))
    .getter("_loop", |this| Ok(this.loop_.get()))
    .property(
        "_cancelled",
        |this| Ok(this.cancelled.get()),
        |this, value| {
            this.cancelled.set(value.map_or(Ok(false), Obj::truth)?);
            Ok(())
        },
    )
    .slot_property("_source_traceback", |this| &this.source_traceback)
    .getter("_repr", |this| Ok(this.saved_repr.get()))
    .build()
}

/// `_ThreadSafeHandle`.
fn thread_safe_handle_class(handle: Obj) -> PyRes {
    ClassBuilder::<ThreadSafeHandle>::new(
        "asyncio.events",
        "_ThreadSafeHandle",
        "What `loop.call_soon_threadsafe()` returns from 3.14 on.",
    )
    .base(handle)
    .init(
        "(self, callback, args, loop, context=None)",
        |this, args| {
            init_handle(
                &this.handle,
                args.req(0),
                args.req(1),
                args.req(2),
                args.some(3),
            )
        },
    )
    .repr(|this| this.upcast::<Handle>().repr_text(None))
    .method(
        "cancel(self)",
        "Cancels the callback; waits while another thread runs it.",
        |this, _| {
            this.wait_for_run();
            this.upcast::<Handle>().cancel()
        },
    )
    .method(
        "cancelled(self)",
        "Was the callback cancelled?",
        |this, _| {
            this.wait_for_run();
            Ok(this.handle.cancelled.get())
        },
    )
    .method("_run(self)", "Runs the callback.", |this, _| {
        this.run_noted()
    })
    .build()
}

/// `TimerHandle`.
fn timer_handle_class(handle: Obj) -> PyRes {
    ClassBuilder::<TimerHandle>::new(
        "asyncio.events",
        "TimerHandle",
        "What `loop.call_later()` and `loop.call_at()` return.",
    )
    .base(handle)
    .init(
        "(self, when, callback, args, loop, context=None)",
        |this, args| {
            this.when.set(args.req(0).clone());
            init_handle(
                &this.handle,
                args.req(1),
                args.req(2),
                args.req(3),
                args.some(4),
            )
        },
    )
    .repr(|this| {
        let when = this.when()?.to_str()?.text()?;
        this.upcast::<Handle>().repr_text(Some(&when))
    })
    .hash(|this| this.when()?.hash())
    .compare(Ref::compare)
    .method(
        "cancel(self)",
        "Cancels the callback; it will not run.",
        |this, _| this.cancel(),
    )
    .method(
        "when(self)",
        "The deadline, in seconds of `loop.time()`.",
        |this, _| this.when(),
    )
    .getter("_when", |this| this.when())
    .property(
        "_scheduled",
        |this| Ok(this.scheduled.get()),
        |this, value| {
            this.scheduled.set(value.map_or(Ok(false), Obj::truth)?);
            Ok(())
        },
    )
    .build()
}

/// Binds arguments of `call_soon` and its relatives: everything after the first `skip` positions.
pub(crate) fn context_argument(args: &Args<'_>, index: usize) -> PyRes {
    match args.some(index) {
        Some(context) => Ok(context.clone()),
        None => crate::ffi::copy_current_context(),
    }
}
