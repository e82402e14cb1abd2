//! Where CPython 3.14 and later keep what asyncio knows of tasks and threads, measured at import.
//!
//! CPython publishes these offsets for debuggers, in a section of the file that holds `_asyncio`. We do not read the
//! file: it may be stripped, frozen into another one, replaced since the start, and every platform has its own format.
//! Instead CPython's own functions write into a few probes, and we look which bytes changed. So each offset is tried
//! out on the very interpreter that it will be used with, and nothing is left to be believed.
//!
//! A probe's memory is read whole: the allocator zeroes it, and its class tells its size. The thread state is read
//! from its start up to the head of its ring of tasks, which lies behind the other two fields and which CPython itself
//! hands us, as the neighbour of a node that was just linked.

use std::mem;
use std::ptr;

use pyo3::ffi;

use super::super::errors::{Builtin, Raised};
use super::super::object::{Obj, PyRes};

/// Offsets in bytes. None of them can be zero: at zero both structures have something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// `TaskObj.task_name`: a `str`, or the number of a task that nobody has asked for its name.
    pub(super) name: u16,
    /// `TaskObj.task_coro`.
    pub(super) coro: u16,
    /// `TaskObj.task_node`: the ring's links.
    pub(super) node: u16,
    /// `FutureObj.fut_is_task`: a byte.
    pub(super) is_task: u16,
    /// `FutureObj.fut_awaited_by`: one waiter, or a set of them.
    pub(super) awaited_by: u16,
    /// `FutureObj.fut_awaited_by_is_set`: a byte.
    pub(super) awaited_by_is_set: u16,
    /// `_PyThreadStateImpl.asyncio_running_loop`.
    pub(super) running_loop: u16,
    /// `_PyThreadStateImpl.asyncio_running_task`.
    pub(super) running_task: u16,
    /// `_PyThreadStateImpl.asyncio_tasks_head`.
    pub(super) tasks_head: u16,
}

/// The size of the words that the structures are made of.
const WORD: usize = mem::size_of::<usize>();

/// No thread state is as large as this: farther away is something else.
const THREAD_STATE_LIMIT: usize = 1 << 14;

/// What the probes need of Python.
const STAGE: &str = "
class Loop:
    def get_debug(self): return False
    def call_soon(self, *args, **kwargs): pass
async def coroutine(): pass
";

/// Finds all fields.
pub(super) fn measure() -> PyRes<Fields> {
    let asyncio = Obj::import("_asyncio")?;
    let (node, tasks_head) = ring(&asyncio)?;
    let (running_loop, running_task) = thread(&asyncio, usize::from(tasks_head))?;
    let (awaited_by, awaited_by_is_set) = waiters(&asyncio)?;
    let (name, coro, is_task) = introspection(&asyncio)?;
    let fields = Fields {
        name,
        coro,
        node,
        is_task,
        awaited_by,
        awaited_by_is_set,
        running_loop,
        running_task,
        tasks_head,
    };
    Ok(fields)
}

/// The links of a task, and the ring's head in the thread state: what changes when a task is registered.
fn ring(asyncio: &Obj) -> PyRes<(u16, u16)> {
    let probe = Probe::blank(&asyncio.getattr_str("Task")?)?;
    let unregister = asyncio.getattr_str("_unregister_task")?;
    let before = probe.words();
    asyncio
        .getattr_str("_register_task")?
        .call([&probe.object])?;
    let linked = probe.words();
    unregister.call([&probe.object])?;
    if probe.words() != before {
        return Err(unknown("unlinking a task"));
    }
    let changed = changes(&before, &linked);
    let &[next, previous] = changed.as_slice() else {
        return Err(unknown("the links of a task"));
    };
    if previous != next + 1 {
        return Err(unknown("the links of a task"));
    }
    // A task is added at the end, so what follows it is the head.
    let head = linked[next].wrapping_sub(thread_state().addr());
    if head == 0 || head >= THREAD_STATE_LIMIT || head % WORD != 0 {
        return Err(unknown("the list of tasks"));
    }
    Ok((offset(next * WORD)?, offset(head)?))
}

/// The running loop and the current task: the words of the thread state that hold what was just set.
fn thread(asyncio: &Obj, head: usize) -> PyRes<(u16, u16)> {
    let running = asyncio.getattr_str("_get_running_loop")?;
    let set_running = asyncio.getattr_str("_set_running_loop")?;
    let swap = asyncio.getattr_str("_swap_current_task")?;
    let class = asyncio.getattr_str("Task")?;
    let (loop_, task) = (Probe::blank(&class)?.object, Probe::blank(&class)?.object);
    // We may be imported by a task of a running loop: both are put back, whatever happens in between.
    let outer_loop = running.call([])?;
    set_running.call([&loop_])?;
    let found = swap.call([&loop_, &task]).and_then(|outer_task| {
        let found = (find(&loop_, head), find(&task, head));
        swap.call([&loop_, &outer_task])?;
        Ok(found)
    });
    let found = finally(found, || set_running.call([&outer_loop]))?;
    match (found.0.as_slice(), found.1.as_slice()) {
        (&[loop_at], &[task_at])
            if find(&loop_, head).is_empty() && find(&task, head).is_empty() =>
        {
            Ok((offset(loop_at)?, offset(task_at)?))
        }
        _ => Err(unknown("the running loop and the current task")),
    }
}

/// The waiters of a future: one is stored as it is, from two on they are in a set and a byte says so.
fn waiters(asyncio: &Obj) -> PyRes<(u16, u16)> {
    let class = asyncio.getattr_str("Future")?;
    let probe = Probe::blank(&class)?;
    let (first, second) = (Probe::blank(&class)?.object, Probe::blank(&class)?.object);
    let add = asyncio.getattr_str("future_add_to_awaited_by")?;
    let none = probe.words();
    add.call([&probe.object, &first])?;
    let one = probe.words();
    add.call([&probe.object, &second])?;
    let two = probe.words();
    let added = changes(&none, &one);
    let &[at] = added.as_slice() else {
        return Err(unknown("the waiter of a future"));
    };
    let (flags, others): (Vec<usize>, Vec<usize>) = changes(&one, &two)
        .into_iter()
        .partition(|&index| index != at);
    let &[flag] = flags.as_slice() else {
        return Err(unknown("the waiters of a future"));
    };
    if one[at] != first.address() || others != [at] {
        return Err(unknown("the waiters of a future"));
    }
    let byte = byte_of_one(one[flag] ^ two[flag])
        .ok_or_else(|| unknown("whether a future has several waiters"))?;
    Ok((offset(at * WORD)?, offset(flag * WORD + byte)?))
}

/// Name, coroutine and the byte that tells tasks from futures: what `Task.__init__` fills in.
fn introspection(asyncio: &Obj) -> PyRes<(u16, u16, u16)> {
    let (stage, name) = (Obj::dict()?, Obj::str("aioxide's probe")?);
    Obj::import("builtins")?
        .getattr_str("exec")?
        .call([&Obj::str(STAGE)?, &stage])?;
    let loop_ = stage.item(&Obj::str("Loop")?)?.call([])?;
    let coroutine = stage.item(&Obj::str("coroutine")?)?.call([])?;
    let task = Obj::str("loop").and_then(|loop_name| {
        asyncio.getattr_str("Task")?.call_kw(
            &[&coroutine],
            &[(&loop_name, &loop_), (&Obj::str("name")?, &name)],
        )
    });
    let task = finally(task, || coroutine.getattr_str("close")?.call([]))?;
    task.setattr_str("_log_destroy_pending", &Obj::bool(false))?;
    asyncio.getattr_str("_unregister_task")?.call([&task])?;
    let filled = Probe::of(task)?.words();
    // What is left are pointers, zeros and the byte.
    let flags: Vec<(usize, usize)> = filled
        .iter()
        .enumerate()
        .skip(mem::size_of::<ffi::PyObject>() / WORD)
        .filter_map(|(index, &word)| Some((index, byte_of_one(word)?)))
        .collect();
    let holders = |object: &Obj| -> Vec<usize> {
        (0..filled.len())
            .filter(|&index| filled[index] == object.address())
            .collect()
    };
    let (names, coros) = (holders(&name), holders(&coroutine));
    match (names.as_slice(), coros.as_slice(), flags.as_slice()) {
        (&[name], &[coro], &[(index, byte)]) => Ok((
            offset(name * WORD)?,
            offset(coro * WORD)?,
            offset(index * WORD + byte)?,
        )),
        _ => Err(unknown("name and coroutine of a task")),
    }
}

/// An object of `_asyncio` into whose memory we look.
struct Probe {
    /// The object.
    object: Obj,
    /// Its size in words.
    size: usize,
}

impl Probe {
    /// An object of `class` whose `__init__` has not run.
    fn blank(class: &Obj) -> PyRes<Self> {
        Self::of(class.getattr_str("__new__")?.call([class])?)
    }

    /// A given object.
    fn of(object: Obj) -> PyRes<Self> {
        let size = object.class().getattr_str("__basicsize__")?.as_i64()?;
        let size = usize::try_from(size).unwrap_or(0) / WORD;
        Ok(Self { object, size })
    }

    /// A copy of its memory.
    fn words(&self) -> Vec<usize> {
        let start = self.object.raw().cast::<usize>();
        // SAFETY: the class allocates at least this size, aligned for pointers and zeroed, so initialised to the last
        // byte; the slice is copied before anything else runs.
        unsafe { std::slice::from_raw_parts(start, self.size) }.to_vec()
    }
}

/// Runs `cleanup` with no exception set, whether there is a result or not. The first exception counts.
fn finally<R>(result: PyRes<R>, cleanup: impl FnOnce() -> PyRes) -> PyRes<R> {
    match result {
        Ok(value) => cleanup().map(|_| value),
        Err(raised) => {
            let exception = raised.take();
            if let Err(second) = cleanup() {
                second.discard();
            }
            Err(Raised::restore(exception))
        }
    }
}

/// Which words differ.
fn changes(before: &[usize], after: &[usize]) -> Vec<usize> {
    (0..before.len().min(after.len()))
        .filter(|&index| before[index] != after[index])
        .collect()
}

/// If all bytes of a word are 0 but for one that is 1: which of them it is.
fn byte_of_one(word: usize) -> Option<usize> {
    let bytes = word.to_ne_bytes();
    word.is_power_of_two()
        .then(|| bytes.iter().position(|&byte| byte == 1))
        .flatten()
}

/// Where the thread state holds exactly this object, in front of the head of its tasks.
fn find(object: &Obj, head: usize) -> Vec<usize> {
    let state = thread_state().cast::<usize>().cast_const();
    (0..head)
        .step_by(WORD)
        .filter(|&at| {
            // SAFETY: between the start of the thread state and one of its fields. Other threads set some of these
            // words, so each is read once, as it is at the moment.
            let word = unsafe { ptr::read_volatile(state.byte_add(at)) };
            word == object.address()
        })
        .collect()
}

/// The thread state of this thread.
#[inline]
pub(super) fn thread_state() -> *mut ffi::PyThreadState {
    // SAFETY: no preconditions; with the GIL, which the callers' references imply, the answer is not NULL.
    unsafe { ffi::PyThreadState_GetUnchecked() }
}

/// An offset as it is stored.
fn offset(bytes: usize) -> PyRes<u16> {
    u16::try_from(bytes).map_err(|_| unknown("an offset"))
}

/// CPython does not behave like any version we know.
#[cold]
fn unknown(what: &str) -> Raised {
    Builtin::System.raise(&format!(
        "aioxide cannot work with this build of Python: {what} could not be located in _asyncio"
    ))
}
