//! `gather`, and the future that it returns.
//!
//! One [`Gathering`] is the owner of the observers of all children. The outer future is made last, when the loop is
//! known; a child that is done before that only has its exception marked as retrieved, as in asyncio.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::coroutines::Coroutine;
use crate::events::{LoopRef, get_event_loop, running_loop};
use crate::ffi::{
    Args, Class, ClassBuilder, Extends, Layout, Native, Obj, PyRes, Ref, Slot, Visit,
    add_to_module, task_state,
};
use crate::futures::{
    Future, Observer, exact_or_task, init_future, loop_of, observe_any, set_gathering_class,
};
use crate::tasks::{Task, cancel_any, current_task, ensure_future};
use crate::waiter::{create_future, exception_of, is_cancelled, is_done, result_of, set_result};
use crate::{names, stdlib};

/// The future that `gather` returns: to cancel it is to cancel the children.
#[repr(C)]
struct GatheringFuture {
    /// What makes it a future.
    future: Future,
    /// The children, in the order of the arguments: a list.
    children: Slot,
    /// Were children cancelled through this future?
    cancel_requested: Cell<bool>,
}

/// Where the class is kept.
static CLASS: Class<GatheringFuture> = Class::new();

impl Native for GatheringFuture {
    const LAYOUT: Layout = Layout::Future;
    const FREELIST: usize = 64;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            future: Future::empty(),
            children: Slot::empty(),
            cancel_requested: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.future.traverse(visit);
        visit.slot(&self.children);
    }

    fn clear(&self) {
        self.future.clear();
        self.children.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.future.needs_finalizer()
    }

    fn finalize(this: &Ref<Self>) {
        Future::finalize(this.upcast::<Future>());
    }
}

impl Extends<Future> for GatheringFuture {
    fn base(&self) -> &Future {
        &self.future
    }
}

impl Ref<GatheringFuture> {
    /// The future around the children.
    fn around(children: Obj, loop_: &Obj) -> PyRes<Self> {
        let reference = LoopRef::new(loop_);
        let debug = reference.debug()?;
        let outer = Self::new(GatheringFuture {
            future: Future::payload(reference),
            children: Slot::new(children),
            cancel_requested: Cell::new(false),
        })?;
        if debug {
            outer
                .future
                .source_traceback()
                .set(stdlib::extract_stack()?.call([])?);
        }
        Ok(outer)
    }

    /// The children.
    fn children(&self) -> PyRes<Vec<Obj>> {
        self.children
            .get()
            .map_or(Ok(Vec::new()), |children| children.items())
    }

    /// `cancel(msg=None)`: cancels the children, and so this future only if one of them lets itself be cancelled.
    fn cancel(&self, message: Option<&Obj>) -> PyRes<bool> {
        if self.future.is_done() {
            return Ok(false);
        }
        let mut any = false;
        for child in self.children()? {
            any |= cancel_any(&child, message.cloned())?;
        }
        if any {
            self.cancel_requested.set(true);
        }
        Ok(any)
    }
}

/// What the observers of one `gather` share.
struct Gathering {
    /// The future that was returned, once there is one.
    outer: Slot<Ref<GatheringFuture>>,
    /// How many children there are, each counted once.
    total: Cell<usize>,
    /// How many of them are done.
    finished: Cell<usize>,
    /// Are exceptions results?
    return_exceptions: Cell<bool>,
    /// The gathering task, where futures know who waits for them.
    task: Slot,
}

/// Where the class is kept.
static GATHERING: Class<Gathering> = Class::new();

impl Native for Gathering {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &GATHERING
    }

    fn empty() -> Self {
        Self {
            outer: Slot::empty(),
            total: Cell::new(0),
            finished: Cell::new(0),
            return_exceptions: Cell::new(false),
            task: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.outer);
        visit.slot(&self.task);
    }

    fn clear(&self) {
        self.outer.clear();
        self.task.clear();
    }
}

/// Called by each child that is done.
static CHILD_DONE: Observer = Observer {
    body: |owner, child| {
        GATHERING
            .cast(owner)
            .map_or(Ok(()), |gathering| gathering.child_done(child))
    },
    qualname: "gather.<locals>._done_callback",
};

impl Gathering {
    /// One child is done.
    fn child_done(&self, child: &Obj) -> PyRes<()> {
        let finished = self.finished.get() + 1;
        self.finished.set(finished);
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            task_state::discard_awaited_by(child, &task)?;
        }
        let Some(outer) = self.outer.get().filter(|outer| !outer.future.is_done()) else {
            // Nobody will ask for this child's exception any more.
            return if is_cancelled(child)? {
                Ok(())
            } else {
                exception_of(child).map(drop)
            };
        };
        if !self.return_exceptions.get() {
            let failure = if is_cancelled(child)? {
                Some(cancelled_error(child)?)
            } else {
                exception_of(child)?
            };
            if let Some(failure) = failure {
                self.forget_children(&outer)?;
                return outer.upcast::<Future>().set_exception(&failure);
            }
        }
        if finished == self.total.get() {
            finish(&outer, child)
        } else {
            Ok(())
        }
    }

    /// The children outlive the wait for them.
    fn forget_children(&self, outer: &Ref<GatheringFuture>) -> PyRes<()> {
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            for child in outer.children()? {
                task_state::discard_awaited_by(&child, &task)?;
            }
        }
        Ok(())
    }
}

/// `_make_cancelled_error()` for any kind of future.
fn cancelled_error(child: &Obj) -> PyRes {
    match exact_or_task(child) {
        Some(native) => native.make_cancelled_error(),
        None => child.method(names::make_cancelled_error(), []),
    }
}

/// Finishes the outer future; `last` is the child that was done last.
fn finish(outer: &Ref<GatheringFuture>, last: &Obj) -> PyRes<()> {
    let results = outer
        .children()?
        .iter()
        .map(result_entry)
        .collect::<PyRes<Vec<Obj>>>()?;
    let results = Obj::list_of(results)?;
    let future = outer.upcast::<Future>();
    if outer.cancel_requested.get() {
        return future.set_exception(&cancelled_error(last)?);
    }
    future.check_pending()?;
    future.finish(results)
}

/// What stands in the list of results for a child.
#[inline]
fn result_entry(child: &Obj) -> PyRes {
    if let Some(result) = exact_or_task(child).and_then(|native| native.success()) {
        return Ok(result);
    }
    if is_cancelled(child)? {
        let message = match exact_or_task(child) {
            Some(native) => native.cancel_message(),
            None => {
                Some(child.getattr(names::cancel_message())?).filter(|message| !message.is_none())
            }
        };
        let message = message.map_or_else(|| Obj::str(""), Ok)?;
        return stdlib::cancelled_error()?.call([&message]);
    }
    match exception_of(child)? {
        Some(exception) => Ok(exception),
        None => result_of(child),
    }
}

/// Spreads addresses, whose low bits are alike.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    #[inline]
    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_right(32);
    }
}

/// With no more arguments than this, earlier ones are looked through one by one.
const FEW: usize = 8;

/// The arguments seen so far, to find those that are given twice.
struct Seen<'a> {
    /// All arguments.
    args: &'a [Obj],
    /// Where the child of an argument is that is equal to nothing but itself; unused for a few arguments.
    plain: HashMap<usize, usize, BuildHasherDefault<AddressHasher>>,
    /// The same for arguments that have to be compared in Python: a dict.
    others: Option<Obj>,
}

impl<'a> Seen<'a> {
    /// Nothing is seen yet.
    fn new(args: &'a [Obj]) -> Self {
        let room = if args.len() > FEW { args.len() } else { 0 };
        Self {
            args,
            plain: HashMap::with_capacity_and_hasher(room, BuildHasherDefault::default()),
            others: None,
        }
    }

    /// Where the child of the argument at `index` is, if an earlier one was the same.
    fn find(&mut self, index: usize) -> PyRes<Option<usize>> {
        let arg = &self.args[index];
        let is_plain =
            arg.is_coroutine() || Coroutine::class().is_exact(arg) || exact_or_task(arg).is_some();
        if !is_plain {
            return self.find_other(index);
        }
        if self.args.len() <= FEW {
            return Ok(self.args[..index]
                .iter()
                .position(|earlier| earlier.is(arg)));
        }
        let first = *self.plain.entry(arg.address()).or_insert(index);
        Ok((first != index).then_some(first))
    }

    /// The same for an argument with an equality of its own.
    #[cold]
    fn find_other(&mut self, index: usize) -> PyRes<Option<usize>> {
        let others = match &self.others {
            Some(others) => others.clone(),
            None => self.others.insert(Obj::dict()?).clone(),
        };
        let arg = &self.args[index];
        if others.contains(arg)? {
            return Ok(usize::try_from(others.item(arg)?.as_i64()?).ok());
        }
        others.set_item(arg, &Obj::int(i64::try_from(index).unwrap_or(i64::MAX))?)?;
        Ok(None)
    }
}

/// A future that was made for an argument: nobody else can look after it, so its death is no news.
#[inline]
fn forget_destruction(child: &Obj) -> PyRes<()> {
    match Task::class().exact(child) {
        Some(task) => {
            task.forget_destruction();
            Ok(())
        }
        None => child.setattr(names::log_destroy_pending(), &Obj::bool(false)),
    }
}

/// `gather(*coros_or_futures, return_exceptions=False)`.
pub(super) fn gather(args: &Args<'_>) -> PyRes {
    gather_all(args.rest(), args.truth(0, false)?)
}

/// The future of all of them.
pub(crate) fn gather_all(awaitables: &[Obj], return_exceptions: bool) -> PyRes {
    if awaitables.is_empty() {
        let outer = create_future(&get_event_loop()?)?;
        set_result(&outer, Obj::list([])?)?;
        return Ok(outer);
    }
    let gathering = Ref::new(Gathering {
        return_exceptions: Cell::new(return_exceptions),
        ..Gathering::empty()
    })?;
    let mut loop_ = None;
    if cfg!(Py_3_14)
        && let Some(running) = running_loop()?
    {
        if let Some(task) = current_task(&running)? {
            gathering.task.set(task);
        }
        loop_ = Some(running);
    }
    let mut seen = Seen::new(awaitables);
    let mut children: Vec<Obj> = Vec::with_capacity(awaitables.len());
    let mut done = Vec::new();
    let mut total = 0;
    for (index, arg) in awaitables.iter().enumerate() {
        if let Some(earlier) = seen.find(index)? {
            children.push(children[earlier].clone());
            continue;
        }
        let child = ensure_future(arg, loop_.as_ref())?;
        if loop_.is_none() {
            loop_ = Some(loop_of(&child)?);
        }
        if !child.is(arg) {
            forget_destruction(&child)?;
        }
        total += 1;
        if cfg!(Py_3_12) && is_done(&child)? {
            done.push(child.clone());
        } else {
            if cfg!(Py_3_14)
                && let Some(task) = gathering.task.get()
            {
                task_state::add_awaited_by(&child, &task)?;
            }
            observe_any(&child, &CHILD_DONE, gathering.obj())?;
        }
        children.push(child);
    }
    gathering.total.set(total);
    let outer =
        Ref::<GatheringFuture>::around(Obj::list_of(children)?, &loop_.unwrap_or_else(Obj::none))?;
    gathering.outer.set(outer.clone());
    // What was done already is looked at now: if that was all, the outer future is done at once.
    for child in &done {
        gathering.child_done(child)?;
    }
    Ok(outer.into_obj())
}

/// Makes the classes.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Gathering>::new(
        "aioxide",
        "gather_state",
        "What the children of one `gather()` call back.",
    )
    .sealed()
    .build()?;
    let class = ClassBuilder::<GatheringFuture>::new(
        super::MODULE,
        "_GatheringFuture",
        "What `gather()` returns. To cancel it is to cancel the children.",
    )
    .extends::<Future>()
    .init("(self, children, *, loop)", |this, args| {
        init_future(&this.future, args.get(1), || this.obj().class_name())?;
        this.children.set(args.req(0).clone());
        Ok(())
    })
    .method(
        "cancel(self, msg=None)",
        "Cancels the children.",
        |this, args| this.cancel(args.some(0)),
    )
    .property(
        "_children",
        |this| Ok(this.children.get()),
        |this, value| {
            drop(this.children.replace(value.cloned()));
            Ok(())
        },
    )
    .property(
        "_cancel_requested",
        |this| Ok(this.cancel_requested.get()),
        |this, value| {
            this.cancel_requested
                .set(value.map_or(Ok(false), Obj::truth)?);
            Ok(())
        },
    )
    .build()?;
    set_gathering_class(&class);
    add_to_module(module, "_GatheringFuture", &class)
}
