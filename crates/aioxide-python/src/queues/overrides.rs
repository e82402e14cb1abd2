//! Which of the methods that queues call on themselves are not the native ones.
//!
//! The answer is a set of bits that is right for one version of the object's class; a change of the class or of one of
//! its bases gives the class another version. What is assigned on the instance is noted when that happens.

use crate::ffi::{GilCell, GilSlot, Obj, PyRes, Ref};
use crate::names;

use super::{CLASS, Kind, LIFO, PRIORITY, Queue};

/// Overridden: `_init`.
pub(super) const INIT: u32 = 1;
/// Overridden: `_get`.
pub(super) const GET: u32 = 1 << 1;
/// Overridden: `_put`.
pub(super) const PUT: u32 = 1 << 2;
/// Overridden: `_format`.
pub(super) const FORMAT: u32 = 1 << 3;
/// Overridden: `qsize`.
pub(super) const QSIZE: u32 = 1 << 4;
/// Overridden: `empty`.
pub(super) const EMPTY: u32 = 1 << 5;
/// Overridden: `full`.
pub(super) const FULL: u32 = 1 << 6;
/// Overridden: `put_nowait`.
pub(super) const PUT_NOWAIT: u32 = 1 << 7;
/// Overridden: `get_nowait`.
pub(super) const GET_NOWAIT: u32 = 1 << 8;
/// Overridden: `_wakeup_next`.
pub(super) const WAKEUP_NEXT: u32 = 1 << 9;
/// Overridden: `_get_loop`.
pub(super) const GET_LOOP: u32 = 1 << 10;
/// Overridden by the class: the attribute `_queue`.
pub(super) const QUEUE: u32 = 1 << 11;
/// Overridden by the class: the attribute `_maxsize`.
pub(super) const MAXSIZE: u32 = 1 << 12;

/// How many names can be overridden.
pub(super) const NAMED: usize = 13;

/// The names that can be overridden; the bit of each is at its index.
pub(super) static OVERRIDABLE: [fn() -> &'static Obj; NAMED] = [
    names::private_init,
    names::private_get,
    names::private_put,
    names::private_format,
    names::qsize,
    names::empty,
    names::full,
    names::put_nowait,
    names::get_nowait,
    names::wakeup_next,
    names::private_get_loop,
    names::private_queue,
    names::private_maxsize,
];

/// The native attributes of these names, by the class's kind.
pub(super) static NATIVE: [[GilSlot; NAMED]; 3] = [const { [const { GilSlot::new() }; NAMED] }; 3];

/// The versions of the native classes in which nothing is overridden, by kind; 0 is none.
pub(super) static UNCHANGED: [GilCell<u32>; 3] = [const { GilCell::new(0) }; 3];

/// Notes the native attributes of the class of one kind.
pub(super) fn remember_native(kind: Kind, class: &Obj) -> PyRes<()> {
    for (slot, name) in NATIVE[kind as usize].iter().zip(OVERRIDABLE) {
        slot.set(&class.getattr(name())?);
    }
    Ok(())
}

impl Ref<Queue> {
    /// Is one of these overridden?
    #[inline]
    pub(super) fn overrides(&self, names: u32) -> bool {
        let version = self.obj().class_version();
        if version == 0 || version != self.class_version.get() {
            self.find_overridden();
        }
        self.overridden.get() & names != 0
    }

    /// Looks at the class again.
    #[cold]
    pub(super) fn find_overridden(&self) {
        self.kind.set(if PRIORITY.is_instance(self.obj()) {
            Kind::Priority
        } else if LIFO.is_instance(self.obj()) {
            Kind::Lifo
        } else {
            Kind::Queue
        });
        let kind = self.kind.get() as usize;
        let version = self.obj().class_version();
        let mut found = 0;
        if version == 0 || version != UNCHANGED[kind].get() {
            let class = self.obj().class();
            for (index, name) in OVERRIDABLE.iter().enumerate() {
                let same = class
                    .getattr(name())
                    .and_then(|value| Ok(value.is(&NATIVE[kind][index].get()?)));
                if !same.unwrap_or_else(|raised| {
                    raised.discard();
                    false
                }) {
                    found |= 1 << index;
                }
            }
            if found == 0 && self.is_of_a_native_class() {
                UNCHANGED[kind].set(self.obj().class_version());
            }
        }
        self.overridden.set(found | self.assigned.get());
        self.class_version.set(self.obj().class_version());
    }

    /// Is it an instance of exactly one of the native classes?
    pub(super) fn is_of_a_native_class(&self) -> bool {
        match self.kind.get() {
            Kind::Queue => CLASS.is_exact(self.obj()),
            Kind::Priority => PRIORITY.is_exact(self.obj()),
            Kind::Lifo => LIFO.is_exact(self.obj()),
        }
    }

    /// Notes that a method is assigned on the instance, or deleted again.
    pub(super) fn note_assignment(&self, name: &Obj, value: Option<&Obj>) {
        let Some(index) = OVERRIDABLE.iter().position(|known| known().is(name)) else {
            return;
        };
        let bit = 1 << index;
        if bit == QUEUE || bit == MAXSIZE {
            return;
        }
        let assigned = self.assigned.get();
        self.assigned.set(if value.is_some() {
            assigned | bit
        } else {
            assigned & !bit
        });
        self.class_version.set(0);
    }
}
