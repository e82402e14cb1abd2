//! Native functions that look like Python's: signatures, argument binding, and the function object.
//!
//! A signature is written as in Python, `"wait_for(self, predicate, *, timeout=None)"`. Binding fills positions from
//! it. A wrong call is handed to a Python function (or CPython's own C method) of the same signature, compiled when
//! first needed, which phrases the error exactly as the running version does; the same function answers
//! `inspect.signature`, `__code__` and `inspect.iscoroutinefunction`.
//!
//! Invariant: `FunctionObject`s are made by [`FunctionSpec::function`] alone, so `spec` is always valid.

use std::ffi::c_void;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock};

use pyo3::ffi;

use super::errors::{Builtin, Raised};
use super::native::{IntoObj, conjure, guard};
use super::object::{Obj, PyRes, done};

unsafe extern "C" {
    /// A bound method.
    fn PyMethod_New(
        function: *mut ffi::PyObject,
        instance: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// The most parameters a signature may name.
const MOST: usize = 20;

/// What a function is in Python's eyes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function of a module, bound as a method when it is found on a class, as `def` is.
    Function,
    /// The same, for `async def`.
    CoroutineFunction,
    /// A function that is never bound, as C functions are not.
    Builtin,
    /// A method.
    Method,
    /// An `async def` method.
    Coroutine,
}

impl Kind {
    /// Is it `async def`?
    fn is_async(self) -> bool {
        matches!(self, Self::CoroutineFunction | Self::Coroutine)
    }

    /// Is the first parameter `self`?
    fn is_method(self) -> bool {
        matches!(self, Self::Method | Self::Coroutine)
    }
}

/// One named parameter.
struct Parameter {
    /// The interned name.
    name: Obj,
    /// Must it be given?
    required: bool,
    /// Can it be given by keyword?
    by_keyword: bool,
}

/// A name, a place and a signature: all that is known of a function before it is called.
pub(crate) struct FunctionSpec {
    /// `__name__`.
    pub(super) name: String,
    /// `__qualname__`.
    qualname: String,
    /// `__module__`.
    module: &'static str,
    /// `__doc__`.
    doc: &'static str,
    /// What the function is.
    kind: Kind,
    /// The text between the parentheses, as Python would write it.
    parameters_text: String,
    /// Named parameters, `self` left out.
    parameters: Vec<Parameter>,
    /// How many of them can be given by position.
    positional: usize,
    /// How many of those must be given.
    required: usize,
    /// Is there `*args`?
    rest: bool,
    /// Is there `**kwargs`?
    keywords: bool,
    /// Must keyword-only parameters be given?
    required_keywords: bool,
    /// The Python function of the same signature.
    stub: AtomicPtr<ffi::PyObject>,
    /// A frame of that function, for the coroutines of an `async def`.
    frame: AtomicPtr<ffi::PyObject>,
    /// CPython's own callable that phrases errors of wrong calls.
    phrasing: OnceLock<usize>,
}

// SAFETY: used under the GIL alone.
unsafe impl Sync for FunctionSpec {}
// SAFETY: used under the GIL alone.
unsafe impl Send for FunctionSpec {}

/// The arguments of one call.
pub(crate) struct Args<'a> {
    /// What was given by position for named parameters, in the signature's order.
    given: &'a [Obj],
    /// What was given by keyword, for all parameters, if any were.
    named: Option<&'a Named<'a>>,
    /// What `*args` got.
    rest: &'a [Obj],
    /// What `**kwargs` got.
    keywords: Option<&'a Obj>,
    /// How many named parameters there are.
    count: usize,
}

/// What was given by keyword, by the parameters' places.
type Named<'a> = [Option<&'a Obj>; MOST];

/// A call with keywords: what [`Args`] refers to.
struct BoundKeywords<'a> {
    /// For named parameters.
    named: Named<'a>,
    /// For `**kwargs`: a dict.
    extra: Option<Obj>,
}

impl<'a> Args<'a> {
    /// The argument for the parameter at `index` (`self` not counted), if it was given.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&'a Obj> {
        if let Some(given) = self.given.get(index) {
            return Some(given);
        }
        assert!(
            index < self.count,
            "a parameter that the signature does not have"
        );
        self.named.and_then(|named| named[index])
    }

    /// The argument at `index`, with `None` counted as not given.
    #[inline]
    pub(crate) fn some(&self, index: usize) -> Option<&'a Obj> {
        self.get(index).filter(|value| !value.is_none())
    }

    /// The argument at `index`, which the signature requires.
    #[inline]
    pub(crate) fn req(&self, index: usize) -> &'a Obj {
        match self.get(index) {
            Some(value) => value,
            None => unreachable!("binding refuses calls without a required argument"),
        }
    }

    /// The argument at `index` as a truth value, `default` if it was not given.
    pub(crate) fn truth(&self, index: usize, default: bool) -> PyRes<bool> {
        self.get(index).map_or(Ok(default), Obj::truth)
    }

    /// What `*args` got.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [Obj] {
        self.rest
    }

    /// What `**kwargs` got, if anything.
    #[inline]
    pub(crate) fn keywords(&self) -> Option<&'a Obj> {
        self.keywords
    }
}

/// Where keyword arguments come from.
enum Keywords<'a> {
    /// None were given.
    None,
    /// Names in a tuple, values behind the positional arguments.
    Vector(&'a Obj, &'a [Obj]),
    /// A dict, flattened.
    Pairs(&'a [(Obj, Obj)]),
}

impl FunctionSpec {
    /// Reads a signature, whose name may be a qualified one; the result lives for ever, as the function does.
    pub(crate) fn leak(
        kind: Kind,
        module: &'static str,
        class: Option<&'static str>,
        signature: &str,
        doc: &'static str,
    ) -> &'static Self {
        let open = signature.find('(').unwrap_or(signature.len());
        let given = &signature[..open];
        let name = given.rsplit('.').next().unwrap_or(given).to_owned();
        let text = signature[open..]
            .trim_start_matches('(')
            .trim_end()
            .trim_end_matches(')')
            .to_owned();
        let qualname = class.map_or_else(|| given.to_owned(), |class| format!("{class}.{given}"));
        let mut spec = Self {
            name,
            qualname,
            module,
            doc,
            kind,
            parameters_text: text.clone(),
            parameters: Vec::new(),
            positional: 0,
            required: 0,
            rest: false,
            keywords: false,
            required_keywords: false,
            stub: AtomicPtr::new(ptr::null_mut()),
            frame: AtomicPtr::new(ptr::null_mut()),
            phrasing: OnceLock::new(),
        };
        let mut keyword_only = false;
        for (index, part) in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .enumerate()
        {
            if kind.is_method() && index == 0 {
                continue;
            }
            if part == "/" {
                for parameter in &mut spec.parameters {
                    parameter.by_keyword = false;
                }
            } else if part.starts_with("**") {
                spec.keywords = true;
            } else if part.starts_with('*') {
                spec.rest = part.len() > 1;
                keyword_only = true;
            } else {
                let (name, default) = part
                    .split_once('=')
                    .map_or((part, None), |(name, value)| (name, Some(value)));
                if !keyword_only {
                    spec.positional += 1;
                    spec.required += usize::from(default.is_none());
                }
                spec.required_keywords |= keyword_only && default.is_none();
                spec.parameters.push(Parameter {
                    name: intern(name.trim()),
                    required: default.is_none(),
                    by_keyword: true,
                });
            }
        }
        assert!(spec.parameters.len() <= MOST, "raise MOST");
        let spec: &'static Self = Box::leak(Box::new(spec));
        if kind.is_async()
            && let Ok(mut all) = COROUTINE_FUNCTIONS.lock()
        {
            all.push(spec);
        }
        spec
    }

    /// Lets CPython's own callable phrase the errors of wrong calls.
    pub(super) fn phrase_with(&self, callable: Obj) {
        let _ = self.phrasing.set(callable.into_raw() as usize);
    }

    /// The error of calling a method with a `self` of another class, as C's method descriptors phrase it.
    #[cold]
    pub(super) fn wrong_self(&self, class: &Obj, this: &Obj) -> Raised {
        let text = || -> PyRes<String> {
            let module = class.getattr_str("__module__")?.text()?;
            Ok(format!(
                "descriptor '{}' for '{module}.{}' objects doesn't apply to a '{}' object",
                self.name,
                class.getattr_str("__name__")?.text()?,
                this.class_name()
            ))
        };
        match text() {
            Ok(text) => Raised::type_error(&text),
            Err(raised) => raised,
        }
    }

    /// The function object around `call`.
    pub(super) fn function(&'static self, call: ffi::vectorcallfunc) -> PyRes {
        let kind = match self.kind {
            Kind::Builtin => &BUILTIN,
            _ => &FUNCTION,
        }
        .load(Ordering::Relaxed);
        assert!(!kind.is_null(), "function classes are made first");
        // SAFETY: a ready type whose allocator gives zeroed memory of the object's size.
        let raw = unsafe {
            (*kind)
                .tp_alloc
                .map_or(ptr::null_mut(), |alloc| alloc(kind, 0))
        };
        if raw.is_null() {
            return Err(Raised::SET);
        }
        let function = raw.cast::<FunctionObject>();
        // SAFETY: fresh memory of the right size.
        unsafe {
            (*function).vectorcall = Some(call);
            (*function).spec = self;
            Obj::owned(raw)
        }
    }

    /// Calls `body` with the arguments bound to the parameters; a wrong call gives its error.
    #[inline]
    fn bind<R>(
        &self,
        this: Option<&Obj>,
        args: &[Obj],
        keywords: &Keywords<'_>,
        body: impl FnOnce(&Args<'_>) -> PyRes<R>,
    ) -> PyRes<R> {
        let (given, rest) = args.split_at(args.len().min(self.positional));
        let bound_keywords;
        let mut bound = Args {
            given,
            named: None,
            rest,
            keywords: None,
            count: self.parameters.len(),
        };
        let complete = match keywords {
            Keywords::None => given.len() >= self.required && !self.required_keywords,
            _ => match self.bind_keywords(given.len(), keywords)? {
                Some(found) => {
                    bound_keywords = found;
                    bound.named = Some(&bound_keywords.named);
                    bound.keywords = bound_keywords.extra.as_ref();
                    self.has_all(&bound)
                }
                None => false,
            },
        };
        if !complete || (!rest.is_empty() && !self.rest) {
            return Err(self.wrong_call(this, args, keywords));
        }
        body(&bound)
    }

    /// Was every required parameter given?
    fn has_all(&self, bound: &Args<'_>) -> bool {
        let mut required = self
            .parameters
            .iter()
            .enumerate()
            .filter(|(_, each)| each.required);
        required.all(|(index, _)| bound.get(index).is_some())
    }

    /// Binds keywords, `given` parameters being taken by position; `None` says the call is wrong.
    #[inline(never)]
    fn bind_keywords<'a>(
        &self,
        given: usize,
        keywords: &Keywords<'a>,
    ) -> PyRes<Option<BoundKeywords<'a>>> {
        let mut bound = BoundKeywords {
            named: [None; MOST],
            extra: None,
        };
        match keywords {
            Keywords::None => {}
            Keywords::Vector(names, values) => {
                for (name, value) in names.tuple_items().iter().zip(*values) {
                    if !self.bind_keyword(&mut bound, name, value, given)? {
                        return Ok(None);
                    }
                }
            }
            Keywords::Pairs(pairs) => {
                for (name, value) in *pairs {
                    if !self.bind_keyword(&mut bound, name, value, given)? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(bound))
    }

    /// Binds one keyword; `false` says the call is wrong.
    fn bind_keyword<'a>(
        &self,
        bound: &mut BoundKeywords<'a>,
        name: &Obj,
        value: &'a Obj,
        given: usize,
    ) -> PyRes<bool> {
        let mut found = self
            .parameters
            .iter()
            .position(|known| known.by_keyword && known.name.is(name));
        if found.is_none() {
            for (index, known) in self.parameters.iter().enumerate() {
                if known.by_keyword && known.name.equals(name)? {
                    found = Some(index);
                }
            }
        }
        match found {
            Some(index) if index < given => Ok(false),
            Some(index) => {
                bound.named[index] = Some(value);
                Ok(true)
            }
            None if self.keywords => {
                let extra = match bound.extra.take() {
                    Some(extra) => extra,
                    None => Obj::dict()?,
                };
                extra.set_item(name, value)?;
                bound.extra = Some(extra);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Runs `body` with the arguments of a vector call.
    ///
    /// # Safety
    /// `args`, `nargsf` and `names` must be a valid argument vector.
    #[inline]
    pub(super) unsafe fn with_vector<R>(
        &self,
        this: &Obj,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
        body: impl FnOnce(&Args<'_>) -> PyRes<R>,
    ) -> PyRes<R> {
        // SAFETY: the caller's promise.
        let (positional, keywords) = unsafe { vector(args, nargsf, &names) };
        self.bind(Some(this), positional, &keywords, body)
    }

    /// Runs `body` with the arguments of `tp_init`.
    pub(super) fn with_tuple<R>(
        &self,
        this: &Obj,
        args: &Obj,
        kwargs: Option<&Obj>,
        body: impl FnOnce(&Args<'_>) -> PyRes<R>,
    ) -> PyRes<R> {
        let args = args.items()?;
        let mut pairs = Vec::new();
        if let Some(kwargs) = kwargs {
            for name in kwargs.items()? {
                let value = kwargs.item(&name)?;
                pairs.push((name, value));
            }
        }
        let keywords = if pairs.is_empty() {
            Keywords::None
        } else {
            Keywords::Pairs(&pairs)
        };
        self.bind(Some(this), &args, &keywords, body)
    }

    /// The error of a wrong call, in the running version's words.
    #[cold]
    fn wrong_call(&self, this: Option<&Obj>, args: &[Obj], keywords: &Keywords<'_>) -> Raised {
        let judge = match self.phrasing.get() {
            // SAFETY: a reference that `phrase_with` leaked.
            Some(raw) => Ok(unsafe { Obj::borrowed(*raw as *mut ffi::PyObject) }),
            None => self.stub(),
        };
        let attempt = judge.and_then(|judge| {
            // A class that phrases the errors of its own `__init__` makes its own instance.
            let this = this.filter(|_| !judge.is_class());
            let args: Vec<&Obj> = this.into_iter().chain(args).collect();
            let keywords: Vec<(Obj, Obj)> = match keywords {
                Keywords::None => Vec::new(),
                Keywords::Vector(names, values) => names
                    .items()?
                    .into_iter()
                    .zip(values.iter().cloned())
                    .collect(),
                Keywords::Pairs(pairs) => pairs.to_vec(),
            };
            let keywords: Vec<(&Obj, &Obj)> =
                keywords.iter().map(|(name, value)| (name, value)).collect();
            judge.call_kw(&args, &keywords)
        });
        match attempt {
            Ok(_) => Raised::type_error(&format!("{}(): wrong arguments", self.qualname)),
            Err(raised) => raised,
        }
    }

    /// The Python function of the same name and signature.
    fn stub(&self) -> PyRes {
        let known = self.stub.load(Ordering::Relaxed);
        if !known.is_null() {
            // SAFETY: a reference that this function leaked.
            return Ok(unsafe { Obj::borrowed(known) });
        }
        let prefix = if self.kind.is_async() {
            "async def"
        } else {
            "def"
        };
        let code = Obj::str(&format!(
            "{prefix} {}({}): pass\n",
            self.name, self.parameters_text
        ))?;
        let builtins = Obj::import("builtins")?;
        let namespace = Obj::dict()?;
        // The file name is what users read in reprs and stacks of tasks: "sleep() running at <aioxide>:1".
        let (file, mode) = (Obj::str("<aioxide>")?, Obj::str("exec")?);
        let code = builtins
            .getattr_str("compile")?
            .call([&code, &file, &mode])?;
        builtins.getattr_str("exec")?.call([&code, &namespace])?;
        let stub = namespace.item(&Obj::str(&self.name)?)?;
        stub.setattr_str("__qualname__", &Obj::str(&self.qualname)?)?;
        stub.setattr_str("__module__", &Obj::str(self.module)?)?;
        self.stub.store(stub.clone().into_raw(), Ordering::Relaxed);
        Ok(stub)
    }

    /// Gives the function a stub that is more than its signature, before anybody has asked for one.
    pub(crate) fn set_stub(&self, stub: Obj) {
        self.stub.store(stub.into_raw(), Ordering::Relaxed);
    }

    /// A frame at the first line of an `async def`: one of its stub's coroutines is made for it and closed.
    fn frame(&self) -> PyRes {
        let known = self.frame.load(Ordering::Relaxed);
        if !known.is_null() {
            // SAFETY: a reference that this function leaked.
            return Ok(unsafe { Obj::borrowed(known) });
        }
        let code = self.stub()?.getattr_str("__code__")?;
        let count = |name: &str| -> PyRes<usize> {
            Ok(usize::try_from(code.getattr_str(name)?.as_i64()?).unwrap_or(0))
        };
        // The same code with a default for every parameter, so that it can be called.
        let defaults = Obj::tuple(vec![Obj::none(); count("co_argcount")?])?;
        let function = Obj::import("types")?.getattr_str("FunctionType")?.call([
            &code,
            &Obj::dict()?,
            &Obj::none(),
            &defaults,
        ])?;
        let keyword_only = Obj::dict()?;
        let names = code.getattr_str("co_varnames")?.items()?;
        for name in names
            .iter()
            .skip(count("co_argcount")?)
            .take(count("co_kwonlyargcount")?)
        {
            keyword_only.set_item(name, &Obj::none())?;
        }
        function.setattr_str("__kwdefaults__", &keyword_only)?;
        let coroutine = function.call([])?;
        let frame = coroutine.getattr_str("cr_frame")?;
        coroutine.getattr_str("close")?.call([])?;
        self.frame
            .store(frame.clone().into_raw(), Ordering::Relaxed);
        Ok(frame)
    }
}

/// Every `async def`, for the code objects of its coroutines.
static COROUTINE_FUNCTIONS: Mutex<Vec<&'static FunctionSpec>> = Mutex::new(Vec::new());

/// The `async def` function of this qualified name.
fn coroutine_function(qualname: &str) -> Option<&'static FunctionSpec> {
    COROUTINE_FUNCTIONS
        .lock()
        .ok()
        .and_then(|all| all.iter().copied().find(|spec| spec.qualname == qualname))
}

/// The code object of the `async def` function of this qualified name; `None` if there is no such function.
pub(crate) fn function_code(qualname: &str) -> PyRes {
    match coroutine_function(qualname) {
        Some(spec) => spec.stub()?.getattr_str("__code__"),
        None => Ok(Obj::none()),
    }
}

/// A frame of that function, which stands at its first line; `None` if there is no such function.
pub(crate) fn function_frame(qualname: &str) -> PyRes {
    match coroutine_function(qualname) {
        Some(spec) => spec.frame(),
        None => Ok(Obj::none()),
    }
}

/// Splits an argument vector.
///
/// # Safety
/// The three must be a valid argument vector, alive as long as `names` is borrowed.
#[inline]
unsafe fn vector(
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: &*mut ffi::PyObject,
) -> (&[Obj], Keywords<'_>) {
    let count = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    if args.is_null() {
        return (&[], Keywords::None);
    }
    // SAFETY: `Obj` is transparent over the pointer.
    let positional = unsafe { std::slice::from_raw_parts(args.cast::<Obj>(), count) };
    if names.is_null() {
        return (positional, Keywords::None);
    }
    // SAFETY: a tuple of names, whose values follow the positional arguments.
    unsafe {
        let names = Obj::peek(names);
        let values =
            std::slice::from_raw_parts(args.cast::<Obj>().add(count), names.tuple_items().len());
        (positional, Keywords::Vector(names, values))
    }
}

/// An interned `str`.
pub(crate) fn intern(text: &str) -> Obj {
    let text = std::ffi::CString::new(text).unwrap_or_default();
    // SAFETY: a terminated text; the call fails only without memory, which CPython reports as NULL.
    unsafe { Obj::owned(ffi::PyUnicode_InternFromString(text.as_ptr())) }
        .unwrap_or_else(|_| unreachable!("out of memory while interning"))
}

/// A function object: what `def` makes, around native code.
#[repr(C)]
pub(super) struct FunctionObject {
    /// The head.
    head: ffi::PyObject,
    /// Attributes that users set.
    dict: *mut ffi::PyObject,
    /// Weak references.
    weak: *mut ffi::PyObject,
    /// Where calls go.
    vectorcall: Option<ffi::vectorcallfunc>,
    /// What is known of the function.
    spec: *const FunctionSpec,
}

/// The class of functions that bind.
static FUNCTION: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// The class of functions that do not.
static BUILTIN: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// Calls `body` with `self` (if a method) and bound arguments.
///
/// # Safety
/// `function` must be a [`FunctionObject`], the rest a valid argument vector.
#[inline]
pub(super) unsafe fn with_args(
    function: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
    method: bool,
    body: impl FnOnce(&FunctionSpec, &Obj, &Args<'_>) -> PyRes,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    let spec = unsafe { &*(*function.cast::<FunctionObject>()).spec };
    guard(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let (positional, keywords) = unsafe { vector(args, nargsf, &names) };
        let (this, rest) = if method {
            match positional.split_first() {
                Some((this, rest)) => (Some(this), rest),
                None => return Err(spec.wrong_call(None, positional, &keywords)),
            }
        } else {
            (None, positional)
        };
        // SAFETY: the callable is alive during its own call.
        let this_or_function = this.unwrap_or(unsafe { Obj::peek(&function) });
        spec.bind(this, rest, &keywords, |args| {
            body(spec, this_or_function, args)
        })
        .map(Obj::into_raw)
    })
}

/// Calls a module's function.
unsafe extern "C" fn function_call<F, R>(
    function: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    F: Fn(&Args<'_>) -> PyRes<R> + Copy + 'static,
    R: IntoObj,
{
    // SAFETY: only function objects carry this pointer, and CPython gives a valid argument vector.
    unsafe {
        with_args(function, args, nargsf, names, false, |_, _, args| {
            conjure::<F>()(args)?.into_obj()
        })
    }
}

/// Calls a callable through a tuple and a dict.
///
/// # Safety
/// `args`, `nargsf` and `names` must be a valid argument vector for `kind`, a class.
pub(super) unsafe fn call_generic(
    kind: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> PyRes {
    // SAFETY: the caller's promise.
    let (positional, keywords) = unsafe { vector(args, nargsf, &names) };
    let tuple = Obj::tuple(positional.iter().cloned())?;
    let dict = Obj::dict()?;
    if let Keywords::Vector(names, values) = keywords {
        for (name, value) in names.items()?.iter().zip(values) {
            dict.set_item(name, value)?;
        }
    }
    // SAFETY: `type.__call__`, the generic way to make an instance.
    unsafe {
        match ffi::PyType_Type.tp_call {
            Some(call) => Obj::owned(call(kind, tuple.raw(), dict.raw())),
            None => Err(Builtin::System.raise("type is not callable")),
        }
    }
}

/// A module-level function.
pub(crate) fn function<F, R>(
    kind: Kind,
    module: &'static str,
    signature: &'static str,
    doc: &'static str,
    _body: F,
) -> PyRes<(&'static FunctionSpec, Obj)>
where
    F: Fn(&Args<'_>) -> PyRes<R> + Copy + 'static,
    R: IntoObj,
{
    let spec = FunctionSpec::leak(kind, module, None, signature, doc);
    Ok((spec, spec.function(function_call::<F, R>)?))
}

/// What a function's attribute gets from its spec.
#[derive(Clone, Copy)]
enum Attribute {
    /// `__name__`.
    Name,
    /// `__qualname__`.
    Qualname,
    /// `__module__`.
    Module,
    /// `__doc__`.
    Doc,
    /// `__code__`, `__closure__`, `__defaults__`, `__kwdefaults__` or `__annotations__`, from the stub.
    Stub(&'static std::ffi::CStr),
}

/// The attributes, in a table that getters point into.
static ATTRIBUTES: [(&std::ffi::CStr, Attribute); 9] = [
    (c"__name__", Attribute::Name),
    (c"__qualname__", Attribute::Qualname),
    (c"__module__", Attribute::Module),
    (c"__doc__", Attribute::Doc),
    (c"__code__", Attribute::Stub(c"__code__")),
    (c"__closure__", Attribute::Stub(c"__closure__")),
    (c"__defaults__", Attribute::Stub(c"__defaults__")),
    (c"__kwdefaults__", Attribute::Stub(c"__kwdefaults__")),
    (c"__annotations__", Attribute::Stub(c"__annotations__")),
];

/// Reads an attribute of a function.
unsafe extern "C" fn attribute_slot(
    raw: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: the descriptor checks the class; the closure is an entry of the table.
    let (spec, attribute) = unsafe {
        (
            &*(*raw.cast::<FunctionObject>()).spec,
            *closure.cast::<Attribute>(),
        )
    };
    guard(ptr::null_mut(), || {
        let value = match attribute {
            Attribute::Name => Obj::str(&spec.name),
            Attribute::Qualname => Obj::str(&spec.qualname),
            Attribute::Module => Obj::str(spec.module),
            Attribute::Doc if spec.doc.is_empty() => Ok(Obj::none()),
            Attribute::Doc => Obj::str(spec.doc),
            Attribute::Stub(name) => spec.stub()?.getattr_str(&name.to_string_lossy()),
        };
        value.map(Obj::into_raw)
    })
}

/// `__repr__` of a function.
unsafe extern "C" fn function_repr(raw: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called with instances of the class.
    let spec = unsafe { &*(*raw.cast::<FunctionObject>()).spec };
    guard(ptr::null_mut(), || {
        Ok(Obj::str(&format!("<function {} at {raw:p}>", spec.qualname))?.into_raw())
    })
}

/// `__reduce__`: a function is pickled by its name.
unsafe extern "C" fn function_reduce(
    raw: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called with instances of the class.
    let spec = unsafe { &*(*raw.cast::<FunctionObject>()).spec };
    guard(ptr::null_mut(), || Ok(Obj::str(&spec.qualname)?.into_raw()))
}

/// `__get__` of a function: binds it to an instance.
unsafe extern "C" fn function_get(
    raw: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: live objects; NULL or `None` means that the class was asked.
    unsafe {
        if instance.is_null() || ptr::eq(instance, ffi::Py_None()) {
            ffi::Py_INCREF(raw);
            return raw;
        }
        PyMethod_New(raw, instance)
    }
}

/// `tp_traverse` of a function.
unsafe extern "C" fn function_traverse(
    raw: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> std::ffi::c_int {
    // SAFETY: the collector's function with live objects.
    unsafe {
        let dict = (*raw.cast::<FunctionObject>()).dict;
        if !dict.is_null() {
            let answer = visit(dict, arg);
            if answer != 0 {
                return answer;
            }
        }
        visit(ffi::Py_TYPE(raw).cast(), arg)
    }
}

/// `tp_clear` of a function.
unsafe extern "C" fn function_clear(raw: *mut ffi::PyObject) -> std::ffi::c_int {
    // SAFETY: the word is emptied before the reference is given up.
    unsafe {
        let old = mem::take(&mut (*raw.cast::<FunctionObject>()).dict);
        ffi::Py_XDECREF(old);
    }
    0
}

/// `tp_dealloc` of a function.
unsafe extern "C" fn function_dealloc(raw: *mut ffi::PyObject) {
    // SAFETY: a dying object of the class.
    unsafe {
        let kind = ffi::Py_TYPE(raw);
        ffi::PyObject_GC_UnTrack(raw.cast());
        if !(*raw.cast::<FunctionObject>()).weak.is_null() {
            ffi::PyObject_ClearWeakRefs(raw);
        }
        function_clear(raw);
        ffi::PyObject_GC_Del(raw.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// Makes the classes of function objects; must come before any class or function.
pub(crate) fn make_function_classes() -> PyRes<()> {
    FUNCTION.store(make_function_class(true)?, Ordering::Relaxed);
    BUILTIN.store(make_function_class(false)?, Ordering::Relaxed);
    Ok(())
}

/// Makes one class of function objects.
fn make_function_class(binds: bool) -> PyRes<*mut ffi::PyTypeObject> {
    let offset = |at: usize| isize::try_from(at).unwrap_or(0);
    let member = |name: &'static std::ffi::CStr, at: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset(at),
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let members = vec![
        member(c"__dictoffset__", mem::offset_of!(FunctionObject, dict)),
        member(c"__weaklistoffset__", mem::offset_of!(FunctionObject, weak)),
        member(
            c"__vectorcalloffset__",
            mem::offset_of!(FunctionObject, vectorcall),
        ),
        // SAFETY: an all-zero member ends the list.
        unsafe { mem::zeroed() },
    ];
    let mut getset: Vec<ffi::PyGetSetDef> = ATTRIBUTES
        .iter()
        .map(|(name, attribute)| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(attribute_slot),
            set: None,
            doc: ptr::null(),
            closure: ptr::from_ref(attribute).cast_mut().cast(),
        })
        .collect();
    getset.push(ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(ffi::PyObject_GenericGetDict),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: ptr::null(),
        closure: ptr::null_mut(),
    });
    // SAFETY: an all-zero entry ends the list.
    getset.push(unsafe { mem::zeroed() });
    let methods = vec![
        ffi::PyMethodDef {
            ml_name: c"__reduce__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunction: function_reduce,
            },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: ptr::null(),
        },
        ffi::PyMethodDef::zeroed(),
    ];
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = vec![
        slot(ffi::Py_tp_members, Vec::leak(members).as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, Vec::leak(getset).as_mut_ptr().cast()),
        slot(ffi::Py_tp_methods, Vec::leak(methods).as_mut_ptr().cast()),
        slot(ffi::Py_tp_repr, function_repr as *mut c_void),
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_traverse, function_traverse as *mut c_void),
        slot(ffi::Py_tp_clear, function_clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, function_dealloc as *mut c_void),
    ];
    let mut flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    if binds {
        slots.push(slot(ffi::Py_tp_descr_get, function_get as *mut c_void));
        flags |= ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
    }
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: if binds {
            c"aioxide.function"
        } else {
            c"aioxide.builtin_function"
        }
        .as_ptr(),
        basicsize: i32::try_from(mem::size_of::<FunctionObject>()).unwrap_or(0),
        itemsize: 0,
        flags: u32::try_from(flags).unwrap_or(0),
        slots: Vec::leak(slots).as_mut_ptr(),
    };
    // SAFETY: a complete spec whose tables are leaked.
    let made = unsafe { Obj::owned(ffi::PyType_FromSpec(&raw mut spec)) }?;
    Ok(made.into_raw().cast())
}

/// Adds an attribute to a module.
pub(crate) fn add_to_module(module: &Obj, name: &str, value: &Obj) -> PyRes<()> {
    let name = Obj::str(name)?;
    // SAFETY: live objects.
    done(unsafe { ffi::PyObject_SetAttr(module.raw(), name.raw(), value.raw()) })
}
