//! The registry as a table of our own: up to 3.13, where CPython's is two sets that are slow and kept in Python. See
//! the parent module.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use pyo3::ffi;

use super::super::imported::Imported;
use super::super::native::{Native, Ref};
use super::super::object::{Obj, PyRes};
use super::assert_in_payload;

/// `_asyncio._get_running_loop`.
static GET_RUNNING_LOOP: Imported = Imported::new("_asyncio", "_get_running_loop");

/// An entry of the table.
#[derive(Clone, Copy)]
enum Entry {
    /// A registered task, not counted.
    Task(NonNull<ffi::PyObject>),
    /// A task that is not shown any more.
    Hidden,
    /// A free entry and the next one, counted from 1; 0 ends the list.
    Free(u32),
}

/// The table.
struct Table {
    /// All entries ever used.
    entries: Vec<Entry>,
    /// The first free entry, counted from 1; 0 for none.
    free: u32,
}

/// The table under the GIL.
struct Registry(UnsafeCell<Table>);

// SAFETY: used under the GIL alone.
unsafe impl Sync for Registry {}

/// All registered tasks.
static REGISTRY: Registry = Registry(UnsafeCell::new(Table {
    entries: Vec::new(),
    free: 0,
}));

impl Registry {
    /// Works on the table; `body` must not run Python code.
    #[inline]
    fn with<R>(&self, body: impl FnOnce(&mut Table) -> R) -> R {
        // SAFETY: under the GIL, and no body below calls anything that could come back here.
        body(unsafe { &mut *self.0.get() })
    }
}

impl Table {
    /// Stores a task and returns its place, counted from 1.
    #[inline]
    fn insert(&mut self, task: NonNull<ffi::PyObject>) -> u32 {
        let place = self.free;
        if place == 0 {
            self.entries.push(Entry::Task(task));
            return u32::try_from(self.entries.len()).expect("fewer tasks than fit in memory");
        }
        let entry = &mut self.entries[place as usize - 1];
        if let Entry::Free(next) = *entry {
            self.free = next;
        }
        *entry = Entry::Task(task);
        place
    }

    /// Frees a place that `insert` gave.
    #[inline]
    fn remove(&mut self, place: u32) {
        self.entries[place as usize - 1] = Entry::Free(self.free);
        self.free = place;
    }
}

/// Where a task stands in the registry: a plain field of the task's payload.
pub(crate) struct Registration(Cell<u32>);

impl Registration {
    /// Of a task that is not registered.
    pub(crate) const fn new() -> Self {
        Self(Cell::new(0))
    }

    /// Is the task registered?
    pub(crate) fn is_registered(&self) -> bool {
        self.0.get() != 0
    }

    /// Leaves the table.
    #[inline]
    fn leave(&self) {
        let place = self.0.replace(0);
        if place != 0 {
            REGISTRY.with(|table| table.remove(place));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Nothing to prepare. Called once at import, after the classes are made.
#[expect(clippy::unnecessary_wraps, reason = "newer versions may raise")]
pub(crate) fn init() -> PyRes<()> {
    Ok(())
}

/// Adds a task to the registry. Does nothing if it is registered already.
#[inline]
pub(crate) fn register<T: Native>(task: &Ref<T>, at: &Registration) {
    assert_in_payload(task, at);
    if !at.is_registered() {
        // The entry is freed by `unregister`, or when the payload with `at` is dropped: both before the memory goes.
        if let Some(task) = NonNull::new(task.obj().raw()) {
            at.0.set(REGISTRY.with(|table| table.insert(task)));
        }
    }
}

/// Takes a task out of the registry. Does nothing if it is not there.
///
/// Works in any thread and for a task without references, which it neither adds nor takes.
#[inline]
pub(crate) fn unregister<T: Native>(task: &Ref<T>, at: &Registration) {
    assert_in_payload(task, at);
    at.leave();
}

/// The tasks that only we know of, but for those that are just dying.
pub(crate) fn registered() -> Vec<Obj> {
    REGISTRY.with(|table| {
        table
            .entries
            .iter()
            .filter_map(|entry| match *entry {
                // SAFETY: a registered task has its memory. One without references is about to leave the table, and
                // must not be brought back to life; counting runs no code.
                Entry::Task(task) => unsafe {
                    (ffi::Py_REFCNT(task.as_ptr()) > 0).then(|| Obj::borrowed(task.as_ptr()))
                },
                Entry::Hidden | Entry::Free(_) => None,
            })
            .collect()
    })
}

/// Shows the tasks of now no more: they are those of another process.
pub(crate) fn forget_registered() {
    REGISTRY.with(|table| {
        for entry in &mut table.entries {
            if matches!(entry, Entry::Task(_)) {
                *entry = Entry::Hidden;
            }
        }
    });
}

/// The loop that runs in this thread.
pub(crate) fn running_loop() -> PyRes<Option<Obj>> {
    let running = GET_RUNNING_LOOP.get()?.call([])?;
    Ok((!running.is_none()).then_some(running))
}

/// Before 3.14 nobody looks at a task from outside.
#[inline]
pub(crate) fn publish_task<T: Native>(_task: &Ref<T>, _coro: &Obj, _name: Option<&Obj>) {}

/// Before 3.14 nobody looks at a task from outside.
#[inline]
pub(crate) fn publish_name<T: Native>(_task: &Ref<T>, _name: &Obj) {}

/// Before 3.14 nobody looks at a task from outside.
#[inline]
pub(crate) fn retract_task<T: Native>(_task: &Ref<T>) {}

/// Before 3.14 futures do not know who waits for them.
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "newer versions may raise")]
pub(crate) fn add_awaited_by(_future: &Obj, _waiter: &Obj) -> PyRes<()> {
    Ok(())
}

/// Before 3.14 futures do not know who waits for them.
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "newer versions may raise")]
pub(crate) fn discard_awaited_by(_future: &Obj, _waiter: &Obj) -> PyRes<()> {
    Ok(())
}

/// Before 3.14 futures do not know who waits for them.
#[expect(clippy::unnecessary_wraps, reason = "newer versions may raise")]
pub(crate) fn awaited_by(_future: &Obj) -> PyRes<Option<Obj>> {
    Ok(None)
}
