//! OpenSSL as the module `_ssl` uses it: the `SSL` behind an `ssl.SSLObject` and the `BIO`s behind its `MemoryBIO`s,
//! driven without a Python object for each piece of data.
//!
//! Nothing is linked. The functions are looked up in the library that `_ssl` itself has loaded, by a search that starts
//! at its own file, so that two copies of OpenSSL in one process are not mixed up. Where a `_ssl._SSLSocket` and a
//! `_ssl.MemoryBIO` keep their pointers (a reference and the `SSL`, the `BIO`, each behind the object's head) is not
//! believed but tested, once: the words of two probes must differ and be addresses of memory that can be read, which a
//! pipe is asked (the kernel answers `EFAULT` where a look of ours would crash); in the memory of the supposed `SSL` the
//! two supposed `BIO`s must stand side by side; only then OpenSSL is asked for the `BIO`s of that `SSL`, and bytes must
//! arrive where Python sees them. If anything is missing or different, there is no direct way: [`available`] is false.
//!
//! A pointer is used only while the object that owns it is held. An `SSL` holds its `BIO`s, too. Calls keep the GIL:
//! what they do is a matter of microseconds, and callbacks of `_ssl` (SNI while renegotiating) take it again as its
//! holder. So whatever another thread asks of the `SSLObject` (`cipher`, `getpeercert`, …) comes before or after a call.
//! To *drive* it there (`read`, `write`, `do_handshake`, `unwrap`: `_ssl` calls OpenSSL without the GIL, from 3.13 on
//! under a lock that only it can take) while the loop does so, is as little allowed as in asyncio, where it ends the
//! process as well: the lock is the `SSL`'s, but the `BIO`s that asyncio fills and empties at the same time have none.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::io::Read;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;
use std::ptr;

use pyo3::ffi;

use super::native::GilCell;
use super::object::{Obj, PyRes};

unsafe extern "C" {
    /// Opens a library, or finds one that is open.
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    /// Finds a function in a library or in those that it needs.
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    /// `write(2)`: asks the kernel whether memory can be read.
    fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize;
}

/// `RTLD_LAZY`: also lets a library be found that is open already, without binding all of its functions.
const LAZY: c_int = 1;
/// `RTLD_NOLOAD`: only finds a library that is open.
const NO_LOAD: c_int = if cfg!(target_os = "macos") { 0x10 } else { 4 };
/// `SSL_ERROR_WANT_READ`.
const WANT_READ: c_int = 2;
/// The size of a word.
const WORD: usize = mem::size_of::<usize>();
/// Behind the head, where `_ssl.MemoryBIO` keeps its `BIO`.
const BIO_OFFSET: usize = mem::size_of::<ffi::PyObject>();
/// Behind the head and a reference, where `_ssl._SSLSocket` keeps its `SSL`.
const SSL_OFFSET: usize = BIO_OFFSET + WORD;
/// So many words at the start of an `SSL` are looked at for its two `BIO`s.
const LOOKED_AT: usize = 24;

/// The type of `SSL_read_ex`.
type SslRead = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, *mut usize) -> c_int;
/// The type of `SSL_write_ex`.
type SslWrite = unsafe extern "C" fn(*mut c_void, *const c_void, usize, *mut usize) -> c_int;
/// The type of `SSL_get_error`.
type SslError = unsafe extern "C" fn(*const c_void, c_int) -> c_int;
/// The type of `SSL_has_pending`.
type SslAsk = unsafe extern "C" fn(*const c_void) -> c_int;
/// The type of `SSL_get_rbio` and `SSL_get_wbio`.
type SslBio = unsafe extern "C" fn(*const c_void) -> *mut c_void;
/// The type of `BIO_write`.
type BioWrite = unsafe extern "C" fn(*mut c_void, *const c_void, c_int) -> c_int;
/// The type of `BIO_read`.
type BioRead = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int;
/// The type of `BIO_ctrl_pending`.
type BioPending = unsafe extern "C" fn(*mut c_void) -> usize;
/// The type of `ERR_peek_error`.
type ErrPeek = unsafe extern "C" fn() -> c_ulong;
/// The type of `ERR_clear_error`.
type ErrClear = unsafe extern "C" fn();

/// The functions of OpenSSL that we call.
#[derive(Clone, Copy)]
struct Functions {
    /// `SSL_read_ex`.
    ssl_read: SslRead,
    /// `SSL_write_ex`.
    ssl_write: SslWrite,
    /// `SSL_get_error`.
    ssl_error: SslError,
    /// `SSL_has_pending`.
    ssl_has_pending: SslAsk,
    /// `SSL_get_rbio`.
    ssl_rbio: SslBio,
    /// `SSL_get_wbio`.
    ssl_wbio: SslBio,
    /// `BIO_write`.
    bio_write: BioWrite,
    /// `BIO_read`.
    bio_read: BioRead,
    /// `BIO_ctrl_pending`.
    bio_pending: BioPending,
    /// `ERR_peek_error`.
    err_peek: ErrPeek,
    /// `ERR_clear_error`.
    err_clear: ErrClear,
}

/// What is known of this process's `_ssl`.
#[derive(Clone, Copy)]
struct OpenSsl {
    /// The functions.
    functions: Functions,
    /// The class `_ssl._SSLSocket`.
    ssl_class: *mut ffi::PyObject,
    /// The class `_ssl.MemoryBIO`.
    bio_class: *mut ffi::PyObject,
}

/// What was found out about the direct way.
#[derive(Clone, Copy)]
enum Found {
    /// Nobody has looked.
    Unknown,
    /// There is none.
    Missing,
    /// It works.
    Works(OpenSsl),
}

/// The direct way.
static FOUND: GilCell<Found> = GilCell::new(Found::Unknown);
/// May it be used?
static ALLOWED: GilCell<bool> = GilCell::new(true);

/// Allows or forbids the direct way, for connections made from now on.
pub(crate) fn allow(allowed: bool) {
    ALLOWED.set(allowed);
}

/// Is there a direct way, and may it be used?
pub(crate) fn available() -> bool {
    openssl().is_some()
}

/// The direct way.
#[inline]
fn openssl() -> Option<OpenSsl> {
    if !ALLOWED.get() {
        return None;
    }
    match FOUND.get() {
        Found::Works(openssl) => Some(openssl),
        Found::Missing => None,
        Found::Unknown => look(),
    }
}

/// Looks for it.
#[cold]
fn look() -> Option<OpenSsl> {
    let found = find().unwrap_or_else(|raised| {
        raised.discard();
        None
    });
    FOUND.set(found.map_or(Found::Missing, Found::Works));
    found
}

/// Finds functions and layout, and tries them out.
fn find() -> PyRes<Option<OpenSsl>> {
    let module = Obj::import("_ssl")?;
    let Some(file) = module.getattr_opt(&Obj::str("__file__")?)? else {
        // Part of the interpreter: which OpenSSL it has inside cannot be told.
        return Ok(None);
    };
    let Ok(file) = CString::new(file.text()?) else {
        return Ok(None);
    };
    // SAFETY: a terminated text; only finds what is loaded.
    let library = unsafe { dlopen(file.as_ptr(), LAZY | NO_LOAD) };
    if library.is_null() {
        return Ok(None);
    }
    let version = module.getattr_str("OPENSSL_VERSION")?.text()?;
    if !version.starts_with("OpenSSL ") || loaded_version(library).as_deref() != Some(&version) {
        return Ok(None);
    }
    let Some(functions) = functions(library) else {
        return Ok(None);
    };
    let openssl = OpenSsl {
        functions,
        ssl_class: module.getattr_str("_SSLSocket")?.into_raw(),
        bio_class: module.getattr_str("MemoryBIO")?.into_raw(),
    };
    Ok(try_out(&openssl)?.then_some(openssl))
}

/// The version of the OpenSSL whose functions are found.
fn loaded_version(library: *mut c_void) -> Option<String> {
    // SAFETY: a library's handle and a terminated name.
    let function = unsafe { dlsym(library, c"OpenSSL_version".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: the documented type of that function.
    let version: unsafe extern "C" fn(c_int) -> *const c_char = unsafe { mem::transmute(function) };
    // SAFETY: 0 is `OPENSSL_VERSION`; the text is static and terminated.
    let text = unsafe { CStr::from_ptr(version(0)) };
    text.to_str().ok().map(str::to_owned)
}

/// All functions, or none.
fn functions(library: *mut c_void) -> Option<Functions> {
    /// Looks one up.
    macro_rules! function {
        ($name:literal as $type:ty) => {{
            // SAFETY: a library's handle and a terminated name.
            let found = unsafe { dlsym(library, $name.as_ptr()) };
            if found.is_null() {
                return None;
            }
            // SAFETY: the documented type of that function.
            unsafe { mem::transmute::<*mut c_void, $type>(found) }
        }};
    }
    Some(Functions {
        ssl_read: function!(c"SSL_read_ex" as SslRead),
        ssl_write: function!(c"SSL_write_ex" as SslWrite),
        ssl_error: function!(c"SSL_get_error" as SslError),
        ssl_has_pending: function!(c"SSL_has_pending" as SslAsk),
        ssl_rbio: function!(c"SSL_get_rbio" as SslBio),
        ssl_wbio: function!(c"SSL_get_wbio" as SslBio),
        bio_write: function!(c"BIO_write" as BioWrite),
        bio_read: function!(c"BIO_read" as BioRead),
        bio_pending: function!(c"BIO_ctrl_pending" as BioPending),
        err_peek: function!(c"ERR_peek_error" as ErrPeek),
        err_clear: function!(c"ERR_clear_error" as ErrClear),
    })
}

/// A word of an object's memory; `None` if the object is too small.
fn word(object: &Obj, offset: usize) -> Option<*mut c_void> {
    // SAFETY: a live object has a live type, and so much memory as the type says.
    unsafe {
        let size = (*ffi::Py_TYPE(object.raw())).tp_basicsize;
        if usize::try_from(size).unwrap_or(0) < offset + WORD {
            return None;
        }
        Some(object.raw().byte_add(offset).cast::<*mut c_void>().read())
    }
}

/// A look at memory that may not be there: its first words, if the kernel can read them.
fn peek<const WORDS: usize>(address: *const c_void) -> Option<[usize; WORDS]> {
    if address.is_null() || !(address as usize).is_multiple_of(WORD) {
        return None;
    }
    let (mut reader, writer) = std::io::pipe().ok()?;
    let mut bytes = vec![0; WORDS * WORD];
    // SAFETY: the kernel reads the memory, and fails if it cannot; nothing is dereferenced here.
    let written = unsafe { write(writer.as_raw_fd(), address, bytes.len()) };
    if usize::try_from(written).ok() != Some(bytes.len()) {
        return None;
    }
    reader.read_exact(&mut bytes).ok()?;
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
        *word = usize::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    Some(words)
}

/// A probe: a connection that is not connected.
struct Probe {
    /// Its `_ssl._SSLSocket`.
    connection: Obj,
    /// Its `MemoryBIO`s, for reading and for writing.
    bios: [Obj; 2],
    /// What should be its `SSL`.
    ssl: *mut c_void,
    /// What should be its `BIO`s.
    raw_bios: [*mut c_void; 2],
}

impl Probe {
    /// Makes one; `None` if its memory does not look as it should.
    fn new(openssl: &OpenSsl, context: &Obj) -> PyRes<Option<Self>> {
        // SAFETY: a class that was looked up and is kept.
        let class = unsafe { Obj::borrowed(openssl.bio_class) };
        let bios = [class.call([])?, class.call([])?];
        let wrapped = context
            .getattr_str("wrap_bio")?
            .call([&bios[0], &bios[1]])?;
        let connection = wrapped.getattr_str("_sslobj")?;
        if connection.class().raw() != openssl.ssl_class {
            return Ok(None);
        }
        let (Some(ssl), Some(first), Some(second)) = (
            word(&connection, SSL_OFFSET),
            word(&bios[0], BIO_OFFSET),
            word(&bios[1], BIO_OFFSET),
        ) else {
            return Ok(None);
        };
        let raw_bios = [first, second];
        if raw_bios.iter().any(|bio| peek::<1>(*bio).is_none()) {
            return Ok(None);
        }
        let wanted = raw_bios.map(|bio| bio as usize);
        let inside =
            peek::<LOOKED_AT>(ssl).is_some_and(|words| words.windows(2).any(|pair| pair == wanted));
        Ok(inside.then_some(Self {
            connection,
            bios,
            ssl,
            raw_bios,
        }))
    }
}

/// Tests the layout with two probes.
fn try_out(openssl: &OpenSsl) -> PyRes<bool> {
    let module = Obj::import("ssl")?;
    let kind = module.getattr_str("PROTOCOL_TLS_CLIENT")?;
    let context = module.getattr_str("SSLContext")?.call([&kind])?;
    context.setattr_str("check_hostname", &Obj::bool(false))?;
    let (Some(one), Some(other)) = (
        Probe::new(openssl, &context)?,
        Probe::new(openssl, &context)?,
    ) else {
        return Ok(false);
    };
    if one.ssl == other.ssl || one.raw_bios[0] == other.raw_bios[0] {
        return Ok(false);
    }
    for probe in [&one, &other] {
        // SAFETY: in the memory of this `SSL` its two `BIO`s were just seen.
        let asked = unsafe {
            [
                (openssl.functions.ssl_rbio)(probe.ssl),
                (openssl.functions.ssl_wbio)(probe.ssl),
            ]
        };
        if asked != probe.raw_bios {
            return Ok(false);
        }
    }
    let bio = MemoryBio {
        object: one.bios[0].clone(),
        bio: one.raw_bios[0],
        functions: openssl.functions,
    };
    let pending = Obj::str("pending")?;
    let seen = |count: i64| -> PyRes<bool> { Ok(bio.object.getattr(&pending)?.as_i64()? == count) };
    let mut back = [0; 4];
    let works = bio.write(b"abc")
        && seen(3)?
        && bio.pending() == 3
        && bio.read(&mut back) == 3
        && &back == b"abc\0"
        && seen(0)?;
    drop(one.connection);
    Ok(works)
}

/// A `_ssl.MemoryBIO` and the `BIO` in it.
#[derive(Clone)]
pub(crate) struct MemoryBio {
    /// The object, which owns the `BIO`.
    object: Obj,
    /// The `BIO`.
    bio: *mut c_void,
    /// The functions for it.
    functions: Functions,
}

impl MemoryBio {
    /// Looks into an object; `None` if it is anything else, or there is no direct way.
    pub(crate) fn new(object: &Obj) -> Option<Self> {
        let openssl = openssl()?;
        // SAFETY: reads the type of a live object.
        let class = unsafe { ffi::Py_TYPE(object.raw()) };
        if !ptr::eq(class.cast(), openssl.bio_class) {
            return None;
        }
        let bio = word(object, BIO_OFFSET)?;
        (!bio.is_null()).then(|| Self {
            object: object.clone(),
            bio,
            functions: openssl.functions,
        })
    }

    /// The object.
    pub(crate) fn object(&self) -> &Obj {
        &self.object
    }

    /// How many bytes are in it.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        // SAFETY: the `BIO` of a live object.
        unsafe { (self.functions.bio_pending)(self.bio) }
    }

    /// Adds bytes. Fails for want of memory, or of bytes.
    #[inline]
    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        let Ok(len) = c_int::try_from(bytes.len()) else {
            return false;
        };
        // SAFETY: the `BIO` of a live object, which copies the bytes.
        unsafe { (self.functions.bio_write)(self.bio, bytes.as_ptr().cast(), len) == len }
    }

    /// Takes bytes out; answers how many.
    #[inline]
    pub(crate) fn read(&self, room: &mut [u8]) -> usize {
        let len = c_int::try_from(room.len()).unwrap_or(c_int::MAX);
        // SAFETY: the `BIO` of a live object writes at most so many bytes.
        let count = unsafe { (self.functions.bio_read)(self.bio, room.as_mut_ptr().cast(), len) };
        usize::try_from(count).unwrap_or(0)
    }
}

/// How far a call for data came.
pub(crate) enum Progress {
    /// So many bytes are read or written.
    Done(usize),
    /// The other side has to send more first.
    WantsMore,
    /// Anything else: an error, whose traces are left for `_ssl` to find, or the end. The next call has to be one of
    /// `_ssl`: ours would wipe the traces away.
    Other,
}

/// Why decrypting stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no more room.
    Full,
    /// The rest has not come yet.
    WantsMore,
    /// [`Progress::Other`]: the next call has to be one of `_ssl`, which finds the traces.
    Other,
}

/// A `_ssl._SSLSocket` and the `SSL` in it.
#[derive(Clone)]
pub(crate) struct Session {
    /// The object, which owns the `SSL`.
    object: Obj,
    /// The `SSL`.
    ssl: *mut c_void,
    /// The `BIO` that it reads from.
    incoming: *mut c_void,
    /// The functions for it.
    functions: Functions,
}

impl Session {
    /// Looks into an object; `None` if it is anything else, or does not work on these two.
    pub(crate) fn new(object: &Obj, incoming: &MemoryBio, outgoing: &MemoryBio) -> Option<Self> {
        let openssl = openssl()?;
        // SAFETY: reads the type of a live object.
        let class = unsafe { ffi::Py_TYPE(object.raw()) };
        if !ptr::eq(class.cast(), openssl.ssl_class) {
            return None;
        }
        let ssl = word(object, SSL_OFFSET)?;
        if ssl.is_null() {
            return None;
        }
        // SAFETY: the class has its `SSL` there, as was tried out.
        let bios = unsafe {
            [
                (openssl.functions.ssl_rbio)(ssl),
                (openssl.functions.ssl_wbio)(ssl),
            ]
        };
        (bios == [incoming.bio, outgoing.bio]).then(|| Self {
            object: object.clone(),
            ssl,
            incoming: incoming.bio,
            functions: openssl.functions,
        })
    }

    /// The object.
    pub(crate) fn object(&self) -> &Obj {
        &self.object
    }

    /// How many bytes are received and not looked at.
    #[inline]
    pub(crate) fn undecrypted(&self) -> usize {
        // SAFETY: the `BIO` that the `SSL` of a live object holds.
        unsafe { (self.functions.bio_pending)(self.incoming) }
    }

    /// Decrypts into `room` as long as there is something. How much, and why no more?
    #[inline]
    pub(crate) fn decrypt(&self, room: &mut [u8]) -> (usize, Stop) {
        // SAFETY: memory that is ours to write to.
        unsafe { self.fill(room.as_mut_ptr(), room.len()) }
    }

    /// The same for memory that holds nothing yet: the first bytes do afterwards.
    pub(crate) fn decrypt_uninit(&self, room: &mut [MaybeUninit<u8>]) -> (usize, Stop) {
        // SAFETY: memory that is ours to write to.
        unsafe { self.fill(room.as_mut_ptr().cast(), room.len()) }
    }

    /// Decrypts.
    ///
    /// # Safety
    /// There must be so much memory to write to.
    #[inline]
    unsafe fn fill(&self, start: *mut u8, room: usize) -> (usize, Stop) {
        let mut count = 0;
        while count < room {
            self.forget_errors();
            let mut more = 0;
            // SAFETY: the caller's promise, less what is filled already.
            let place = unsafe { start.add(count) }.cast();
            // SAFETY: the `SSL` of a live object writes at most so many bytes.
            let done =
                unsafe { (self.functions.ssl_read)(self.ssl, place, room - count, &raw mut more) };
            match self.progress(done, more) {
                Progress::Done(more) => count += more,
                Progress::WantsMore => return (count, Stop::WantsMore),
                Progress::Other => return (count, Stop::Other),
            }
            // Perf: "TLS echo". To ask once more, only to hear no, costs as much as to decrypt a short record.
            if self.undecrypted() == 0 && !self.has_pending() {
                return (count, Stop::WantsMore);
            }
        }
        (count, Stop::Full)
    }

    /// Is something inside that was not read?
    #[inline]
    fn has_pending(&self) -> bool {
        // SAFETY: the `SSL` of a live object.
        unsafe { (self.functions.ssl_has_pending)(self.ssl) != 0 }
    }

    /// Encrypts.
    #[inline]
    pub(crate) fn write(&self, bytes: &[u8]) -> Progress {
        self.forget_errors();
        let mut count = 0;
        // SAFETY: the `SSL` of a live object reads so many bytes.
        let done = unsafe {
            (self.functions.ssl_write)(self.ssl, bytes.as_ptr().cast(), bytes.len(), &raw mut count)
        };
        self.progress(done, count)
    }

    /// What a call came to.
    #[inline]
    fn progress(&self, done: c_int, count: usize) -> Progress {
        if done > 0 {
            return Progress::Done(count);
        }
        // SAFETY: the `SSL` of a live object, right after the call.
        match unsafe { (self.functions.ssl_error)(self.ssl, done) } {
            WANT_READ => Progress::WantsMore,
            _ => Progress::Other,
        }
    }

    /// Errors that others left behind would be taken for those of the next call.
    #[inline]
    fn forget_errors(&self) {
        // SAFETY: works on the thread's own queue.
        if unsafe { (self.functions.err_peek)() } != 0 {
            // SAFETY: as before.
            unsafe { (self.functions.err_clear)() };
        }
    }
}
