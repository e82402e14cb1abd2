//! Bytes: making `bytes`, looking into them, and the buffer protocol.

use std::mem::{self, MaybeUninit};
use std::ptr;

use pyo3::ffi;

use super::object::{Obj, PyRes, done};

unsafe extern "C" {
    /// Changes the size of a `bytes` that has one owner: part of the C API, which PyO3 leaves out.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

impl Obj {
    /// A `bytes`.
    #[inline]
    pub(crate) fn bytes(data: &[u8]) -> PyRes {
        let len = isize::try_from(data.len()).unwrap_or(isize::MAX);
        // SAFETY: pointer and length are of a valid slice.
        unsafe { Self::owned(ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), len)) }
    }

    /// A `bytes` of at most `len` bytes that `fill` writes. It says how many it wrote, or fails with an error of its own.
    pub(crate) fn bytes_with<E>(
        len: usize,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<usize, E>,
    ) -> PyRes<Result<Self, E>> {
        let size = isize::try_from(len).unwrap_or(isize::MAX);
        // SAFETY: without a text the memory is left as it is, to be written before anybody else sees the object.
        let fresh = unsafe { Self::owned(ffi::PyBytes_FromStringAndSize(ptr::null(), size)) }?;
        // SAFETY: the memory of a fresh `bytes` of `len` bytes, which nobody else knows.
        let room = unsafe {
            let start = ffi::PyBytes_AsString(fresh.raw()).cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start, len)
        };
        let written = match fill(room) {
            Ok(written) => isize::try_from(written.min(len)).unwrap_or(isize::MAX),
            Err(error) => return Ok(Err(error)),
        };
        if written == size {
            return Ok(Ok(fresh));
        }
        let mut raw = fresh.into_raw();
        // SAFETY: the only reference, which the call takes over; on an error it leaves NULL.
        unsafe { _PyBytes_Resize(&raw mut raw, written) };
        // SAFETY: a new reference or NULL with an exception set.
        unsafe { Self::owned(raw) }.map(Ok)
    }

    /// The bytes of a `bytes`, which never change; `None` for any other object.
    #[inline]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        // SAFETY: a flag test.
        if unsafe { ffi::PyBytes_Check(self.raw()) } == 0 {
            return None;
        }
        // SAFETY: the memory of a live `bytes`, as long as it is borrowed.
        Some(unsafe {
            let len = usize::try_from(ffi::Py_SIZE(self.raw())).unwrap_or(0);
            std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(self.raw()).cast(), len)
        })
    }

    /// Is this exactly a `bytes`?
    #[inline]
    pub(crate) fn is_exact_bytes(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyBytes_CheckExact(self.raw()) != 0 }
    }

    /// Is this a `bytearray`?
    #[inline]
    pub(crate) fn is_bytearray(&self) -> bool {
        // SAFETY: a flag test.
        unsafe { ffi::PyByteArray_Check(self.raw()) != 0 }
    }

    /// Is this a `memoryview`?
    #[inline]
    pub(crate) fn is_memoryview(&self) -> bool {
        // SAFETY: a type test.
        unsafe { ffi::PyMemoryView_Check(self.raw()) != 0 }
    }
}

/// The smallest room that a [`BytesBuilder`] makes.
const SMALLEST_ROOM: usize = 4096;

/// A `bytes` in the making: grows at its end, and is not copied when it is done.
pub(crate) struct BytesBuilder {
    /// The object, which nobody else knows, with room to grow; `None` before there is anything in it.
    bytes: Option<Obj>,
    /// How much of it is written.
    len: usize,
}

impl BytesBuilder {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: None,
            len: 0,
        }
    }

    /// Appends. If there is no memory for that, all is lost.
    pub(crate) fn extend(&mut self, data: &[u8]) -> PyRes<()> {
        let room = self.room();
        let needed = self.len.saturating_add(data.len());
        if needed > room {
            self.resize(needed.max(room.saturating_mul(2)).max(SMALLEST_ROOM))?;
        }
        let Some(bytes) = &self.bytes else {
            return Ok(());
        };
        // SAFETY: the object has room for `needed` bytes, and nobody else knows it.
        unsafe {
            let end = ffi::PyBytes_AS_STRING(bytes.raw())
                .cast_mut()
                .cast::<u8>()
                .add(self.len);
            ptr::copy_nonoverlapping(data.as_ptr(), end, data.len());
        }
        self.len = needed;
        Ok(())
    }

    /// The `bytes`.
    pub(crate) fn finish(&mut self) -> PyRes {
        if self.len == 0 {
            return Obj::bytes(b"");
        }
        if self.len < self.room() {
            self.resize(self.len)?;
        }
        self.len = 0;
        self.bytes.take().map_or_else(|| Obj::bytes(b""), Ok)
    }

    /// How much fits in the object.
    fn room(&self) -> usize {
        self.bytes
            .as_ref()
            .and_then(Obj::as_bytes)
            .map_or(0, <[u8]>::len)
    }

    /// Changes the object's size, which is not zero.
    fn resize(&mut self, room: usize) -> PyRes<()> {
        let size = isize::try_from(room).unwrap_or(isize::MAX);
        let Some(bytes) = self.bytes.take() else {
            // SAFETY: without a text the memory is left as it is; only what was written is ever shown.
            self.bytes =
                Some(unsafe { Obj::owned(ffi::PyBytes_FromStringAndSize(ptr::null(), size)) }?);
            return Ok(());
        };
        let mut raw = bytes.into_raw();
        let kept = mem::take(&mut self.len);
        // SAFETY: the only reference, which the call takes over; on an error it leaves NULL.
        unsafe { _PyBytes_Resize(&raw mut raw, size) };
        // SAFETY: a new reference or NULL with an exception set.
        self.bytes = Some(unsafe { Obj::owned(raw) }?);
        self.len = kept;
        Ok(())
    }
}

/// A view of an object's memory, through the buffer protocol. While it exists, the memory neither moves nor goes.
pub(crate) struct Buffer(ffi::Py_buffer);

impl Buffer {
    /// A view to read from: the object's bytes in one piece.
    pub(crate) fn readable(object: &Obj) -> PyRes<Self> {
        Self::new(object, ffi::PyBUF_SIMPLE)
    }

    /// A view to write to.
    pub(crate) fn writable(object: &Obj) -> PyRes<Self> {
        Self::new(object, ffi::PyBUF_WRITABLE)
    }

    /// Asks the object for its memory. Either kind of request has no shape, so that the view may be moved.
    fn new(object: &Obj, flags: std::ffi::c_int) -> PyRes<Self> {
        let mut view = MaybeUninit::<ffi::Py_buffer>::zeroed();
        // SAFETY: any object may be asked; on success the view is filled.
        done(unsafe { ffi::PyObject_GetBuffer(object.raw(), view.as_mut_ptr(), flags) })?;
        // SAFETY: filled, as the call said.
        Ok(Self(unsafe { view.assume_init() }))
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.0.len).unwrap_or(0)
    }

    /// The bytes. No Python code may run while they are borrowed: it could change them.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.0.len <= 0 {
            return &[];
        }
        // SAFETY: the exporter keeps so much memory there until the view is released.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.len()) }
    }

    /// The bytes, to be written. No Python code may run while they are borrowed: it could look at them.
    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.len <= 0 || self.0.readonly != 0 {
            return &mut [];
        }
        // SAFETY: the exporter keeps so much memory there until the view is released, and allows writing.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf.cast(), self.len()) }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: a filled view, released once; its holder has the GIL, since views are not `Send`.
        unsafe { ffi::PyBuffer_Release(&raw mut self.0) };
    }
}
