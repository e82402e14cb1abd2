//! Owned references, slots for them, and calls: the binding's everyday vocabulary.
//!
//! An [`Obj`] is one strong reference and is neither `Send` nor `Sync`: whoever holds one holds the GIL,
//! because the only ways to get one are a call from the interpreter and another `Obj`.
//! Errors follow CPython's own protocol: [`Raised`] says that the exception is set in the thread state.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem;
use std::ptr::{self, NonNull};

use pyo3::ffi;

use super::errors::Raised;

/// The result of whatever may raise.
pub(crate) type PyRes<T = Obj> = Result<T, Raised>;

/// One strong reference to a Python object.
#[repr(transparent)]
pub(crate) struct Obj(NonNull<ffi::PyObject>);

impl Clone for Obj {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: an `Obj` points to a live object, and its holder has the GIL.
        unsafe { ffi::Py_INCREF(self.0.as_ptr()) };
        Self(self.0)
    }
}

impl Drop for Obj {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this reference is ours to give up, and its holder has the GIL.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) };
    }
}

impl fmt::Debug for Obj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Obj({:p})", self.0)
    }
}

impl Obj {
    /// Takes over a new reference; NULL means that an exception is set.
    ///
    /// # Safety
    /// `pointer` must be NULL with an exception set, or a strong reference that the caller gives away.
    #[inline]
    pub(super) unsafe fn owned(pointer: *mut ffi::PyObject) -> PyRes {
        NonNull::new(pointer).map(Self).ok_or(Raised::SET)
    }

    /// Takes over a new reference that is known not to be NULL.
    ///
    /// # Safety
    /// `pointer` must be a strong reference that the caller gives away.
    #[inline]
    pub(super) unsafe fn steal(pointer: *mut ffi::PyObject) -> Self {
        debug_assert!(!pointer.is_null());
        // SAFETY: the caller promises a live object.
        Self(unsafe { NonNull::new_unchecked(pointer) })
    }

    /// Makes a new strong reference to a borrowed object.
    ///
    /// # Safety
    /// `pointer` must point to a live object.
    #[inline]
    pub(super) unsafe fn borrowed(pointer: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller promises a live object.
        unsafe { ffi::Py_INCREF(pointer) };
        // SAFETY: the reference just made is ours.
        unsafe { Self::steal(pointer) }
    }

    /// Looks at a borrowed pointer as a reference, without counting.
    ///
    /// # Safety
    /// The object must stay alive as long as `pointer` is borrowed.
    #[inline]
    pub(super) unsafe fn peek(pointer: &*mut ffi::PyObject) -> &Self {
        // SAFETY: `Obj` is transparent over a non-null pointer, and the caller promises a live object.
        unsafe { &*ptr::from_ref(pointer).cast::<Self>() }
    }

    /// The raw pointer, still owned by `self`.
    #[inline]
    pub(super) fn raw(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference away as a raw pointer.
    #[inline]
    pub(super) fn into_raw(self) -> *mut ffi::PyObject {
        let pointer = self.0.as_ptr();
        mem::forget(self);
        pointer
    }

    /// The object's address, for reprs and for comparing identities later.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Python's `is`.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Is this `None`?
    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        // SAFETY: comparing addresses only.
        ptr::eq(self.raw(), unsafe { ffi::Py_None() })
    }

    /// `None`.
    #[inline]
    pub(crate) fn none() -> Self {
        // SAFETY: `None` lives as long as the interpreter.
        unsafe { Self::borrowed(ffi::Py_None()) }
    }

    /// `True` or `False`.
    #[inline]
    pub(crate) fn bool(value: bool) -> Self {
        let pointer = if value {
            // SAFETY: a static object.
            unsafe { ffi::Py_True() }
        } else {
            // SAFETY: a static object.
            unsafe { ffi::Py_False() }
        };
        // SAFETY: both live as long as the interpreter.
        unsafe { Self::borrowed(pointer) }
    }

    /// A `str`.
    pub(crate) fn str(text: &str) -> PyRes {
        let len = isize::try_from(text.len()).unwrap_or(isize::MAX);
        // SAFETY: pointer and length are of a valid UTF-8 slice.
        unsafe { Self::owned(ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), len)) }
    }

    /// An `int`.
    pub(crate) fn int(value: i64) -> PyRes {
        // SAFETY: plain constructor.
        unsafe { Self::owned(ffi::PyLong_FromLongLong(value)) }
    }

    /// A `float`.
    pub(crate) fn float(value: f64) -> PyRes {
        // SAFETY: plain constructor.
        unsafe { Self::owned(ffi::PyFloat_FromDouble(value)) }
    }

    /// A `tuple` of the given objects.
    pub(crate) fn tuple(items: impl IntoIterator<Item = Self>) -> PyRes {
        let items = items.into_iter();
        let (least, most) = items.size_hint();
        if most != Some(least) {
            return Self::tuple(items.collect::<Vec<Self>>());
        }
        let len = isize::try_from(least).unwrap_or(isize::MAX);
        // SAFETY: plain constructor.
        let tuple = unsafe { Self::owned(ffi::PyTuple_New(len)) }?;
        let mut filled = 0;
        for (index, item) in (0..len).zip(items) {
            // Perf: "literal getaddrinfo", UDP: `PyTuple_SetItem` and a vector of the items cost twice as much.
            // SAFETY: a fresh tuple with room for `len` items, each of which is NULL until it is set here, once.
            unsafe { ffi::PyTuple_SET_ITEM(tuple.raw(), index, item.into_raw()) };
            filled += 1;
        }
        if filled < len {
            return Err(Raised::runtime_error("there are fewer items than promised"));
        }
        Ok(tuple)
    }

    /// A `list` of the given objects.
    pub(crate) fn list(items: impl IntoIterator<Item = Self>) -> PyRes {
        // SAFETY: plain constructor.
        let list = unsafe { Self::owned(ffi::PyList_New(0)) }?;
        for item in items {
            list.append(&item)?;
        }
        Ok(list)
    }

    /// A new `dict`.
    pub(crate) fn dict() -> PyRes {
        // SAFETY: plain constructor.
        unsafe { Self::owned(ffi::PyDict_New()) }
    }

    /// A new `set`.
    pub(crate) fn set() -> PyRes {
        // SAFETY: plain constructor.
        unsafe { Self::owned(ffi::PySet_New(ptr::null_mut())) }
    }

    /// A `list` of the given objects, made at once.
    pub(crate) fn list_of(items: Vec<Self>) -> PyRes {
        let len = isize::try_from(items.len()).unwrap_or(isize::MAX);
        // SAFETY: plain constructor.
        let list = unsafe { Self::owned(ffi::PyList_New(len)) }?;
        for (index, item) in (0isize..).zip(items) {
            // SAFETY: a fresh list with room for `len` items; the call steals the reference.
            unsafe { ffi::PyList_SetItem(list.raw(), index, item.into_raw()) };
        }
        Ok(list)
    }

    /// `set(iterable)`.
    pub(crate) fn set_of(iterable: &Self) -> PyRes {
        // SAFETY: plain constructor from any object.
        unsafe { Self::owned(ffi::PySet_New(iterable.raw())) }
    }

    /// `set.discard`; was it there?
    pub(crate) fn set_discard(&self, item: &Self) -> PyRes<bool> {
        // SAFETY: the call checks that `self` is a set.
        truth(unsafe { ffi::PySet_Discard(self.raw(), item.raw()) })
    }

    /// `item in self`.
    pub(crate) fn contains(&self, item: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        truth(unsafe { ffi::PySequence_Contains(self.raw(), item.raw()) })
    }

    /// `list.append`.
    pub(crate) fn append(&self, item: &Self) -> PyRes<()> {
        // SAFETY: the call checks that `self` is a list.
        done(unsafe { ffi::PyList_Append(self.raw(), item.raw()) })
    }

    /// `set.add`.
    pub(crate) fn set_add(&self, item: &Self) -> PyRes<()> {
        // SAFETY: the call checks that `self` is a set.
        done(unsafe { ffi::PySet_Add(self.raw(), item.raw()) })
    }

    /// `len(self)`.
    pub(crate) fn len(&self) -> PyRes<usize> {
        // SAFETY: any object may be asked.
        usize::try_from(unsafe { ffi::PyObject_Size(self.raw()) }).map_err(|_| Raised::SET)
    }

    /// The object's class.
    #[inline]
    pub(crate) fn class(&self) -> Self {
        // SAFETY: a live object has a live type.
        unsafe { Self::borrowed(ffi::Py_TYPE(self.raw()).cast()) }
    }

    /// Is the object's class exactly `class`?
    #[inline]
    pub(crate) fn is_exactly(&self, class: &Self) -> bool {
        // SAFETY: reading the type of a live object.
        ptr::eq(unsafe { ffi::Py_TYPE(self.raw()) }.cast(), class.raw())
    }

    /// The version of the object's class, which changes whenever the class or one of its bases does; 0 is none.
    #[inline]
    pub(crate) fn class_version(&self) -> u32 {
        // SAFETY: a live object has a live type.
        unsafe { (*ffi::Py_TYPE(self.raw())).tp_version_tag }
    }

    /// The address of the object's class.
    #[inline]
    pub(crate) fn class_address(&self) -> usize {
        // SAFETY: reading the type of a live object.
        unsafe { ffi::Py_TYPE(self.raw()) as usize }
    }

    /// The name of the object's class, without its module.
    pub(crate) fn class_name(&self) -> String {
        self.class()
            .getattr_str("__name__")
            .and_then(|name| name.text())
            .unwrap_or_else(|raised| {
                raised.discard();
                String::from("?")
            })
    }

    /// `isinstance(self, class)`.
    pub(crate) fn isinstance(&self, class: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        truth(unsafe { ffi::PyObject_IsInstance(self.raw(), class.raw()) })
    }

    /// `issubclass(self, class)` by the method resolution order alone; both must be classes.
    #[inline]
    pub(crate) fn is_subtype_of(&self, class: &Self) -> bool {
        if !self.is_class() || !class.is_class() {
            return false;
        }
        // SAFETY: both were just seen to be types.
        unsafe { ffi::PyType_IsSubtype(self.raw().cast(), class.raw().cast()) != 0 }
    }

    /// Is this a class?
    #[inline]
    pub(crate) fn is_class(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyType_Check(self.raw()) != 0 }
    }

    /// Is this an instance of `BaseException`?
    #[inline]
    pub(crate) fn is_exception(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyExceptionInstance_Check(self.raw()) != 0 }
    }

    /// Is this a class derived from `BaseException`?
    #[inline]
    pub(crate) fn is_exception_class(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyExceptionClass_Check(self.raw()) != 0 }
    }

    /// Is this a `str`?
    #[inline]
    pub(crate) fn is_str(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyUnicode_Check(self.raw()) != 0 }
    }

    /// Is this a `tuple`?
    #[inline]
    pub(crate) fn is_tuple(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyTuple_Check(self.raw()) != 0 }
    }

    /// Is this exactly a `str`?
    #[inline]
    pub(crate) fn is_exact_str(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyUnicode_CheckExact(self.raw()) != 0 }
    }

    /// Is this an `int` (a `bool` included)?
    #[inline]
    pub(crate) fn is_int(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyLong_Check(self.raw()) != 0 }
    }

    /// Is this exactly an `int`?
    #[inline]
    pub(crate) fn is_exact_int(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyLong_CheckExact(self.raw()) != 0 }
    }

    /// Is this exactly a `float`?
    #[inline]
    pub(crate) fn is_exact_float(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyFloat_CheckExact(self.raw()) != 0 }
    }

    /// `self + other`.
    pub(crate) fn add(&self, other: &Self) -> PyRes {
        // SAFETY: any two objects may be asked.
        unsafe { Self::owned(ffi::PyNumber_Add(self.raw(), other.raw())) }
    }

    /// `self * other`.
    pub(crate) fn multiply(&self, other: &Self) -> PyRes {
        // SAFETY: any two objects may be asked.
        unsafe { Self::owned(ffi::PyNumber_Multiply(self.raw(), other.raw())) }
    }

    /// `self // other`.
    pub(crate) fn floor_divide(&self, other: &Self) -> PyRes {
        // SAFETY: any two objects may be asked.
        unsafe { Self::owned(ffi::PyNumber_FloorDivide(self.raw(), other.raw())) }
    }

    /// Is this exactly a coroutine of an `async def`?
    #[inline]
    pub(crate) fn is_coroutine(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyCoro_CheckExact(self.raw()) != 0 }
    }

    /// Is this exactly a generator?
    #[inline]
    pub(crate) fn is_generator(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyGen_CheckExact(self.raw()) != 0 }
    }

    /// Is this a `contextvars.Context`?
    #[inline]
    pub(crate) fn is_context(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyContext_CheckExact(self.raw()) != 0 }
    }

    /// `callable(self)`.
    #[inline]
    pub(crate) fn is_callable(&self) -> bool {
        // SAFETY: any object may be asked.
        unsafe { ffi::PyCallable_Check(self.raw()) != 0 }
    }

    /// `bool(self)`.
    pub(crate) fn truth(&self) -> PyRes<bool> {
        // SAFETY: any object may be asked.
        truth(unsafe { ffi::PyObject_IsTrue(self.raw()) })
    }

    /// `self == other`, identity first as containers do.
    pub(crate) fn equals(&self, other: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        truth(unsafe { ffi::PyObject_RichCompareBool(self.raw(), other.raw(), ffi::Py_EQ) })
    }

    /// `self < other`.
    pub(crate) fn less_than(&self, other: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        truth(unsafe { ffi::PyObject_RichCompareBool(self.raw(), other.raw(), ffi::Py_LT) })
    }

    /// `self <= other`.
    pub(crate) fn less_or_equal(&self, other: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        let answer = unsafe {
            Self::owned(ffi::PyObject_RichCompare(
                self.raw(),
                other.raw(),
                ffi::Py_LE,
            ))
        }?;
        answer.truth()
    }

    /// `self >= other`.
    pub(crate) fn greater_or_equal(&self, other: &Self) -> PyRes<bool> {
        // SAFETY: any two objects may be asked.
        let answer = unsafe {
            Self::owned(ffi::PyObject_RichCompare(
                self.raw(),
                other.raw(),
                ffi::Py_GE,
            ))
        }?;
        answer.truth()
    }

    /// `hash(self)`.
    pub(crate) fn hash(&self) -> PyRes<isize> {
        // SAFETY: any object may be asked.
        match unsafe { ffi::PyObject_Hash(self.raw()) } {
            -1 => Err(Raised::SET),
            hash => Ok(hash),
        }
    }

    /// `repr(self)`.
    pub(crate) fn repr(&self) -> PyRes<String> {
        // SAFETY: any object may be asked.
        unsafe { Self::owned(ffi::PyObject_Repr(self.raw())) }?.text()
    }

    /// `str(self)` as an object.
    pub(crate) fn to_str(&self) -> PyRes {
        // SAFETY: any object may be asked.
        unsafe { Self::owned(ffi::PyObject_Str(self.raw())) }
    }

    /// The text of an exact `str`, unless it has lone surrogates; none of any other object.
    pub(crate) fn utf8(&self) -> Option<&str> {
        if !self.is_exact_str() {
            return None;
        }
        let mut len = 0isize;
        // SAFETY: a `str`.
        let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(self.raw(), &raw mut len) };
        if data.is_null() {
            Raised::SET.discard();
            return None;
        }
        // SAFETY: the buffer belongs to the `str`, which does not change and lives as long as the borrow.
        let bytes = unsafe {
            std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(len).unwrap_or(0))
        };
        std::str::from_utf8(bytes).ok()
    }

    /// The text of a `str`; lone surrogates are replaced.
    pub(crate) fn text(&self) -> PyRes<String> {
        let mut len = 0isize;
        // SAFETY: the call checks that `self` is a `str`.
        let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(self.raw(), &raw mut len) };
        if data.is_null() {
            if !self.is_str() {
                return Err(Raised::SET);
            }
            Raised::SET.discard();
            // SAFETY: plain constructor with static, terminated names.
            let bytes = unsafe {
                Self::owned(ffi::PyUnicode_AsEncodedString(
                    self.raw(),
                    c"utf-8".as_ptr(),
                    c"backslashreplace".as_ptr(),
                ))
            }?;
            // SAFETY: a bytes object.
            let (data, len) = unsafe {
                (
                    ffi::PyBytes_AsString(bytes.raw()),
                    ffi::PyBytes_Size(bytes.raw()),
                )
            };
            // SAFETY: the buffer of a live bytes object.
            let slice = unsafe {
                std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(len).unwrap_or(0))
            };
            return Ok(String::from_utf8_lossy(slice).into_owned());
        }
        // SAFETY: the UTF-8 buffer of a live `str`.
        let slice = unsafe {
            std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(len).unwrap_or(0))
        };
        Ok(String::from_utf8_lossy(slice).into_owned())
    }

    /// The value as a C double, as `float(self)` would accept it (numbers only).
    pub(crate) fn as_f64(&self) -> PyRes<f64> {
        if self.is_exact_float() {
            // SAFETY: a float.
            return Ok(unsafe { ffi::PyFloat_AS_DOUBLE(self.raw()) });
        }
        let value = if self.is_exact_int() {
            // SAFETY: an int.
            unsafe { ffi::PyLong_AsDouble(self.raw()) }
        } else {
            // SAFETY: any object may be asked.
            unsafe { ffi::PyFloat_AsDouble(self.raw()) }
        };
        if value.to_bits() == (-1.0f64).to_bits() && Raised::is_set() {
            return Err(Raised::SET);
        }
        Ok(value)
    }

    /// The value as a 64-bit integer; raises `OverflowError` or `TypeError`.
    pub(crate) fn as_i64(&self) -> PyRes<i64> {
        // SAFETY: any object may be asked.
        let value = unsafe { ffi::PyLong_AsLongLong(self.raw()) };
        if value == -1 && Raised::is_set() {
            return Err(Raised::SET);
        }
        Ok(value)
    }

    /// `getattr(self, name)`.
    #[inline]
    pub(crate) fn getattr(&self, name: &Self) -> PyRes {
        // SAFETY: `name` is a `str` or the call raises.
        unsafe { Self::owned(ffi::PyObject_GetAttr(self.raw(), name.raw())) }
    }

    /// `getattr(self, name)` for a name that is not worth interning.
    pub(crate) fn getattr_str(&self, name: &str) -> PyRes {
        self.getattr(&Self::str(name)?)
    }

    /// `getattr(self, name, None)`, with `Option` for the default.
    pub(crate) fn getattr_opt(&self, name: &Self) -> PyRes<Option<Self>> {
        match self.getattr(name) {
            Ok(value) => Ok(Some(value)),
            Err(raised) if raised.is_attribute_error() => {
                raised.discard();
                Ok(None)
            }
            Err(raised) => Err(raised),
        }
    }

    /// `setattr(self, name, value)`.
    pub(crate) fn setattr(&self, name: &Self, value: &Self) -> PyRes<()> {
        // SAFETY: `name` is a `str` or the call raises.
        done(unsafe { ffi::PyObject_SetAttr(self.raw(), name.raw(), value.raw()) })
    }

    /// `setattr(self, name, value)` for a name that is not worth interning.
    pub(crate) fn setattr_str(&self, name: &str, value: &Self) -> PyRes<()> {
        self.setattr(&Self::str(name)?, value)
    }

    /// `self[key]`.
    pub(crate) fn item(&self, key: &Self) -> PyRes {
        // SAFETY: any object may be asked.
        unsafe { Self::owned(ffi::PyObject_GetItem(self.raw(), key.raw())) }
    }

    /// `self[key] = value`.
    pub(crate) fn set_item(&self, key: &Self, value: &Self) -> PyRes<()> {
        // SAFETY: any object may be asked.
        done(unsafe { ffi::PyObject_SetItem(self.raw(), key.raw(), value.raw()) })
    }

    /// `del self[key]`.
    pub(crate) fn del_item(&self, key: &Self) -> PyRes<()> {
        // SAFETY: any object may be asked.
        done(unsafe { ffi::PyObject_DelItem(self.raw(), key.raw()) })
    }

    /// `dict.get(key)`; `self` must be a dict.
    pub(crate) fn dict_get(&self, key: &Self) -> PyRes<Option<Self>> {
        // SAFETY: the call checks for a dict and returns a borrowed reference.
        let value = unsafe { ffi::PyDict_GetItemWithError(self.raw(), key.raw()) };
        if value.is_null() {
            return if Raised::is_set() {
                Err(Raised::SET)
            } else {
                Ok(None)
            };
        }
        // SAFETY: borrowed from a dict that is alive.
        Ok(Some(unsafe { Self::borrowed(value) }))
    }

    /// `iter(self)`.
    pub(crate) fn iterator(&self) -> PyRes {
        // SAFETY: any object may be asked.
        unsafe { Self::owned(ffi::PyObject_GetIter(self.raw())) }
    }

    /// `next(self)`; `None` at the end.
    pub(crate) fn next(&self) -> PyRes<Option<Self>> {
        // SAFETY: `self` came from `iterator`.
        let item = unsafe { ffi::PyIter_Next(self.raw()) };
        if item.is_null() {
            return if Raised::is_set() {
                Err(Raised::SET)
            } else {
                Ok(None)
            };
        }
        // SAFETY: a new reference.
        Ok(Some(unsafe { Self::steal(item) }))
    }

    /// `type(self).__get__(self, object, type(object))` for a descriptor such as a member of a class of C.
    pub(crate) fn get_from(&self, object: &Self) -> PyRes {
        // SAFETY: a live object has a live type.
        let get = unsafe { (*ffi::Py_TYPE(self.raw())).tp_descr_get };
        let Some(get) = get else {
            return Ok(self.clone());
        };
        // SAFETY: as the interpreter calls it.
        unsafe {
            let class = ffi::Py_TYPE(object.raw()).cast();
            Self::owned(get(self.raw(), object.raw(), class))
        }
    }

    /// All items of an iterable.
    pub(crate) fn items(&self) -> PyRes<Vec<Self>> {
        // SAFETY: a type test.
        if unsafe { ffi::PyTuple_CheckExact(self.raw()) } != 0 {
            return Ok(self.tuple_items().to_vec());
        }
        let iterator = self.iterator()?;
        let mut items = Vec::new();
        while let Some(item) = iterator.next()? {
            items.push(item);
        }
        Ok(items)
    }

    /// The items of a `tuple`; none for any other object.
    #[inline]
    pub(crate) fn tuple_items(&self) -> &[Self] {
        // SAFETY: a type test.
        if unsafe { ffi::PyTuple_Check(self.raw()) } == 0 {
            return &[];
        }
        let tuple = self.raw().cast::<ffi::PyTupleObject>();
        // SAFETY: a live tuple does not change; `Obj` is transparent over its items, which are not NULL.
        unsafe {
            let len = usize::try_from(ffi::PyTuple_GET_SIZE(self.raw())).unwrap_or(0);
            std::slice::from_raw_parts((&raw const (*tuple).ob_item).cast::<Self>(), len)
        }
    }

    /// `self(*args)` for a few arguments that stand on the stack.
    ///
    /// The callee may use the slot before the first argument (`PY_VECTORCALL_ARGUMENTS_OFFSET`).
    #[inline]
    pub(crate) fn call<const N: usize>(&self, args: [&Self; N]) -> PyRes {
        const { assert!(N < 8, "use `call_args` for long lists") };
        let mut stack = [ptr::null_mut::<ffi::PyObject>(); 8];
        for (slot, arg) in stack[1..].iter_mut().zip(args) {
            *slot = arg.raw();
        }
        // SAFETY: `stack[1..=N]` holds live objects, `stack[0]` is scratch.
        unsafe {
            Self::owned(ffi::PyObject_Vectorcall(
                self.raw(),
                stack.as_ptr().add(1),
                N | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            ))
        }
    }

    /// `self(*args)`.
    pub(crate) fn call_args(&self, args: &[Self]) -> PyRes {
        // SAFETY: `Obj` is transparent over the pointer, so the slice is an argument vector.
        unsafe {
            Self::owned(ffi::PyObject_Vectorcall(
                self.raw(),
                args.as_ptr().cast(),
                args.len(),
                ptr::null_mut(),
            ))
        }
    }

    /// `self(*args, **kwargs)`; the values of the keywords follow the positional arguments.
    pub(crate) fn call_kw(&self, args: &[&Self], kwargs: &[(&Self, &Self)]) -> PyRes {
        let names = Self::tuple(kwargs.iter().map(|(name, _)| (*name).clone()))?;
        let all: Vec<*mut ffi::PyObject> = args
            .iter()
            .map(|arg| arg.raw())
            .chain(kwargs.iter().map(|(_, value)| value.raw()))
            .collect();
        let names = if kwargs.is_empty() {
            ptr::null_mut()
        } else {
            names.raw()
        };
        // SAFETY: live objects, as many as said, names a tuple of str.
        unsafe {
            Self::owned(ffi::PyObject_Vectorcall(
                self.raw(),
                all.as_ptr(),
                args.len(),
                names,
            ))
        }
    }

    /// `self(*args, **kwargs)` with a tuple and a dict.
    pub(crate) fn call_dict(&self, args: &Self, kwargs: Option<&Self>) -> PyRes {
        let kwargs = kwargs.map_or(ptr::null_mut(), Self::raw);
        // SAFETY: the call checks nothing, but both come from `tuple` and `dict`.
        unsafe { Self::owned(ffi::PyObject_Call(self.raw(), args.raw(), kwargs)) }
    }

    /// `self.name(*args)` without making a bound method.
    #[inline]
    pub(crate) fn method<const N: usize>(&self, name: &Self, args: [&Self; N]) -> PyRes {
        const { assert!(N < 7, "use `getattr` and `call_args` for long lists") };
        let mut stack = [ptr::null_mut::<ffi::PyObject>(); 8];
        stack[1] = self.raw();
        for (slot, arg) in stack[2..].iter_mut().zip(args) {
            *slot = arg.raw();
        }
        // SAFETY: `stack[1..]` holds live objects, `stack[0]` is scratch.
        unsafe {
            Self::owned(ffi::PyObject_VectorcallMethod(
                name.raw(),
                stack.as_ptr().add(1),
                (N + 1) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            ))
        }
    }

    /// `self.name(*args, **kwargs)`.
    pub(crate) fn method_kw(
        &self,
        name: &Self,
        args: &[&Self],
        kwargs: &[(&Self, &Self)],
    ) -> PyRes {
        self.getattr(name)?.call_kw(args, kwargs)
    }

    /// `import module`.
    pub(crate) fn import(module: &str) -> PyRes {
        let name = Self::str(module)?;
        // SAFETY: a `str`.
        unsafe { Self::owned(ffi::PyImport_Import(name.raw())) }
    }
}

/// Turns a C status (negative: raised) into a result.
pub(super) fn done(status: i32) -> PyRes<()> {
    if status < 0 { Err(Raised::SET) } else { Ok(()) }
}

/// Turns a C truth value (negative: raised) into a result.
pub(super) fn truth(value: i32) -> PyRes<bool> {
    if value < 0 {
        Err(Raised::SET)
    } else {
        Ok(value != 0)
    }
}

/// What a [`Slot`] may hold: exactly one counted pointer.
///
/// # Safety
/// Cloning an implementor must do no more than count: no code that could reach the slot may run.
pub(crate) unsafe trait Reference: Clone {
    /// The reference as a plain object.
    fn as_obj(&self) -> &Obj;
}

// SAFETY: `Obj::clone` increments a counter.
unsafe impl Reference for Obj {
    #[inline]
    fn as_obj(&self) -> &Obj {
        self
    }
}

/// A field that holds a reference or nothing.
///
/// What it held is given up only after the new value stands, because giving up may run any code.
pub(crate) struct Slot<R: Reference = Obj>(UnsafeCell<Option<R>>);

impl<R: Reference> Slot<R> {
    /// An empty slot.
    pub(crate) const fn empty() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// A slot that holds `value`.
    pub(crate) const fn new(value: R) -> Self {
        Self(UnsafeCell::new(Some(value)))
    }

    /// A new reference to what is held.
    #[inline]
    pub(crate) fn get(&self) -> Option<R> {
        // SAFETY: the shared borrow lasts for a clone, which only counts.
        unsafe { (*self.0.get()).clone() }
    }

    /// Takes the reference out.
    #[inline]
    pub(crate) fn take(&self) -> Option<R> {
        // SAFETY: the exclusive borrow lasts for one move.
        unsafe { (*self.0.get()).take() }
    }

    /// Puts a value in and hands the old one out.
    #[inline]
    pub(crate) fn replace(&self, value: Option<R>) -> Option<R> {
        // SAFETY: the exclusive borrow lasts for one move.
        mem::replace(unsafe { &mut *self.0.get() }, value)
    }

    /// Puts a value in; the old one is given up afterwards.
    #[inline]
    pub(crate) fn set(&self, value: R) {
        drop(self.replace(Some(value)));
    }

    /// Empties the slot.
    #[inline]
    pub(crate) fn clear(&self) {
        drop(self.take());
    }

    /// Is something held?
    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        // SAFETY: the borrow lasts for a test.
        unsafe { (*self.0.get()).is_some() }
    }

    /// Is nothing held?
    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        !self.is_some()
    }

    /// Is exactly this object held?
    #[inline]
    pub(crate) fn holds(&self, object: &Obj) -> bool {
        // SAFETY: the borrow lasts for a comparison of addresses.
        unsafe { (*self.0.get()).as_ref() }.is_some_and(|held| held.as_obj().is(object))
    }

    /// What is held as a Python value, `None` if nothing.
    pub(crate) fn get_or_none(&self) -> Obj {
        self.get()
            .map_or_else(Obj::none, |value| value.as_obj().clone())
    }

    /// The raw pointer, for the garbage collector alone.
    pub(super) fn peek_raw(&self) -> *mut ffi::PyObject {
        // SAFETY: the borrow lasts for a read.
        unsafe { (*self.0.get()).as_ref() }.map_or(ptr::null_mut(), |value| value.as_obj().raw())
    }
}

impl<R: Reference> Default for Slot<R> {
    fn default() -> Self {
        Self::empty()
    }
}
