//! Native classes: a Rust payload behind a Python object's head, and the slots that lead to it.
//!
//! A payload type implements [`Native`]; [`ClassBuilder`] makes its heap type; [`Ref`] is a counted reference that
//! dereferences to the payload. Payloads are shared (`&T`): they change through `Cell`, `RefCell` and [`Slot`].
//!
//! Three layouts exist. *Plain*: head, `__dict__`, weak references, payload. *Transport*: the same behind the one slot of
//! `asyncio.BaseTransport`. *Future*: the memory of CPython's own `_asyncio.Future` or `_asyncio.Task`, then the payload,
//! at one offset for both, so that a task is read as a future without asking. The base's `__init__` never runs: its
//! fields stay zero unless we fill them.
//!
//! Invariants: a payload is written before anyone else sees the object and dropped once, by `dealloc`; objects on a
//! free list have a dropped payload, no `__dict__`, no weak references, and no reference to the type.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pyo3::ffi;

use super::errors::{Builtin, Raised, preserving_exception};
use super::function::{Args, FunctionSpec, Kind};
use super::object::{Obj, PyRes, Reference, Slot, done};

/// What lies before the payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Object head, `__dict__`, weak references.
    Plain,
    /// Object head, the slot `_extra` of `asyncio.BaseTransport`, `__dict__`, weak references.
    Transport,
    /// The memory of `_asyncio.Future` or `_asyncio.Task`.
    Future,
}

/// Where the object's head ends.
const HEAD: usize = mem::size_of::<ffi::PyObject>();
/// The size of a word that holds a reference.
const WORD: usize = mem::size_of::<usize>();
/// Offset of the payload behind `_asyncio.Task`, the larger of the two bases.
const FUTURE_OFFSET: usize = if cfg!(Py_3_14) {
    168
} else if cfg!(Py_3_13) {
    144
} else {
    176
};

impl Layout {
    /// Where the payload starts.
    const fn offset(self) -> usize {
        match self {
            Self::Plain | Self::Transport => self.dict_offset() + 2 * WORD,
            Self::Future => FUTURE_OFFSET,
        }
    }

    /// Where `__dict__` is kept; the list of weak references follows. Not for futures.
    const fn dict_offset(self) -> usize {
        match self {
            Self::Transport => HEAD + WORD,
            Self::Plain | Self::Future => HEAD,
        }
    }
}

/// The payload of a native class.
pub(crate) trait Native: Sized + 'static {
    /// What lies before the payload.
    const LAYOUT: Layout = Layout::Plain;
    /// How many dead objects to keep for reuse.
    const FREELIST: usize = 0;
    /// Does [`Native::finalize`] do anything?
    const FINALIZES: bool = false;

    /// Where the class is kept.
    fn class() -> &'static Class<Self>;

    /// The payload of an object whose `__init__` has not run.
    fn empty() -> Self;

    /// Shows every reference held to the garbage collector.
    fn traverse(&self, visit: &mut Visit<'_>);

    /// Gives up every reference that may be part of a cycle.
    fn clear(&self);

    /// Does this object need its finalizer? Asked once, when the last reference goes.
    fn needs_finalizer(&self) -> bool {
        Self::FINALIZES
    }

    /// Runs before the object dies, and may resurrect it.
    fn finalize(_this: &Ref<Self>) {}

    /// Runs when the object dies for good, before any other code can see it: unlinks it from lists of raw
    /// pointers. It must not run Python code or count references to the object.
    fn unlink(_this: &Ref<Self>) {}
}

/// A class that is made once, when the module is imported.
pub(crate) struct Class<T: Native> {
    /// The type object; NULL before it is made.
    pointer: AtomicPtr<ffi::PyTypeObject>,
    /// The native base's slots, for the future layout.
    base: AtomicPtr<ffi::PyTypeObject>,
    /// A subclass that most instances are of, and that lives for ever; NULL if there is none.
    usual: AtomicPtr<ffi::PyTypeObject>,
    /// How `__init__` takes its arguments.
    init: OnceLock<Init<T>>,
    /// Dead objects, ready for reuse.
    free: UnsafeCell<Vec<*mut ffi::PyObject>>,
    /// The functions that the class was made with.
    functions: OnceLock<Vec<(Obj, Obj)>>,
    /// The version of the class in which they were last seen to be all there; 0 is none.
    untouched: AtomicU32,
}

/// `__init__`: its parameters and its body.
struct Init<T: Native> {
    /// Name and parameters.
    spec: &'static FunctionSpec,
    /// The body.
    body: fn(&Ref<T>, &Args<'_>) -> PyRes<()>,
}

// SAFETY: all fields are used under the GIL alone.
unsafe impl<T: Native> Sync for Class<T> {}

impl<T: Native> Class<T> {
    /// A class that is still to be made.
    pub(crate) const fn new() -> Self {
        Self {
            pointer: AtomicPtr::new(ptr::null_mut()),
            base: AtomicPtr::new(ptr::null_mut()),
            usual: AtomicPtr::new(ptr::null_mut()),
            init: OnceLock::new(),
            free: UnsafeCell::new(Vec::new()),
            functions: OnceLock::new(),
            untouched: AtomicU32::new(0),
        }
    }

    /// The raw type.
    #[inline]
    fn raw(&self) -> *mut ffi::PyTypeObject {
        self.pointer.load(Ordering::Relaxed)
    }

    /// The class as an object.
    #[inline]
    pub(crate) fn object(&self) -> Obj {
        // SAFETY: made at import and never freed.
        unsafe { Obj::borrowed(self.raw().cast()) }
    }

    /// Are the functions of the class those that it was made with, so that nobody patched one?
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        // SAFETY: a made class.
        let version = unsafe { (*self.raw()).tp_version_tag };
        version != 0 && version == self.untouched.load(Ordering::Relaxed) || self.find_untouched()
    }

    /// Looks at the functions one by one, after a change of the class or of a base.
    #[cold]
    fn find_untouched(&self) -> bool {
        let class = self.object();
        let functions = self.functions.get().map_or(&[][..], Vec::as_slice);
        let same = functions
            .iter()
            .all(|(name, function)| match class.getattr(name) {
                Ok(found) => found.is(function),
                Err(raised) => {
                    raised.discard();
                    false
                }
            });
        if same {
            // SAFETY: a made class; the look-ups gave it a version, if there was one to give.
            let version = unsafe { (*self.raw()).tp_version_tag };
            self.untouched.store(version, Ordering::Relaxed);
        }
        same
    }

    /// Names a subclass that most instances are of; it is kept alive.
    pub(crate) fn set_usual_subclass(&self, class: &Obj) {
        debug_assert!(class.is_subtype_of(&self.object()));
        self.usual
            .store(class.clone().into_raw().cast(), Ordering::Relaxed);
    }

    /// Is `object` an instance of this class or of a subclass?
    #[inline]
    pub(crate) fn is_instance(&self, object: &Obj) -> bool {
        // SAFETY: reads the type of a live object.
        let class = unsafe { ffi::Py_TYPE(object.raw()) };
        ptr::eq(class, self.raw())
            || ptr::eq(class, self.usual.load(Ordering::Relaxed))
            // SAFETY: both are live types.
            || unsafe { ffi::PyType_IsSubtype(class, self.raw()) != 0 }
    }

    /// Is `object` an instance of exactly this class?
    #[inline]
    pub(crate) fn is_exact(&self, object: &Obj) -> bool {
        // SAFETY: reads the type of a live object.
        ptr::eq(unsafe { ffi::Py_TYPE(object.raw()) }, self.raw())
    }

    /// The object as this class, if it is exactly of it.
    #[inline]
    pub(crate) fn exact<'a>(&self, object: &'a Obj) -> Option<&'a Ref<T>> {
        // SAFETY: the class was just compared.
        self.is_exact(object)
            .then(|| unsafe { Ref::from_obj(object) })
    }

    /// The object as this class, if it is an instance.
    #[inline]
    pub(crate) fn cast<'a>(&self, object: &'a Obj) -> Option<&'a Ref<T>> {
        // SAFETY: the class was just compared.
        self.is_instance(object)
            .then(|| unsafe { Ref::from_obj(object) })
    }
}

/// A counted reference to a native object; dereferences to its payload.
#[repr(transparent)]
pub(crate) struct Ref<T: Native>(Obj, PhantomData<T>);

impl<T: Native> Clone for Ref<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

// SAFETY: cloning counts and nothing else.
unsafe impl<T: Native> Reference for Ref<T> {
    #[inline]
    fn as_obj(&self) -> &Obj {
        &self.0
    }
}

impl<T: Native> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a `Ref<T>` is only made for objects of `T`'s class, whose payload stands at this offset.
        unsafe { &*self.0.raw().byte_add(T::LAYOUT.offset()).cast::<T>() }
    }
}

impl<T: Native> Ref<T> {
    /// Looks at an object as an instance of `T`'s class.
    ///
    /// # Safety
    /// The object must be one.
    #[inline]
    unsafe fn from_obj(object: &Obj) -> &Self {
        // SAFETY: transparent over `Obj`.
        unsafe { &*ptr::from_ref(object).cast::<Self>() }
    }

    /// The reference as a plain object.
    #[inline]
    pub(crate) fn obj(&self) -> &Obj {
        &self.0
    }

    /// Gives the reference away as a plain object.
    #[inline]
    pub(crate) fn into_obj(self) -> Obj {
        self.0
    }

    /// A new object of exactly `T`'s class around `payload`, from the free list if it has one.
    #[inline]
    pub(crate) fn new(payload: T) -> PyRes<Self> {
        let class = T::class();
        let kind = class.raw();
        if T::FREELIST > 0 {
            // SAFETY: used under the GIL; the borrow ends before anything else runs.
            if let Some(raw) = unsafe { (*class.free.get()).pop() } {
                // SAFETY: memory of exactly this type, with no payload; the new object counts as a user of the type.
                unsafe {
                    revive(raw);
                    ffi::Py_INCREF(kind.cast());
                    raw.byte_add(T::LAYOUT.offset()).cast::<T>().write(payload);
                    ffi::PyObject_GC_Track(raw.cast());
                    return Ok(Self(Obj::steal(raw), PhantomData));
                }
            }
        }
        // SAFETY: a made class; its allocator gives zeroed, tracked memory; nothing runs before the write.
        unsafe { Self::allocate(kind, payload) }
    }

    /// A new object of `kind`, which is `T`'s class or a subclass.
    ///
    /// # Safety
    /// `kind` must be such a type.
    unsafe fn allocate(kind: *mut ffi::PyTypeObject, payload: T) -> PyRes<Self> {
        // SAFETY: every ready type has an allocator.
        let raw = unsafe {
            (*kind)
                .tp_alloc
                .map_or(ptr::null_mut(), |alloc| alloc(kind, 0))
        };
        if raw.is_null() {
            return Err(Raised::SET);
        }
        // SAFETY: fresh memory of the type's size.
        unsafe { raw.byte_add(T::LAYOUT.offset()).cast::<T>().write(payload) };
        // SAFETY: a new reference.
        Ok(Self(unsafe { Obj::steal(raw) }, PhantomData))
    }

    /// Is this an instance of exactly `T`'s class, so that no method is overridden?
    #[inline]
    pub(crate) fn is_exact(&self) -> bool {
        T::class().is_exact(&self.0)
    }

    /// Is this exactly of `T`'s class, and no method replaced, neither on the class nor on the object?
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.dict_word().is_null() && self.is_exact() && T::class().is_untouched()
    }

    /// The attributes that were set on the object itself, if any ever were.
    pub(crate) fn own_attributes(&self) -> Option<Obj> {
        let dict = self.dict_word();
        // SAFETY: a dict that the live object owns.
        (!dict.is_null()).then(|| unsafe { Obj::borrowed(dict) })
    }

    /// The word for `__dict__`.
    #[inline]
    fn dict_word(&self) -> *mut ffi::PyObject {
        const {
            assert!(
                !matches!(T::LAYOUT, Layout::Future),
                "the dict of a future stands elsewhere"
            );
        }
        // SAFETY: the dict's word in this layout.
        unsafe {
            *self
                .0
                .raw()
                .byte_add(T::LAYOUT.dict_offset())
                .cast::<*mut ffi::PyObject>()
        }
    }
}

/// A payload that starts with the payload of another class, whose instances its own are too.
pub(crate) trait Extends<Base: Native>: Native {
    /// The payload of the base: the first field.
    fn base(&self) -> &Base;
}

impl<T: Native> Ref<T> {
    /// The object as an instance of the class that it extends.
    #[inline]
    pub(crate) fn upcast<B: Native>(&self) -> &Ref<B>
    where
        T: Extends<B>,
    {
        const {
            assert!(
                T::LAYOUT.offset() == B::LAYOUT.offset(),
                "both payloads start at one offset"
            );
        }
        let (sub, base): (*const T, *const B) = (&raw const **self, self.base());
        assert!(
            ptr::eq(sub.cast(), base),
            "the base's payload must come first"
        );
        // SAFETY: a live `B` stands where a `Ref<B>` looks for it, as was just checked.
        unsafe { Ref::from_obj(&self.0) }
    }
}

/// Brings memory from a free list back to life with one reference.
///
/// # Safety
/// `raw` must be on a free list, or about to be.
#[inline]
pub(super) unsafe fn revive(raw: *mut ffi::PyObject) {
    #[cfg(Py_3_12)]
    // SAFETY: nobody else refers to the object.
    unsafe {
        (*raw).ob_refcnt.ob_refcnt = 1;
    }
    #[cfg(not(Py_3_12))]
    // SAFETY: nobody else refers to the object.
    unsafe {
        (*raw).ob_refcnt = 1;
    }
}

/// The garbage collector's visitor.
pub(crate) struct Visit<'a> {
    /// CPython's function.
    function: ffi::visitproc,
    /// What it wants to be called with.
    arg: *mut c_void,
    /// The first answer that was not zero.
    result: c_int,
    /// Ties the visitor to the call.
    scope: PhantomData<&'a ()>,
}

impl Visit<'_> {
    /// Shows one object.
    #[inline]
    pub(crate) fn obj(&mut self, object: &Obj) {
        self.raw(object.raw());
    }

    /// Shows what a slot holds.
    #[inline]
    pub(crate) fn slot<R: Reference>(&mut self, slot: &Slot<R>) {
        self.raw(slot.peek_raw());
    }

    /// Shows a reference to a native object.
    #[inline]
    pub(crate) fn native<T: Native>(&mut self, reference: &Ref<T>) {
        self.raw(reference.obj().raw());
    }

    /// Shows a pointer that may be NULL.
    #[inline]
    fn raw(&mut self, pointer: *mut ffi::PyObject) {
        if self.result == 0 && !pointer.is_null() {
            // SAFETY: the collector's own function and argument, with a live object.
            self.result = unsafe { (self.function)(pointer, self.arg) };
        }
    }
}

/// Runs a slot's body; a panic becomes a Python exception instead of crossing into C.
#[inline]
pub(super) fn guard<R>(failure: R, body: impl FnOnce() -> PyRes<R>) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(Raised { .. })) => failure,
        Err(panic) => {
            raise_panic(panic.as_ref());
            failure
        }
    }
}

/// Raises what a panic said.
#[cold]
fn raise_panic(panic: &(dyn std::any::Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic");
    let _ = Builtin::System.raise(&format!("aioxide: internal error: {text}"));
}

/// Makes a value of a type without size, such as a function item or a closure that captures nothing.
#[inline]
pub(super) fn conjure<F: Copy>() -> F {
    const {
        assert!(
            mem::size_of::<F>() == 0,
            "only functions and closures without captures"
        );
    }
    // SAFETY: a type without size has one value, which no bytes are read for. `F: Copy` rules out tokens.
    unsafe { ptr::NonNull::<F>::dangling().read() }
}

/// What a native method or getter may return.
pub(crate) trait IntoObj {
    /// The Python value.
    fn into_obj(self) -> PyRes;
}

impl IntoObj for Obj {
    #[inline]
    fn into_obj(self) -> PyRes {
        Ok(self)
    }
}
impl IntoObj for () {
    #[inline]
    fn into_obj(self) -> PyRes {
        Ok(Obj::none())
    }
}
impl IntoObj for bool {
    #[inline]
    fn into_obj(self) -> PyRes {
        Ok(Obj::bool(self))
    }
}
impl IntoObj for f64 {
    fn into_obj(self) -> PyRes {
        Obj::float(self)
    }
}
impl IntoObj for i64 {
    fn into_obj(self) -> PyRes {
        Obj::int(self)
    }
}
impl IntoObj for usize {
    fn into_obj(self) -> PyRes {
        Obj::int(i64::try_from(self).unwrap_or(i64::MAX))
    }
}
impl IntoObj for String {
    fn into_obj(self) -> PyRes {
        Obj::str(&self)
    }
}
impl IntoObj for Option<Obj> {
    #[inline]
    fn into_obj(self) -> PyRes {
        Ok(self.unwrap_or_else(Obj::none))
    }
}
impl<T: Native> IntoObj for Ref<T> {
    #[inline]
    fn into_obj(self) -> PyRes {
        Ok(self.0)
    }
}

/// What an awaitable answers when it is driven.
pub(crate) enum Sent {
    /// It waits; the value goes up to the task.
    Yield(Obj),
    /// It is finished with this value.
    Return(Obj),
}

/// The comparison asked for by `tp_richcompare`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// Builds a class: slots first, then functions into its namespace.
pub(crate) struct ClassBuilder<T: Native> {
    /// The class's `__module__`.
    module: &'static str,
    /// The class's name.
    name: &'static str,
    /// Documentation, behind the text signature.
    doc: String,
    /// Bases; empty for `object`.
    bases: Vec<Obj>,
    /// Slots for `PyType_FromSpec`.
    slots: Vec<ffi::PyType_Slot>,
    /// Properties.
    getset: Vec<ffi::PyGetSetDef>,
    /// Functions, in order.
    functions: Vec<(&'static str, Obj)>,
    /// How `__init__` is taken.
    init: Option<Init<T>>,
    /// The class that the qualified names of functions name.
    owner: &'static str,
    /// May the class be subclassed?
    subclassable: bool,
    /// The C base whose memory comes first, if the base class is a native one itself; else NULL.
    memory: *mut ffi::PyTypeObject,
    /// Functions and classes that know better how to phrase argument errors: the class's C base.
    phrasing: Option<Obj>,
    /// Ties the builder to its payload.
    payload: PhantomData<T>,
}

/// A static C text.
fn leak(text: &str) -> *const std::ffi::c_char {
    CString::new(text).unwrap_or_default().into_raw()
}

impl<T: Native> ClassBuilder<T> {
    /// Starts a class.
    pub(crate) fn new(module: &'static str, name: &'static str, doc: &str) -> Self {
        Self {
            module,
            name,
            doc: doc.to_owned(),
            bases: Vec::new(),
            slots: Vec::new(),
            getset: Vec::new(),
            functions: Vec::new(),
            init: None,
            owner: name,
            subclassable: true,
            memory: ptr::null_mut(),
            phrasing: None,
            payload: PhantomData,
        }
    }

    /// Adds a base class.
    pub(crate) fn base(mut self, base: Obj) -> Self {
        self.bases.push(base);
        self
    }

    /// Adds a native base class, whose payload this class's payload starts with.
    pub(crate) fn extends<B: Native>(mut self) -> Self
    where
        T: Extends<B>,
    {
        self.memory = B::class().base.load(Ordering::Relaxed);
        self.base(B::class().object())
    }

    /// The base's methods phrase the errors of wrong calls (for classes that are written in C in CPython).
    pub(crate) fn phrased_by(mut self, class: Obj) -> Self {
        self.phrasing = Some(class);
        self
    }

    /// The class refuses subclasses and is not made by calling it.
    pub(crate) fn sealed(mut self) -> Self {
        self.subclassable = false;
        self
    }

    /// What follows is called a method of `owner`, which is a base class in asyncio.
    pub(crate) fn inherited_from(mut self, owner: &'static str) -> Self {
        self.owner = owner;
        self
    }

    /// `__init__`, with a signature such as `"(self, value=1)"`.
    pub(crate) fn init(
        mut self,
        signature: &'static str,
        body: fn(&Ref<T>, &Args<'_>) -> PyRes<()>,
    ) -> Self {
        let spec = FunctionSpec::leak(
            Kind::Method,
            self.module,
            Some(self.name),
            &format!("__init__{signature}"),
            "",
        );
        self.doc = format!("{}{}\n--\n\n{}", self.name, strip_self(signature), self.doc);
        if let Some(class) = &self.phrasing {
            spec.phrase_with(class.clone());
        }
        self.init = Some(Init { spec, body });
        self
    }

    /// A method, with a signature such as `"put_nowait(self, item)"`.
    pub(crate) fn method<F, R>(
        mut self,
        signature: &'static str,
        doc: &'static str,
        _body: F,
    ) -> Self
    where
        F: Fn(&Ref<T>, &Args<'_>) -> PyRes<R> + Copy + 'static,
        R: IntoObj,
    {
        let spec = FunctionSpec::leak(Kind::Method, self.module, Some(self.owner), signature, doc);
        self.add(spec, method_call::<T, F, R>);
        self
    }

    /// A method that answers `inspect.iscoroutinefunction`.
    pub(crate) fn coroutine<F, R>(
        mut self,
        signature: &'static str,
        doc: &'static str,
        _body: F,
    ) -> Self
    where
        F: Fn(&Ref<T>, &Args<'_>) -> PyRes<R> + Copy + 'static,
        R: IntoObj,
    {
        let spec = FunctionSpec::leak(
            Kind::Coroutine,
            self.module,
            Some(self.owner),
            signature,
            doc,
        );
        self.add(spec, method_call::<T, F, R>);
        self
    }

    /// Adds a function object to the namespace.
    fn add(&mut self, spec: &'static FunctionSpec, call: ffi::vectorcallfunc) {
        if let Some(class) = &self.phrasing
            && let Ok(name) = Obj::str(&spec.name)
        {
            match class.getattr_opt(&name) {
                Ok(Some(method)) => spec.phrase_with(method),
                Ok(None) => {}
                Err(raised) => raised.discard(),
            }
        }
        match spec.function(call) {
            Ok(function) => self.functions.push((&spec.name, function)),
            Err(raised) => raised.write_unraisable(None),
        }
    }

    /// A static attribute of the class.
    pub(crate) fn attribute(mut self, name: &'static str, value: Obj) -> Self {
        self.functions.push((name, value));
        self
    }

    /// A read-only property.
    pub(crate) fn getter<F, R>(mut self, name: &str, _read: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes<R> + Copy + 'static,
        R: IntoObj,
    {
        self.getset.push(ffi::PyGetSetDef {
            name: leak(name),
            get: Some(getter_slot::<T, F, R>),
            set: None,
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
        self
    }

    /// A property; the setter gets `None` for `del`.
    pub(crate) fn property<F, R, S>(mut self, name: &str, _read: F, _write: S) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes<R> + Copy + 'static,
        R: IntoObj,
        S: Fn(&Ref<T>, Option<&Obj>) -> PyRes<()> + Copy + 'static,
    {
        self.getset.push(ffi::PyGetSetDef {
            name: leak(name),
            get: Some(getter_slot::<T, F, R>),
            set: Some(setter_slot::<T, S>),
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
        self
    }

    /// A property that shows and sets a slot; `None` and `del` empty it.
    pub(crate) fn slot_property<F>(self, name: &str, field: F) -> Self
    where
        F: for<'a> Fn(&'a T) -> &'a Slot + Copy + 'static,
    {
        self.property(
            name,
            move |this| Ok(field(this).get()),
            move |this, value| {
                let value = value.filter(|value| !value.is_none()).cloned();
                drop(field(this).replace(value));
                Ok(())
            },
        )
    }

    /// A property that shows and sets a flag, by its truth; `del` clears it.
    pub(crate) fn flag_property<F>(self, name: &str, field: F) -> Self
    where
        F: for<'a> Fn(&'a T) -> &'a Cell<bool> + Copy + 'static,
    {
        self.property(
            name,
            move |this| Ok(field(this).get()),
            move |this, value| {
                field(this).set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
    }

    /// Adds a raw slot.
    fn slot(mut self, slot: c_int, pointer: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot {
            slot,
            pfunc: pointer,
        });
        self
    }

    /// `__repr__`.
    pub(crate) fn repr<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes<String> + Copy + 'static,
    {
        self.slot(ffi::Py_tp_repr, repr_slot::<T, F> as *mut c_void)
    }

    /// `__hash__`.
    pub(crate) fn hash<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes<isize> + Copy + 'static,
    {
        self.slot(ffi::Py_tp_hash, hash_slot::<T, F> as *mut c_void)
    }

    /// The rich comparisons; `None` answers `NotImplemented`.
    pub(crate) fn compare<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>, &Obj, Compare) -> PyRes<Option<bool>> + Copy + 'static,
    {
        self.slot(ffi::Py_tp_richcompare, compare_slot::<T, F> as *mut c_void)
    }

    /// `__setattr__` and `__delattr__`: `body` sees the change first and says what to store, then it is stored as usual.
    pub(crate) fn on_setattr<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>, &Obj, Option<&Obj>) -> PyRes<()> + Copy + 'static,
    {
        self.slot(ffi::Py_tp_setattro, setattr_slot::<T, F> as *mut c_void)
    }

    /// `__call__` with any arguments.
    pub(crate) fn call<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>, &[Obj], Option<&Obj>) -> PyRes + Copy + 'static,
    {
        self.slot(ffi::Py_tp_call, call_slot::<T, F> as *mut c_void)
    }

    /// `__iter__`.
    pub(crate) fn iterated<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes + Copy + 'static,
    {
        self.slot(ffi::Py_tp_iter, unary_slot::<T, F> as *mut c_void)
    }

    /// `__await__`.
    pub(crate) fn awaited<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes + Copy + 'static,
    {
        self.slot(ffi::Py_am_await, unary_slot::<T, F> as *mut c_void)
    }

    /// `__aiter__`.
    pub(crate) fn aiter<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes + Copy + 'static,
    {
        self.slot(ffi::Py_am_aiter, unary_slot::<T, F> as *mut c_void)
    }

    /// `__anext__`.
    pub(crate) fn anext<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes + Copy + 'static,
    {
        self.slot(ffi::Py_am_anext, unary_slot::<T, F> as *mut c_void)
    }

    /// `__next__` and `am_send` from one body, which gets the value sent.
    pub(crate) fn driven<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>, &Obj) -> PyRes<Sent> + Copy + 'static,
    {
        self.slot(ffi::Py_am_send, send_slot::<T, F> as *mut c_void)
            .slot(ffi::Py_tp_iternext, driven_next_slot::<T, F> as *mut c_void)
    }

    /// `__next__`; `None` ends the iteration.
    pub(crate) fn next<F>(self, _body: F) -> Self
    where
        F: Fn(&Ref<T>) -> PyRes<Option<Obj>> + Copy + 'static,
    {
        self.slot(ffi::Py_tp_iternext, next_slot::<T, F> as *mut c_void)
    }

    /// Objects of these layouts have attributes of their own and may be referred to weakly.
    fn add_dict_and_weak_references(&mut self) {
        let members = vec![
            member(c"__dictoffset__", T::LAYOUT.dict_offset()),
            member(c"__weaklistoffset__", T::LAYOUT.dict_offset() + WORD),
            // SAFETY: an all-zero member ends the list.
            unsafe { mem::zeroed() },
        ];
        let members = Vec::leak(members).as_mut_ptr().cast();
        self.slots.push(ffi::PyType_Slot {
            slot: ffi::Py_tp_members,
            pfunc: members,
        });
        self.getset.push(ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
    }

    /// Makes the class.
    pub(crate) fn build(mut self) -> PyRes {
        let class = T::class();
        if T::LAYOUT != Layout::Future {
            self.add_dict_and_weak_references();
        }
        // SAFETY: an all-zero entry ends the list.
        self.getset.push(unsafe { mem::zeroed() });
        let getset = Vec::leak(self.getset).as_mut_ptr().cast();
        self.slots.push(ffi::PyType_Slot {
            slot: ffi::Py_tp_getset,
            pfunc: getset,
        });
        self.slots.push(ffi::PyType_Slot {
            slot: ffi::Py_tp_doc,
            pfunc: leak(&self.doc).cast_mut().cast(),
        });
        let mut push =
            |slot: c_int, pfunc: *mut c_void| self.slots.push(ffi::PyType_Slot { slot, pfunc });
        push(ffi::Py_tp_dealloc, dealloc_slot::<T> as *mut c_void);
        push(ffi::Py_tp_traverse, traverse_slot::<T> as *mut c_void);
        push(ffi::Py_tp_clear, clear_slot::<T> as *mut c_void);
        if T::FINALIZES {
            push(ffi::Py_tp_finalize, finalize_slot::<T> as *mut c_void);
        }
        if self.init.is_some() {
            push(ffi::Py_tp_new, new_slot::<T> as *mut c_void);
            push(ffi::Py_tp_init, init_slot::<T> as *mut c_void);
        } else if T::LAYOUT == Layout::Future || self.subclassable {
            push(ffi::Py_tp_new, new_slot::<T> as *mut c_void);
        }
        push(0, ptr::null_mut());
        let mut flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC;
        if self.subclassable {
            flags |= ffi::Py_TPFLAGS_BASETYPE;
        }
        if !self.subclassable && self.init.is_none() {
            flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        }
        let size = T::LAYOUT.offset() + mem::size_of::<T>();
        let mut spec = ffi::PyType_Spec {
            name: leak(&format!("{}.{}", self.module, self.name)),
            basicsize: c_int::try_from(size)
                .map_err(|_| Builtin::System.raise("class too large"))?,
            itemsize: 0,
            flags: u32::try_from(flags).map_err(|_| Builtin::System.raise("class flags"))?,
            slots: Vec::leak(self.slots).as_mut_ptr(),
        };
        let bases = Obj::tuple(self.bases.iter().cloned())?;
        if T::LAYOUT == Layout::Future {
            let base = if self.memory.is_null() {
                self.bases[0].raw().cast::<ffi::PyTypeObject>()
            } else {
                self.memory
            };
            // SAFETY: a live type.
            let needed = unsafe { (*base).tp_basicsize };
            if usize::try_from(needed).unwrap_or(usize::MAX) > FUTURE_OFFSET {
                return Err(
                    Builtin::System.raise("aioxide was built for another layout of _asyncio.Task")
                );
            }
            class.base.store(base, Ordering::Relaxed);
        }
        if T::LAYOUT == Layout::Transport {
            let base = self.bases[0].raw().cast::<ffi::PyTypeObject>();
            // SAFETY: a live type.
            let size = usize::try_from(unsafe { (*base).tp_basicsize }).unwrap_or(0);
            // A native base class has that layout already.
            if size != T::LAYOUT.dict_offset() && size < T::LAYOUT.offset() {
                return Err(
                    Builtin::System.raise("aioxide was built for another layout of BaseTransport")
                );
            }
        }
        let bases_raw = if self.bases.is_empty() {
            ptr::null_mut()
        } else {
            bases.raw()
        };
        // SAFETY: a complete spec whose texts and tables are leaked, so they outlive the type.
        let made = unsafe { Obj::owned(ffi::PyType_FromSpecWithBases(&raw mut spec, bases_raw)) }?;
        let kind = made.raw().cast::<ffi::PyTypeObject>();
        if self.module != "_asyncio" {
            // Error texts name a class by this: with its module if it is one of C, which our models are not.
            // SAFETY: the type is ready and ours alone; the text is leaked, and the type does not own it.
            unsafe { (*kind).tp_name = leak(self.name) };
        }
        if let Some(init) = self.init {
            // SAFETY: the type is ready and ours; this slot is not inherited by subclasses.
            unsafe { (*kind).tp_vectorcall = Some(construct::<T>) };
            let _ = class.init.set(init);
        }
        // The class lives as long as the process: objects on free lists and natives refer to it without counting.
        class
            .pointer
            .store(made.clone().into_raw().cast(), Ordering::Relaxed);
        let mut functions = Vec::new();
        for (name, function) in self.functions {
            let name = super::function::intern(name);
            made.setattr(&name, &function)?;
            functions.push((name, function));
        }
        let _ = class.functions.set(functions);
        Ok(made)
    }
}

/// A member that tells CPython where a plain object keeps its dict or weak references.
fn member(name: &'static std::ffi::CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: isize::try_from(offset).unwrap_or(0),
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

/// `"(self, value=1)"` as `"(value=1)"`, for a class's text signature.
fn strip_self(signature: &str) -> String {
    let inner = signature
        .trim_start_matches("(self")
        .trim_start_matches(',')
        .trim_start();
    format!("({inner}")
}

/// Puts the native future class into the resolution order of the native task class, whose C base it is not:
/// `isinstance(task, Future)` holds, and Python subclasses of the task class inherit that.
pub(crate) fn link_future_class<B: Native, T: Extends<B>>() -> PyRes<()> {
    let (base, sub) = (B::class().object(), T::class().object());
    // The task class, `_asyncio.Task`, our future class, `_asyncio.Future`, object.
    let kind = sub.raw().cast::<ffi::PyTypeObject>();
    // SAFETY: a ready type has an order.
    let order = unsafe { Obj::borrowed((*kind).tp_mro) }.items()?;
    let mut linked = order.clone();
    linked.insert(linked.len().saturating_sub(2), base);
    let linked = Obj::tuple(linked)?;
    // SAFETY: the type is ready and ours alone; the old tuple is given up, caches are told.
    unsafe {
        let old = (*kind).tp_mro;
        (*kind).tp_mro = linked.into_raw();
        ffi::PyType_Modified(kind);
        ffi::Py_DECREF(old);
    }
    Ok(())
}

/// The object behind a slot's `self`.
///
/// # Safety
/// `raw` must be a live instance of `T`'s class as long as it is borrowed.
#[inline]
unsafe fn this<T: Native>(raw: &*mut ffi::PyObject) -> &Ref<T> {
    // SAFETY: the caller's promise.
    unsafe { Ref::from_obj(Obj::peek(raw)) }
}

/// A slot that gives `self` and returns an object.
unsafe extern "C" fn unary_slot<T: Native, F>(raw: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>) -> PyRes + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    guard(ptr::null_mut(), || conjure::<F>()(this).map(Obj::into_raw))
}

/// `tp_repr`.
unsafe extern "C" fn repr_slot<T: Native, F>(raw: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>) -> PyRes<String> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    guard(ptr::null_mut(), || {
        Ok(Obj::str(&conjure::<F>()(this)?)?.into_raw())
    })
}

/// `tp_hash`.
unsafe extern "C" fn hash_slot<T: Native, F>(raw: *mut ffi::PyObject) -> ffi::Py_hash_t
where
    F: Fn(&Ref<T>) -> PyRes<isize> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    guard(-1, || conjure::<F>()(this))
}

/// `tp_richcompare`.
unsafe extern "C" fn compare_slot<T: Native, F>(
    raw: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    operation: c_int,
) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>, &Obj, Compare) -> PyRes<Option<bool>> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let (this, other) = unsafe { (this::<T>(&raw), Obj::peek(&other)) };
    let compare = match operation {
        ffi::Py_LT => Compare::Lt,
        ffi::Py_LE => Compare::Le,
        ffi::Py_EQ => Compare::Eq,
        ffi::Py_NE => Compare::Ne,
        ffi::Py_GT => Compare::Gt,
        _ => Compare::Ge,
    };
    guard(ptr::null_mut(), || {
        Ok(match conjure::<F>()(this, other, compare)? {
            Some(answer) => Obj::bool(answer).into_raw(),
            // SAFETY: a static object, returned as a new reference.
            None => unsafe { Obj::borrowed(ffi::Py_NotImplemented()) }.into_raw(),
        })
    })
}

/// `tp_setattro` that tells the payload first.
unsafe extern "C" fn setattr_slot<T: Native, F>(
    raw: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int
where
    F: Fn(&Ref<T>, &Obj, Option<&Obj>) -> PyRes<()> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let (this, attribute) = unsafe { (this::<T>(&raw), Obj::peek(&name)) };
    guard(-1, || {
        // SAFETY: a live value, unless NULL stands for deletion.
        let given = (!value.is_null()).then(|| unsafe { Obj::peek(&value) });
        conjure::<F>()(this, attribute, given)?;
        // SAFETY: the generic setter with CPython's own arguments.
        done(unsafe { ffi::PyObject_GenericSetAttr(raw, name, value) })?;
        Ok(0)
    })
}

/// `tp_call`.
unsafe extern "C" fn call_slot<T: Native, F>(
    raw: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>, &[Obj], Option<&Obj>) -> PyRes + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances, a tuple and a dict or NULL.
    let (this, args) = unsafe { (this::<T>(&raw), Obj::peek(&args)) };
    // SAFETY: a live dict unless NULL.
    let kwargs = (!kwargs.is_null()).then(|| unsafe { Obj::peek(&kwargs) });
    guard(ptr::null_mut(), || {
        let args = args.items()?;
        conjure::<F>()(this, &args, kwargs).map(Obj::into_raw)
    })
}

/// `tp_iternext`.
unsafe extern "C" fn next_slot<T: Native, F>(raw: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>) -> PyRes<Option<Obj>> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    guard(ptr::null_mut(), || {
        Ok(conjure::<F>()(this)?.map_or(ptr::null_mut(), Obj::into_raw))
    })
}

/// `am_send`.
unsafe extern "C" fn send_slot<T: Native, F>(
    raw: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult
where
    F: Fn(&Ref<T>, &Obj) -> PyRes<Sent> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances, a live value and a place for the result.
    let (this, value) = unsafe { (this::<T>(&raw), Obj::peek(&value)) };
    // SAFETY: the place is valid for a write.
    unsafe { *result = ptr::null_mut() };
    guard(ffi::PySendResult::PYGEN_ERROR, || {
        let (answer, object) = match conjure::<F>()(this, value)? {
            Sent::Yield(object) => (ffi::PySendResult::PYGEN_NEXT, object),
            Sent::Return(object) => (ffi::PySendResult::PYGEN_RETURN, object),
        };
        // SAFETY: the place is valid for a write; the reference goes to the caller.
        unsafe { *result = object.into_raw() };
        Ok(answer)
    })
}

/// `tp_iternext` of an awaitable: a returned value travels as `StopIteration`, a returned `None` as nothing at all.
unsafe extern "C" fn driven_next_slot<T: Native, F>(raw: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>, &Obj) -> PyRes<Sent> + Copy + 'static,
{
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    guard(ptr::null_mut(), || {
        match conjure::<F>()(this, &Obj::none())? {
            Sent::Yield(object) => Ok(object.into_raw()),
            Sent::Return(object) if object.is_none() => Ok(ptr::null_mut()),
            #[cfg(Py_3_12)]
            Sent::Return(object) => Err(super::stop_iteration::raise(object)),
            #[cfg(not(Py_3_12))]
            Sent::Return(object) => Err(super::sending::stop_iteration(&object)),
        }
    })
}

/// A property's reader.
unsafe extern "C" fn getter_slot<T: Native, F, R>(
    raw: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>) -> PyRes<R> + Copy + 'static,
    R: IntoObj,
{
    // SAFETY: the descriptor checks the class of `self`.
    let this = unsafe { this::<T>(&raw) };
    guard(ptr::null_mut(), || {
        Ok(conjure::<F>()(this)?.into_obj()?.into_raw())
    })
}

/// A property's writer.
unsafe extern "C" fn setter_slot<T: Native, F>(
    raw: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _: *mut c_void,
) -> c_int
where
    F: Fn(&Ref<T>, Option<&Obj>) -> PyRes<()> + Copy + 'static,
{
    // SAFETY: the descriptor checks the class of `self`.
    let this = unsafe { this::<T>(&raw) };
    guard(-1, || {
        // SAFETY: a live value, unless NULL stands for deletion.
        let given = (!value.is_null()).then(|| unsafe { Obj::peek(&value) });
        conjure::<F>()(this, given)?;
        Ok(0)
    })
}

/// Calls a method: `self` is the first argument.
unsafe extern "C" fn method_call<T: Native, F, R>(
    function: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    F: Fn(&Ref<T>, &Args<'_>) -> PyRes<R> + Copy + 'static,
    R: IntoObj,
{
    // SAFETY: only function objects carry this pointer, and CPython gives a valid argument vector.
    unsafe {
        super::function::with_args(function, args, nargsf, names, true, |spec, this, args| {
            let Some(this) = T::class().cast(this) else {
                return Err(spec.wrong_self(&T::class().object(), this));
            };
            conjure::<F>()(this, args)?.into_obj()
        })
    }
}

/// `tp_new`: a payload before `__init__`.
unsafe extern "C" fn new_slot<T: Native>(
    kind: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guard(ptr::null_mut(), || {
        // SAFETY: CPython calls `tp_new` with the class or a subclass.
        Ok(unsafe { Ref::<T>::allocate(kind, T::empty()) }?
            .into_obj()
            .into_raw())
    })
}

/// `tp_init`.
unsafe extern "C" fn init_slot<T: Native>(
    raw: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: CPython calls a class's slots with its instances, a tuple and a dict or NULL.
    let (this, args) = unsafe { (this::<T>(&raw), Obj::peek(&args)) };
    // SAFETY: a live dict unless NULL.
    let kwargs = (!kwargs.is_null()).then(|| unsafe { Obj::peek(&kwargs) });
    guard(-1, || {
        let Some(init) = T::class().init.get() else {
            return Ok(0);
        };
        init.spec
            .with_tuple(this.obj(), args, kwargs, |args| (init.body)(this, args))?;
        Ok(0)
    })
}

/// Calls the class itself, without a tuple for the arguments.
unsafe extern "C" fn construct<T: Native>(
    kind: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let class = kind.cast::<ffi::PyTypeObject>();
    // SAFETY: a live type; somebody may have replaced `__init__` or `__new__` on it.
    let (init, new) = unsafe { ((*class).tp_init, (*class).tp_new) };
    guard(ptr::null_mut(), || {
        let ours = init.is_some_and(|slot| ptr::fn_addr_eq(slot, init_slot::<T> as ffi::initproc))
            && new.is_some_and(|slot| ptr::fn_addr_eq(slot, new_slot::<T> as ffi::newfunc))
            && ptr::eq(class, T::class().raw());
        let Some(spec) = T::class().init.get().filter(|_| ours) else {
            // SAFETY: the generic way: a tuple and a dict through `type.__call__`.
            return unsafe { super::function::call_generic(kind, args, nargsf, names) }
                .map(Obj::into_raw);
        };
        let this = Ref::<T>::new(T::empty())?;
        // SAFETY: CPython gives a valid argument vector.
        unsafe {
            spec.spec
                .with_vector(this.obj(), args, nargsf, names, |args| {
                    (spec.body)(&this, args)
                })
        }?;
        Ok(this.into_obj().into_raw())
    })
}

/// `tp_traverse`.
unsafe extern "C" fn traverse_slot<T: Native>(
    raw: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    let mut visitor = Visit {
        function: visit,
        arg,
        result: 0,
        scope: PhantomData,
    };
    match T::LAYOUT {
        Layout::Plain | Layout::Transport => {
            // SAFETY: a live object.
            visitor.raw(unsafe { ffi::Py_TYPE(raw) }.cast());
            for offset in (HEAD..=T::LAYOUT.dict_offset()).step_by(WORD) {
                // SAFETY: the words that hold references, up to the dict's.
                visitor.raw(unsafe { *raw.byte_add(offset).cast::<*mut ffi::PyObject>() });
            }
        }
        Layout::Future => {
            let base = T::class().base.load(Ordering::Relaxed);
            // SAFETY: the base's own traversal of its own memory; from 3.12 on it also shows the type.
            let answer = unsafe {
                (*base)
                    .tp_traverse
                    .map_or(0, |traverse| traverse(raw, visit, arg))
            };
            if answer != 0 {
                return answer;
            }
            if !cfg!(Py_3_12) {
                // SAFETY: a live object.
                visitor.raw(unsafe { ffi::Py_TYPE(raw) }.cast());
            }
        }
    }
    // SAFETY: the collector calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    // A traversal must not raise, so a panic ends it quietly.
    let _ = catch_unwind(AssertUnwindSafe(|| this.traverse(&mut visitor)));
    visitor.result
}

/// `tp_clear`.
unsafe extern "C" fn clear_slot<T: Native>(raw: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    // SAFETY: a live object; its own dict and its base's own clearing.
    unsafe { clear_head::<T>(raw) };
    let _ = catch_unwind(AssertUnwindSafe(|| this.clear()));
    0
}

/// Gives up `__dict__` and what the base's memory holds.
///
/// # Safety
/// `raw` must be an instance of `T`'s class.
unsafe fn clear_head<T: Native>(raw: *mut ffi::PyObject) {
    match T::LAYOUT {
        Layout::Plain | Layout::Transport => {
            for offset in (HEAD..=T::LAYOUT.dict_offset()).step_by(WORD) {
                // SAFETY: the words that hold references, up to the dict's; each is emptied before it is given up.
                unsafe {
                    let word = raw.byte_add(offset).cast::<*mut ffi::PyObject>();
                    let old = ptr::replace(word, ptr::null_mut());
                    ffi::Py_XDECREF(old);
                }
            }
        }
        Layout::Future => {
            let base = T::class().base.load(Ordering::Relaxed);
            // SAFETY: the base's own clearing of its own memory, dict included.
            unsafe {
                if let Some(clear) = (*base).tp_clear {
                    clear(raw);
                }
            }
        }
    }
}

/// `tp_finalize`.
unsafe extern "C" fn finalize_slot<T: Native>(raw: *mut ffi::PyObject) {
    // SAFETY: CPython calls a class's slots with its instances.
    let this = unsafe { this::<T>(&raw) };
    preserving_exception(|| {
        guard((), || {
            T::finalize(this);
            Ok(())
        });
        if Raised::is_set() {
            Raised::SET.write_unraisable(None);
        }
    });
}

/// The word at a possibly negative offset, as `tp_dictoffset` and `tp_weaklistoffset` give it.
///
/// # Safety
/// The offset must be one of the object's.
unsafe fn word_at(raw: *mut ffi::PyObject, offset: isize) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe { *raw.byte_offset(offset).cast::<*mut ffi::PyObject>() }
}

/// The words of the native base's memory.
const BASE_WORDS: usize = (FUTURE_OFFSET - HEAD) / WORD;

/// Has nobody put anything into the memory of the native base, so that there is nothing to clear?
///
/// # Safety
/// `raw` must be an instance of a class in the future layout.
#[inline]
unsafe fn base_is_clean(raw: *mut ffi::PyObject) -> bool {
    // SAFETY: the words between the object's head and the payload.
    let words = unsafe { raw.byte_add(HEAD).cast::<[usize; BASE_WORDS]>().read() };
    words.iter().fold(0, |all, word| all | word) == 0
}

/// Has anybody set an attribute on the object?
///
/// # Safety
/// `raw` must be an instance of a class in the future layout, `kind` its class.
#[inline]
unsafe fn has_attributes(raw: *mut ffi::PyObject, kind: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: a live type.
    let dict_offset = unsafe { (*kind).tp_dictoffset };
    // A managed dict stands before the object, three words back, and its offset is given as -1.
    let dict_offset = if dict_offset < 0 {
        -3 * size_of::<usize>().cast_signed()
    } else {
        dict_offset
    };
    // SAFETY: where the object keeps its dict.
    unsafe { !word_at(raw, dict_offset).is_null() || !has_no_inline_values(raw, kind) }
}

/// Are there no attributes in the room behind the object? Future classes have such a room from 3.14 on.
///
/// # Safety
/// `raw` must be an object of class `kind`.
#[inline]
unsafe fn has_no_inline_values(raw: *mut ffi::PyObject, kind: *mut ffi::PyTypeObject) -> bool {
    /// `Py_TPFLAGS_INLINE_VALUES`.
    const INLINE_VALUES: std::ffi::c_ulong = 1 << 2;
    // SAFETY: a live type.
    if !cfg!(Py_3_14) || unsafe { (*kind).tp_flags } & INLINE_VALUES == 0 {
        return true;
    }
    // SAFETY: a live type.
    let size = unsafe { (*kind).tp_basicsize };
    // SAFETY: the room starts with four bytes: its capacity, how much of it is used, and two flags.
    unsafe { *raw.cast::<u8>().offset(size + 1) == 0 }
}

/// `tp_dealloc`.
unsafe extern "C" fn dealloc_slot<T: Native>(raw: *mut ffi::PyObject) {
    #[cfg(Py_3_14)]
    // SAFETY: CPython calls this with dying instances.
    unsafe {
        destroy::<T>(raw);
    }
    #[cfg(not(Py_3_14))]
    // SAFETY: CPython calls this with dying instances; this function is their destructor, that of a Python subclass has
    // done its part by now.
    unsafe {
        super::trashcan::bounded(raw, dealloc_slot::<T>, || destroy::<T>(raw));
    }
}

/// The end of an object, unless its finalizer brings it back.
///
/// # Safety
/// `raw` must be an instance of `T`'s class without references.
#[inline]
unsafe fn destroy<T: Native>(raw: *mut ffi::PyObject) {
    let class = T::class();
    // SAFETY: a dying object still has its type and payload.
    let (kind, this) = unsafe { (ffi::Py_TYPE(raw), this::<T>(&raw)) };
    let exact = ptr::eq(kind, class.raw());
    let mut reusable = exact && T::FREELIST > 0;
    if T::FINALIZES && this.needs_finalizer() {
        // SAFETY: the reference count is zero, as the call wants it.
        if unsafe { ffi::PyObject_CallFinalizerFromDealloc(raw) } < 0 {
            return;
        }
        reusable = false;
    }
    T::unlink(this);
    // SAFETY: a garbage-collected object; untracking twice is allowed.
    unsafe { ffi::PyObject_GC_UnTrack(raw.cast()) };
    if T::FINALIZES && reusable {
        // SAFETY: a bit of the collector's head: an object that was finalized must not come back.
        reusable = unsafe { ffi::PyObject_GC_IsFinalized(raw) } == 0;
    }
    // SAFETY: the type's own offset of its weak references.
    unsafe {
        if !word_at(raw, (*kind).tp_weaklistoffset).is_null() {
            ffi::PyObject_ClearWeakRefs(raw);
        }
        if T::LAYOUT == Layout::Future {
            let attributes = has_attributes(raw, kind);
            if attributes || !base_is_clean(raw) {
                clear_head::<T>(raw);
                // Of attributes, traces stay in the room for them: another object shall not start with these.
                reusable &= !attributes;
                // What is left are flags of the object's life; every reference is gone, as on the list it has to be.
                raw.byte_add(HEAD)
                    .cast::<[usize; BASE_WORDS]>()
                    .write([0; BASE_WORDS]);
            }
        } else {
            clear_head::<T>(raw);
        }
    }
    // SAFETY: the payload is dropped once; nobody can reach the object any more.
    unsafe {
        let payload = raw.byte_add(T::LAYOUT.offset()).cast::<T>();
        if mem::needs_drop::<T>() {
            let _ = catch_unwind(AssertUnwindSafe(|| ptr::drop_in_place(payload)));
        }
    }
    if reusable {
        // SAFETY: used under the GIL; the borrow ends here.
        let free = unsafe { &mut *class.free.get() };
        if free.len() < T::FREELIST {
            free.push(raw);
            // SAFETY: the class itself keeps the type alive; a type's count tells how many objects there are.
            unsafe { ffi::Py_DECREF(kind.cast()) };
            return;
        }
    }
    // SAFETY: gives the memory back, then the reference that every instance of a heap type holds.
    unsafe {
        if let Some(release) = (*kind).tp_free {
            release(raw.cast());
        }
        ffi::Py_DECREF(kind.cast());
    }
}

/// A counter that hands out names, such as the numbers of tasks.
pub(crate) struct Counter(Cell<u64>);

// SAFETY: used under the GIL alone.
unsafe impl Sync for Counter {}

impl Counter {
    /// A counter whose first number is `first`.
    pub(crate) const fn starting_at(first: u64) -> Self {
        Self(Cell::new(first))
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let number = self.0.get();
        self.0.set(number + 1);
        number
    }
}

/// A process-wide cell that only code under the GIL touches.
pub(crate) struct GilCell<V>(UnsafeCell<V>);

// SAFETY: used under the GIL alone, and `with` gives no way to hold on to the borrow.
unsafe impl<V> Sync for GilCell<V> {}

impl<V: Copy> GilCell<V> {
    /// A cell.
    pub(crate) const fn new(value: V) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    #[inline]
    pub(crate) fn get(&self) -> V {
        // SAFETY: a copy under the GIL.
        unsafe { *self.0.get() }
    }

    /// Changes the value.
    #[inline]
    pub(crate) fn set(&self, value: V) {
        // SAFETY: a plain store under the GIL.
        unsafe { *self.0.get() = value };
    }
}
