//! Which of the methods that streams call on themselves and on each other are not the native ones.
//!
//! The answer for a class is a set of bits that is right for one version of it; a change of the class or of one of its
//! bases gives the class another version. What is assigned on an instance is looked for in its `__dict__`, if it has one.

use std::cell::Cell;

use crate::ffi::{GilCell, GilSlot, Native, Obj, PyRes, Ref};

/// A native class's methods that can be overridden; the bit of each is at its index.
pub(crate) struct Overridable<const N: usize> {
    /// Their names.
    names: [fn() -> &'static Obj; N],
    /// The native ones.
    native: [GilSlot; N],
    /// The version of the native class in which none is replaced; 0 is none.
    unchanged: GilCell<u32>,
}

/// What is known about the class of one object.
pub(crate) struct Seen {
    /// The class's version when it was last looked at.
    class_version: Cell<u32>,
    /// What it overrides.
    overridden: Cell<u32>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            class_version: Cell::new(0),
            overridden: Cell::new(0),
        }
    }
}

impl<const N: usize> Overridable<N> {
    /// The methods of these names.
    pub(crate) const fn new(names: [fn() -> &'static Obj; N]) -> Self {
        Self {
            names,
            native: [const { GilSlot::new() }; N],
            unchanged: GilCell::new(0),
        }
    }

    /// Notes the native methods of the class.
    pub(crate) fn remember(&self, class: &Obj) -> PyRes<()> {
        for (slot, name) in self.native.iter().zip(self.names) {
            slot.set(&class.getattr(name())?);
        }
        Ok(())
    }

    /// Is one of `methods` overridden, by the class or on the object?
    #[inline]
    pub(crate) fn overrides<T: Native>(&self, seen: &Seen, this: &Ref<T>, methods: u32) -> bool {
        let version = this.obj().class_version();
        if version == 0 || version != seen.class_version.get() {
            self.look_at(seen, this.obj());
        }
        seen.overridden.get() & methods != 0
            || this
                .own_attributes()
                .is_some_and(|own| self.assigned(&own, methods))
    }

    /// Looks at the class again.
    #[cold]
    fn look_at(&self, seen: &Seen, object: &Obj) {
        let mut found = 0;
        let version = object.class_version();
        if version == 0 || version != self.unchanged.get() {
            let class = object.class();
            for (index, name) in self.names.iter().enumerate() {
                let same = class
                    .getattr(name())
                    .and_then(|value| Ok(value.is(&self.native[index].get()?)));
                if !same.unwrap_or_else(|raised| {
                    raised.discard();
                    false
                }) {
                    found |= 1 << index;
                }
            }
            if found == 0 {
                self.unchanged.set(object.class_version());
            }
        }
        seen.overridden.set(found);
        seen.class_version.set(object.class_version());
    }

    /// Is one of `methods` among these attributes?
    #[cold]
    fn assigned(&self, own: &Obj, methods: u32) -> bool {
        self.names.iter().enumerate().any(|(index, name)| {
            methods & 1 << index != 0
                && match own.dict_get(name()) {
                    Ok(found) => found.is_some(),
                    Err(raised) => {
                        raised.discard();
                        true
                    }
                }
        })
    }
}
