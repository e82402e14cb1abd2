//! CPython's own slots for the running loop, the current task and the awaited-by edges, and the registry of tasks.
//!
//! Answers the introspection half of `Modules/_asynciomodule.c`. Two worlds share one set of functions:
//!
//! *From 3.14 on* everything lives in CPython's own memory, so that `asyncio.all_tasks()`, `asyncio.current_task()`,
//! the call graph and `python -m asyncio ps` see native tasks as their own: the running loop and the current task are
//! fields of the thread state, the registry is a ring of nodes through the tasks with its head in the thread state,
//! and coroutine, name and waiters are fields of the base that every future-layout object carries. None of this is
//! in a public header; `task_state/fields.rs` measures at import where each field is.
//! *Up to 3.13* the registry is a table of our own, the running loop is asked of `_asyncio`, and there is no call graph.
//!
//! Invariants: the registry counts no references. A task is in it at most once, under the [`Registration`] in its
//! payload, and leaves it before its memory is given back: by [`unregister`], or at the latest when the payload is
//! dropped. [`init`] comes before every other function here.

#[cfg(Py_3_14)]
mod fields;
#[cfg_attr(Py_3_14, path = "task_state/in_cpython.rs")]
#[cfg_attr(not(Py_3_14), path = "task_state/in_table.rs")]
mod imp;

pub(crate) use imp::{
    Registration, add_awaited_by, awaited_by, discard_awaited_by, forget_registered, init,
    publish_name, publish_task, register, registered, retract_task, running_loop, unregister,
};
#[cfg(Py_3_14)]
pub(crate) use imp::{current_task, is_running_loop, swap_current_task};

use std::mem;
use std::ptr;

use super::native::{Layout, Native, Ref};

/// Asserts that a registration lies in the payload of its task, whose end it so cannot outlive.
#[inline]
fn assert_in_payload<T: Native>(task: &Ref<T>, at: &Registration) {
    const {
        assert!(
            matches!(T::LAYOUT, Layout::Future),
            "only the future layout has the base's fields"
        );
    };
    let payload = ptr::from_ref::<T>(task).addr();
    let distance = ptr::from_ref(at).addr().wrapping_sub(payload);
    assert!(
        distance < mem::size_of::<T>(),
        "a registration is a field of its task's payload"
    );
}
