//! The slots in CPython's own memory: 3.14 and later. See the parent module.

use std::cell::Cell;
use std::ptr;

use pyo3::ffi;

use super::super::imported::{Imported, Interned};
use super::super::native::{GilCell, Native, Ref};
use super::super::object::{Obj, PyRes, truth};
use super::assert_in_payload;
use super::fields::{self, Fields};

/// Where things are; measured by [`init`].
static FIELDS: GilCell<Fields> = GilCell::new(Fields {
    name: 0,
    coro: 0,
    node: 0,
    is_task: 0,
    awaited_by: 0,
    awaited_by_is_set: 0,
    running_loop: 0,
    running_task: 0,
    tasks_head: 0,
});

/// `_asyncio.Future`.
static FUTURE: Imported = Imported::new("_asyncio", "Future");
/// `_asyncio.Task`, which is no subclass of it.
static TASK: Imported = Imported::new("_asyncio", "Task");
/// Shown for a task that was published without a name.
static NAMELESS: Interned = Interned::new("?");

/// Measures where CPython keeps what. Called once at import, after the classes are made.
pub(crate) fn init() -> PyRes<()> {
    FIELDS.set(fields::measure()?);
    Ok(())
}

/// The measured fields.
#[inline]
fn fields() -> Fields {
    let fields = FIELDS.get();
    assert!(fields.node != 0, "`task_state::init` comes first");
    fields
}

/// `struct llist_node`: a link of a ring through tasks and one head.
#[repr(C)]
struct Node {
    /// The node behind, NULL outside a ring.
    next: *mut Node,
    /// The node in front.
    previous: *mut Node,
}

impl Node {
    /// Puts a node at the end of a ring.
    ///
    /// # Safety
    /// `head` must be the head of a ring, `node` be in none; both stay where they are while they are linked.
    #[inline]
    unsafe fn link(node: *mut Self, head: *mut Self) {
        // SAFETY: a head's neighbours are live nodes, the head itself if the ring is empty.
        unsafe {
            let last = (*head).previous;
            (*node).previous = last;
            (*node).next = head;
            (*last).next = node;
            (*head).previous = node;
        }
    }

    /// Takes a node out of the ring it is in, if it is in one.
    ///
    /// CPython moves rings from a dying thread to the interpreter, so only the neighbours say which ring it is.
    ///
    /// # Safety
    /// `node` must be a node, of a task that may be dying but still has its memory.
    #[inline]
    unsafe fn unlink(node: *mut Self) {
        // SAFETY: the neighbours of a linked node are live: every node leaves before its memory goes. All links are
        // read and written under the GIL.
        unsafe {
            let Self { next, previous } = node.read();
            if next.is_null() {
                return;
            }
            (*previous).next = next;
            (*next).previous = previous;
            node.write(Self {
                next: ptr::null_mut(),
                previous: ptr::null_mut(),
            });
        }
    }
}

/// Where a task stands in the registry: a plain field of the task's payload.
pub(crate) struct Registration(Cell<*mut Node>);

impl Registration {
    /// Of a task that is not registered.
    pub(crate) const fn new() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let node = self.0.get();
        if !node.is_null() {
            // SAFETY: the node of the task whose payload is just being dropped: its memory is given back later.
            unsafe { Node::unlink(node) };
        }
    }
}

/// A field of a future-layout object.
///
/// # Safety
/// `object` must be an instance of `_asyncio.Future` or `_asyncio.Task`, and the latter or of a native class for the
/// fields of tasks; `V` must be the type of the field.
#[inline]
unsafe fn field<V>(object: &Obj, at: u16) -> *mut V {
    // SAFETY: the measured offset is within the base's memory, which native classes keep as large as a task's.
    unsafe { object.raw().cast::<V>().byte_add(usize::from(at)) }
}

/// A field of this thread's state.
///
/// # Safety
/// `V` must be the type of the field.
#[inline]
unsafe fn thread_field<V>(at: u16) -> *mut V {
    // SAFETY: the measured offset is within the thread state.
    unsafe { fields::thread_state().cast::<V>().byte_add(usize::from(at)) }
}

/// Adds a task to the registry of this thread. Does nothing if it is registered already.
#[inline]
pub(crate) fn register<T: Native>(task: &Ref<T>, at: &Registration) {
    assert_in_payload(task, at);
    let fields = fields();
    // SAFETY: the future layout has a node at this offset.
    let node = unsafe { field::<Node>(task.obj(), fields.node) };
    at.0.set(node);
    // SAFETY: the node is the task's own. It leaves the ring by `unregister`, or when the payload with `at` is
    // dropped, both before its memory goes; the head belongs to this thread, and CPython empties it before that ends.
    unsafe {
        if (*node).next.is_null() {
            Node::link(node, thread_field(fields.tasks_head));
        }
    }
}

/// Takes a task out of the registry, in which Python code may have put it. Does nothing if it is not there.
///
/// Works in any thread and for a task without references, which it neither adds nor takes.
#[inline]
pub(crate) fn unregister<T: Native>(task: &Ref<T>, at: &Registration) {
    assert_in_payload(task, at);
    at.0.set(ptr::null_mut());
    // SAFETY: the future layout has a node at this offset.
    unsafe { Node::unlink(field(task.obj(), fields().node)) };
}

/// The tasks of another process: CPython itself has forgotten them in a forked child.
pub(crate) fn forget_registered() {}

/// The tasks that only we know of: none, `asyncio.all_tasks()` sees them all.
pub(crate) fn registered() -> Vec<Obj> {
    Vec::new()
}

/// Makes `task` the current task of this thread and returns the one before.
#[inline]
pub(crate) fn swap_current_task(task: Option<Obj>) -> Option<Obj> {
    // SAFETY: the field is a strong reference or NULL, which is what an `Option<Obj>` is. It is this thread's own.
    unsafe { thread_field::<Option<Obj>>(fields().running_task).replace(task) }
}

/// The current task of this thread.
#[inline]
pub(crate) fn current_task() -> Option<Obj> {
    // SAFETY: as in `swap_current_task`; cloning only counts.
    unsafe { (*thread_field::<Option<Obj>>(fields().running_task)).clone() }
}

/// The loop that runs in this thread.
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "older versions may raise")]
pub(crate) fn running_loop() -> PyRes<Option<Obj>> {
    // SAFETY: the field is a strong reference or NULL, which is what an `Option<Obj>` is; cloning only counts.
    Ok(unsafe { (*thread_field::<Option<Obj>>(fields().running_loop)).clone() })
}

/// Is `loop_` the one that runs in this thread?
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "older versions may raise")]
pub(crate) fn is_running_loop(loop_: &Obj) -> PyRes<bool> {
    // SAFETY: the field is a pointer; only its address is looked at.
    let running = unsafe { thread_field::<*mut ffi::PyObject>(fields().running_loop).read() };
    Ok(ptr::eq(running, loop_.raw()))
}

/// Shows coroutine and name of a task to whoever reads the base's fields: `python -m asyncio ps`, the call graph.
///
/// A name that nobody has asked for may be given as its number, as CPython itself does; without one, what was there
/// stays. This comes before [`register`]: a registered task without a name makes `ps` fail for the whole process.
#[inline]
pub(crate) fn publish_task<T: Native>(task: &Ref<T>, coro: &Obj, name: Option<&Obj>) {
    let fields = fields();
    // Readers take the object for a coroutine without looking at its class, so other awaitables are not shown.
    let readable = coro.is_coroutine() || coro.is_generator();
    set_field(task, fields.coro, readable.then(|| coro.clone()));
    // SAFETY: the future layout has this field, a strong reference or NULL, which is what an `Option<Obj>` is.
    let nameless = unsafe { (*field::<Option<Obj>>(task.obj(), fields.name)).is_none() };
    if let Some(name) = name.or_else(|| nameless.then(|| NAMELESS.get())) {
        set_field(task, fields.name, Some(name.clone()));
    }
    // SAFETY: the future layout has this byte.
    unsafe { field::<u8>(task.obj(), fields.is_task).write(1) };
}

/// Shows a task's name, a `str` or the number of a name that nobody has asked for.
#[inline]
pub(crate) fn publish_name<T: Native>(task: &Ref<T>, name: &Obj) {
    set_field(task, fields().name, Some(name.clone()));
}

/// Gives up what [`publish_task`] holds of a task that is done, but for its name.
///
/// Differs: CPython keeps the coroutine of a task that did not finish at once.
#[inline]
pub(crate) fn retract_task<T: Native>(task: &Ref<T>) {
    set_field(task, fields().coro, None);
}

/// Puts a reference into a field of a task, and gives up the one that was there.
#[inline]
fn set_field<T: Native>(task: &Ref<T>, at: u16, value: Option<Obj>) {
    const {
        assert!(
            matches!(T::LAYOUT, super::Layout::Future),
            "only the future layout has the base's fields"
        );
    };
    // SAFETY: the field is a strong reference or NULL, which is what an `Option<Obj>` is; the base's own `tp_traverse`
    // and `tp_clear` know it. What was there is dropped after the new value stands.
    drop(unsafe { field::<Option<Obj>>(task.obj(), at).replace(value) });
}

/// Is it a future or a task of `_asyncio`, or of a class derived from one?
#[inline]
fn has_edges(object: &Obj) -> PyRes<bool> {
    let future: *mut ffi::PyTypeObject = FUTURE.get()?.raw().cast();
    let task: *mut ffi::PyTypeObject = TASK.get()?.raw().cast();
    // SAFETY: a live object has a live type.
    let (class, base) = unsafe {
        let class = ffi::Py_TYPE(object.raw());
        (class, (*class).tp_base)
    };
    // Perf: the classes themselves and ours are found without a walk.
    if class == task || class == future || base == task || base == future {
        return Ok(true);
    }
    // SAFETY: live types, of which two are never freed.
    Ok(unsafe {
        ffi::PyType_IsSubtype(class, future) != 0 || ffi::PyType_IsSubtype(class, task) != 0
    })
}

/// The fields that hold the waiters of a future.
struct Edges {
    /// One waiter, or a set of them, or nothing.
    waiters: *mut Option<Obj>,
    /// Is it a set? A byte that is 0 or 1.
    is_set: *mut u8,
}

impl Edges {
    /// Those of a future.
    ///
    /// # Safety
    /// `future` must be an instance of `_asyncio.Future` or `_asyncio.Task`, alive as long as this is used.
    #[inline]
    unsafe fn of(future: &Obj) -> Self {
        let fields = fields();
        // SAFETY: every such object has both fields. One is a strong reference or NULL, which is what an
        // `Option<Obj>` is; the other a byte.
        unsafe {
            Self {
                waiters: field(future, fields.awaited_by),
                is_set: field(future, fields.awaited_by_is_set),
            }
        }
    }

    /// What is held, and whether it is a set.
    #[inline]
    fn get(&self) -> (Option<Obj>, bool) {
        // SAFETY: live fields, as `of` was promised; cloning only counts.
        unsafe { ((*self.waiters).clone(), self.is_set.read() != 0) }
    }

    /// Is exactly this object held?
    #[inline]
    fn hold(&self, object: Option<&Obj>) -> bool {
        // SAFETY: a live field, as `of` was promised; the borrow lasts for a comparison.
        match (unsafe { &*self.waiters }, object) {
            (Some(held), Some(object)) => held.is(object),
            (held, object) => held.is_none() && object.is_none(),
        }
    }

    /// Stores one waiter, a set of them, or nothing.
    #[inline]
    fn put(&self, waiters: Option<Obj>, is_set: bool) {
        // SAFETY: live fields, as `of` was promised; what was there is dropped after both stand.
        drop(unsafe {
            self.is_set.write(u8::from(is_set));
            self.waiters.replace(waiters)
        });
    }
}

/// Records that `waiter` waits for `future`. Does nothing unless both are futures of `_asyncio`, derived or not.
#[inline]
pub(crate) fn add_awaited_by(future: &Obj, waiter: &Obj) -> PyRes<()> {
    if !has_edges(future)? || !has_edges(waiter)? {
        return Ok(());
    }
    // SAFETY: just checked.
    let edges = unsafe { Edges::of(future) };
    if edges.hold(None) {
        edges.put(Some(waiter.clone()), false);
        return Ok(());
    }
    add_another(&edges, waiter)
}

/// Records one more waiter. Adding to a set may run any code, so nothing is borrowed meanwhile.
#[cold]
fn add_another(edges: &Edges, waiter: &Obj) -> PyRes<()> {
    match edges.get() {
        (Some(waiters), true) => waiters.set_add(waiter),
        (Some(only), false) if !only.is(waiter) => {
            let waiters = Obj::set()?;
            waiters.set_add(waiter)?;
            waiters.set_add(&only)?;
            edges.put(Some(waiters), true);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Forgets that `waiter` waits for `future`, if that was known.
#[inline]
pub(crate) fn discard_awaited_by(future: &Obj, waiter: &Obj) -> PyRes<()> {
    if !has_edges(future)? || !has_edges(waiter)? {
        return Ok(());
    }
    // SAFETY: just checked.
    let edges = unsafe { Edges::of(future) };
    if edges.hold(Some(waiter)) {
        edges.put(None, false);
        return Ok(());
    }
    let (Some(waiters), true) = edges.get() else {
        return Ok(());
    };
    // SAFETY: the flag says that it is a set.
    truth(unsafe { ffi::PySet_Discard(waiters.raw(), waiter.raw()) }).map(drop)
}

/// `future._asyncio_awaited_by`: a frozenset of the waiters, or nothing.
pub(crate) fn awaited_by(future: &Obj) -> PyRes<Option<Obj>> {
    if !has_edges(future)? {
        return Ok(None);
    }
    // SAFETY: just checked.
    let waiters = match unsafe { Edges::of(future) }.get() {
        (None, _) => return Ok(None),
        (Some(waiters), true) => waiters,
        (Some(only), false) => Obj::tuple([only])?,
    };
    // SAFETY: plain constructor from an iterable.
    unsafe { Obj::owned(ffi::PyFrozenSet_New(waiters.raw())) }.map(Some)
}
