//! The items of a queue and the bound on their number.
//!
//! A method called as asyncio calls it on `self` (`put_item`, `get_item`, `is_empty`, `is_full`) looks for overrides; the
//! others are what the native methods do.

use crate::ffi::{Builtin, Obj, PyRes, Raised, Ref};
use crate::{names, stdlib};

use super::overrides::{EMPTY, FULL, GET, MAXSIZE, PUT, QSIZE, QUEUE};
use super::{Kind, Queue};

/// What `_queue` is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Not there: `_init` has not run, or an overridden one did not set it.
    Missing,
    /// A `deque`, or a native row that would become one.
    Deque,
    /// A `list`, or a native row that would become one.
    List,
}

/// No bound on the number of items.
pub(super) const UNBOUNDED: usize = usize::MAX;
/// `maxsize` is nothing that native code compares.
pub(super) const ODD: usize = 0;

/// From how many items on a queue of this `maxsize` is full.
pub(super) fn limit_of(maxsize: &Obj) -> usize {
    let number = if maxsize.is_exact_int() {
        maxsize
            .as_i64()
            .map(|value| usize::try_from(value).unwrap_or(0))
    } else if maxsize.is_exact_float() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates: no negative sizes, infinity is unbounded, nan is never reached"
        )]
        maxsize.as_f64().map(|value| value.ceil() as usize)
    } else {
        return ODD;
    };
    match number {
        Ok(0) => UNBOUNDED,
        Ok(limit) => limit,
        Err(overflow) => {
            overflow.discard();
            ODD
        }
    }
}

impl Ref<Queue> {
    /// Sets `maxsize`.
    pub(super) fn set_maxsize(&self, maxsize: Obj) {
        self.limit.set(limit_of(&maxsize));
        self.maxsize.set(maxsize);
    }

    /// `_maxsize` as the class has it.
    pub(super) fn current_maxsize(&self) -> PyRes {
        if self.overrides(MAXSIZE) {
            return self.obj().getattr(names::private_maxsize());
        }
        self.maxsize
            .get()
            .ok_or_else(|| self.no_attribute("_maxsize"))
    }

    /// The error of an attribute that is not set.
    #[cold]
    pub(super) fn no_attribute(&self, name: &str) -> Raised {
        Builtin::Attribute.raise(&format!(
            "'{}' object has no attribute '{name}'",
            self.obj().class_name()
        ))
    }

    /// `_init` of this kind: empties the store.
    pub(super) fn renew(&self, kind: Kind) -> PyRes<()> {
        if self.overrides(QUEUE) {
            let store = match kind {
                Kind::Queue => stdlib::deque()?.call([])?,
                Kind::Priority | Kind::Lifo => Obj::list([])?,
            };
            return self.obj().setattr(names::private_queue(), &store);
        }
        let visible = (kind == Kind::Priority)
            .then(|| Obj::list([]))
            .transpose()?;
        self.store.set(if kind == Kind::Queue {
            Store::Deque
        } else {
            Store::List
        });
        self.items.become_(visible);
        Ok(())
    }

    /// The Python object that holds the items; `None` while they are in the native row.
    #[inline]
    pub(super) fn visible_items(&self) -> PyRes<Option<Obj>> {
        if self.overrides(QUEUE) {
            return self.obj().getattr(names::private_queue()).map(Some);
        }
        self.own_visible_items()
    }

    /// The same, where the class is known not to override `_queue`.
    #[inline]
    pub(super) fn own_visible_items(&self) -> PyRes<Option<Obj>> {
        if self.store.get() == Store::Missing {
            return Err(self.no_attribute("_queue"));
        }
        Ok(self.items.visible())
    }

    /// `_queue`.
    pub(super) fn queue_object(&self) -> PyRes {
        match self.store.get() {
            Store::Missing => Err(self.no_attribute("_queue")),
            Store::Deque => self.items.deque(),
            Store::List => self.items.materialise(|| Obj::list([])),
        }
    }

    /// `self._queue` as the class has it.
    pub(super) fn current_queue(&self) -> PyRes {
        match self.visible_items()? {
            Some(visible) => Ok(visible),
            None => self.queue_object(),
        }
    }

    /// `_put` of this kind.
    #[inline]
    pub(super) fn add(&self, kind: Kind, item: &Obj) -> PyRes<()> {
        if kind == Kind::Priority {
            return stdlib::heappush()?
                .call([&self.current_queue()?, item])
                .map(drop);
        }
        match self.visible_items()? {
            None => {
                self.items.native_push(item.clone());
                Ok(())
            }
            Some(visible) => visible.method(names::append(), [item]).map(drop),
        }
    }

    /// `_get` of this kind.
    #[inline]
    pub(super) fn take(&self, kind: Kind) -> PyRes {
        if kind != Kind::Priority && self.visible_items()?.is_none() {
            let item = if kind == Kind::Queue {
                self.items.native_pop_front()
            } else {
                self.items.native_pop_back()
            };
            if let Some(item) = item {
                return Ok(item);
            }
        }
        let queue = self.current_queue()?;
        match kind {
            Kind::Queue => queue.method(names::popleft(), []),
            Kind::Priority => stdlib::heappop()?.call([&queue]),
            Kind::Lifo => queue.method(names::pop(), []),
        }
    }

    /// `self._put(item)`.
    #[inline]
    pub(super) fn put_item(&self, item: &Obj) -> PyRes<()> {
        if self.overrides(PUT) {
            return self.obj().method(names::private_put(), [item]).map(drop);
        }
        self.add(self.kind.get(), item)
    }

    /// `self._get()`.
    #[inline]
    pub(super) fn get_item(&self) -> PyRes {
        if self.overrides(GET) {
            return self.obj().method(names::private_get(), []);
        }
        self.take(self.kind.get())
    }

    /// `qsize()`.
    #[inline]
    pub(super) fn size(&self) -> PyRes<usize> {
        match self.visible_items()? {
            None => Ok(self.items.native_len()),
            Some(visible) => visible.len(),
        }
    }

    /// `empty()`.
    #[inline]
    pub(super) fn has_no_items(&self) -> PyRes<bool> {
        match self.visible_items()? {
            None => Ok(self.items.native_len() == 0),
            Some(visible) => Ok(!visible.truth()?),
        }
    }

    /// `self.empty()`.
    #[inline]
    pub(super) fn is_empty(&self) -> PyRes<bool> {
        if self.overrides(EMPTY | QUEUE) {
            return self.is_empty_visibly();
        }
        match self.own_visible_items()? {
            None => Ok(self.items.native_len() == 0),
            Some(visible) => Ok(!visible.truth()?),
        }
    }

    /// `self.empty()`, where something is overridden.
    #[cold]
    pub(super) fn is_empty_visibly(&self) -> PyRes<bool> {
        if self.overrides(EMPTY) {
            return self.obj().method(names::empty(), [])?.truth();
        }
        self.has_no_items()
    }

    /// `self.full()`.
    #[inline]
    pub(super) fn is_full(&self) -> PyRes<bool> {
        let limit = self.limit.get();
        if limit == ODD || self.overrides(FULL | MAXSIZE | QSIZE | QUEUE) {
            return self.is_full_visibly();
        }
        if limit == UNBOUNDED {
            return Ok(false);
        }
        let size = match self.own_visible_items()? {
            None => self.items.native_len(),
            Some(visible) => visible.len()?,
        };
        Ok(size >= limit)
    }

    /// `self.full()`, where it is overridden or compares what native code does not.
    #[cold]
    pub(super) fn is_full_visibly(&self) -> PyRes<bool> {
        if self.overrides(FULL) {
            return self.obj().method(names::full(), [])?.truth();
        }
        self.fullness()?.truth()
    }

    /// `full()`: what comparing the size gives.
    pub(super) fn fullness(&self) -> PyRes {
        let limit = self.limit.get();
        if limit != ODD && !self.overrides(MAXSIZE | QSIZE) {
            return Ok(Obj::bool(limit != UNBOUNDED && self.size()? >= limit));
        }
        if self.current_maxsize()?.less_or_equal(&Obj::int(0)?)? {
            return Ok(Obj::bool(false));
        }
        let size = if self.overrides(QSIZE) {
            self.obj().method(names::qsize(), [])?
        } else {
            Obj::int(i64::try_from(self.size()?).unwrap_or(i64::MAX))?
        };
        stdlib::greater_or_equal()?.call([&size, &self.current_maxsize()?])
    }
}
