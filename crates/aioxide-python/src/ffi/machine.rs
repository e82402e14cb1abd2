//! State machines kept in place: the bodies of native coroutines.
//!
//! A [`Machine`] is what `async def` would compile to, written by hand. [`MachineBox`] stores any of them without an
//! allocation when it is small, so that one Python class serves all.

use std::alloc::Layout;
use std::mem::{self, MaybeUninit};
use std::ptr;

use super::native::{Sent, Visit};
use super::object::{Obj, PyRes};

/// Words of room before a machine goes to the heap.
const WORDS: usize = 8;

/// How a coroutine is resumed.
pub(crate) enum Resume {
    /// By `send`; the value is ignored by asyncio's coroutines.
    Send,
    /// By `throw`, with the exception instance to raise where the coroutine waits.
    Throw(Obj),
}

/// The body of a native coroutine.
///
/// While `resume` runs, other Python code may run, but never this machine again: the coroutine refuses that.
pub(crate) trait Machine: 'static {
    /// Runs to the next wait or to the end. The first call starts the body.
    fn resume(&mut self, input: Resume) -> PyRes<Sent>;

    /// Shows every reference held to the garbage collector.
    fn traverse(&self, visit: &mut Visit<'_>);

    /// What the coroutine awaits right now, for `cr_await`.
    fn awaits(&self) -> Option<Obj> {
        None
    }
}

/// What can be done with a stored machine.
struct Table {
    /// `Machine::resume`.
    resume: unsafe fn(*mut u8, Resume) -> PyRes<Sent>,
    /// `Machine::traverse`.
    traverse: unsafe fn(*const u8, &mut Visit<'_>),
    /// `Machine::awaits`.
    awaits: unsafe fn(*const u8) -> Option<Obj>,
    /// Drops the machine, and its box if it has one.
    drop: unsafe fn(*mut u8),
    /// Is the machine in the box's own room?
    inline: bool,
}

/// Gives each machine type its table.
struct TableOf<M>(std::marker::PhantomData<M>);

impl<M: Machine> TableOf<M> {
    /// Does the machine fit in place?
    const INLINE: bool = {
        let layout = Layout::new::<M>();
        layout.size() <= mem::size_of::<[usize; WORDS]>()
            && layout.align() <= mem::align_of::<usize>()
    };

    /// The table.
    const TABLE: &'static Table = &Table {
        // SAFETY: called with the place of a live `M`.
        resume: |place, input| unsafe { (*place.cast::<M>()).resume(input) },
        // SAFETY: called with the place of a live `M`.
        traverse: |place, visit| unsafe { (*place.cast::<M>()).traverse(visit) },
        // SAFETY: called with the place of a live `M`.
        awaits: |place| unsafe { (*place.cast::<M>()).awaits() },
        drop: |place| {
            if Self::INLINE {
                // SAFETY: called once, with the place of a live `M`.
                unsafe { ptr::drop_in_place(place.cast::<M>()) };
            } else {
                // SAFETY: called once, with a pointer that `Box::into_raw` gave.
                drop(unsafe { Box::from_raw(place.cast::<M>()) });
            }
        },
        inline: Self::INLINE,
    };
}

/// A machine, in place if it is small.
pub(crate) struct MachineBox {
    /// The machine, or a pointer to it.
    room: MaybeUninit<[usize; WORDS]>,
    /// What can be done with it.
    table: &'static Table,
}

impl MachineBox {
    /// Stores a machine.
    #[inline]
    pub(crate) fn new<M: Machine>(machine: M) -> Self {
        let mut room = MaybeUninit::<[usize; WORDS]>::uninit();
        if TableOf::<M>::INLINE {
            // SAFETY: it fits, as `INLINE` says.
            unsafe { room.as_mut_ptr().cast::<M>().write(machine) };
        } else {
            let boxed = Box::into_raw(Box::new(machine));
            // SAFETY: a pointer fits.
            unsafe { room.as_mut_ptr().cast::<*mut M>().write(boxed) };
        }
        Self {
            room,
            table: TableOf::<M>::TABLE,
        }
    }

    /// Where the machine is.
    #[inline]
    fn place(&mut self) -> *mut u8 {
        let room = self.room.as_mut_ptr();
        if self.table.inline {
            room.cast()
        } else {
            // SAFETY: if not in place, the room holds the pointer.
            unsafe { *room.cast::<*mut u8>() }
        }
    }

    /// Where the machine is, for reading.
    #[inline]
    fn place_const(&self) -> *const u8 {
        let room = self.room.as_ptr();
        if self.table.inline {
            room.cast()
        } else {
            // SAFETY: if not in place, the room holds the pointer.
            unsafe { *room.cast::<*const u8>() }
        }
    }

    /// Resumes the machine.
    #[inline]
    pub(crate) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let place = self.place();
        // SAFETY: the machine's own table.
        unsafe { (self.table.resume)(place, input) }
    }

    /// Shows the machine's references to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        // SAFETY: the machine's own table.
        unsafe { (self.table.traverse)(self.place_const(), visit) }
    }

    /// What the machine awaits.
    pub(crate) fn awaits(&self) -> Option<Obj> {
        // SAFETY: the machine's own table.
        unsafe { (self.table.awaits)(self.place_const()) }
    }
}

impl Drop for MachineBox {
    fn drop(&mut self) {
        let place = self.place();
        // SAFETY: dropped once.
        unsafe { (self.table.drop)(place) };
    }
}
