//! The bodies of `StreamReader`'s coroutines. What is there already is returned at once.

use aioxide_engine::read_buffer::Look;

use crate::coroutines::Delegate;
use crate::ffi::{
    Buffer, Builtin, BytesBuilder, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Visit,
    while_handling,
};
use crate::waiter::Waiter;
use crate::{names, stdlib};

use super::reader::{READ, READLINE, READUNTIL, Separator, StreamReader, WAIT_FOR_DATA, Wanted};

/// What a read waits for right now.
enum Pending {
    /// Nothing: it has not begun.
    Nothing,
    /// The reader's waiter.
    Data(Waiter),
    /// An overridden `_wait_for_data`.
    Method(Delegate),
    /// An overridden method that does the whole work of this one.
    StandIn(Delegate),
}

impl Pending {
    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Nothing => {}
            Self::Data(waiter) => waiter.traverse(visit),
            Self::Method(delegate) | Self::StandIn(delegate) => visit.obj(delegate.awaited()),
        }
    }

    /// What is awaited.
    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Nothing => None,
            Self::Data(waiter) => Some(waiter.future().clone()),
            Self::Method(delegate) | Self::StandIn(delegate) => Some(delegate.awaited().clone()),
        }
    }

    /// Calls a coroutine method that does the whole work, and begins to wait for it.
    fn stand_in(&mut self, call: PyRes) -> PyRes<Sent> {
        let delegate = Delegate::new(&call?)?;
        let sent = delegate.resume(Resume::Send);
        *self = Self::StandIn(delegate);
        sent
    }
}

impl Ref<StreamReader> {
    /// `await self._wait_for_data(caller)`. `None` says that the wait is over.
    #[inline]
    fn wait(&self, pending: &mut Pending, caller: &str, wanted: Wanted) -> PyRes<Option<Sent>> {
        // Differs: asyncio would wait for ever if the exception came after data that was not enough, in the same turn.
        self.check_exception()?;
        if self.overrides(WAIT_FOR_DATA) {
            let name = names::wait_for_data();
            let delegate = Delegate::new(&self.obj().method(name, [&Obj::str(caller)?])?)?;
            let sent = delegate.resume(Resume::Send);
            *pending = Pending::Method(delegate);
            return sent.map(unless_over);
        }
        self.begin_wait(pending, caller, wanted)
    }

    /// `_wait_for_data(caller)` up to its wait.
    fn begin_wait(
        &self,
        pending: &mut Pending,
        caller: &str,
        wanted: Wanted,
    ) -> PyRes<Option<Sent>> {
        if self.waiter.is_some() {
            return Err(Raised::runtime_error(&format!(
                "{caller}() called while another coroutine is already waiting for incoming data"
            )));
        }
        if self.eof.get() {
            return Err(Builtin::Assertion.raise("_wait_for_data after EOF"));
        }
        self.resume_if_paused()?;
        let mut waiter = Waiter::create(&self.loop_.get_or_none())?;
        self.waiter.set(waiter.future().clone());
        self.wanted.set(wanted);
        let sent = waiter.start();
        *pending = Pending::Data(waiter);
        self.waited(sent)
    }

    /// Goes on after a wait.
    #[inline]
    fn go_on(&self, pending: &mut Pending, input: Resume) -> PyRes<Option<Sent>> {
        match pending {
            Pending::Data(waiter) => {
                let sent = waiter.resume(input);
                self.waited(sent)
            }
            Pending::Method(delegate) | Pending::StandIn(delegate) => {
                delegate.resume(input).map(unless_over)
            }
            Pending::Nothing => Ok(None),
        }
    }

    /// Looks what a step of the wait for data gave.
    #[inline]
    fn waited(&self, sent: PyRes<Sent>) -> PyRes<Option<Sent>> {
        if matches!(sent, Ok(Sent::Yield(_))) {
            return sent.map(Some);
        }
        self.waiter.clear();
        sent.map(unless_over)
    }

    /// `raise IncompleteReadError(everything, expected)`.
    #[cold]
    fn incomplete(&self, expected: &Obj) -> PyRes<Sent> {
        let partial = self.received.take(usize::MAX)?;
        let error = stdlib::incomplete_read_error()?.call([&partial, expected])?;
        Err(Raised::raise(&error))
    }
}

/// A wait that returned is over.
#[inline]
fn unless_over(sent: Sent) -> Option<Sent> {
    match sent {
        sent @ Sent::Yield(_) => Some(sent),
        Sent::Return(_) => None,
    }
}

/// `StreamReader._wait_for_data`.
pub(super) struct WaitForData {
    /// The reader.
    reader: Ref<StreamReader>,
    /// Who waits.
    caller: Obj,
    /// The wait.
    pending: Pending,
}

impl WaitForData {
    /// A wait of `caller`, a name.
    pub(super) fn new(reader: Ref<StreamReader>, caller: &Obj) -> Self {
        Self {
            reader,
            caller: caller.clone(),
            pending: Pending::Nothing,
        }
    }
}

impl Machine for WaitForData {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = if let Pending::Nothing = self.pending {
            let caller = self.caller.to_str()?.text()?;
            self.reader
                .begin_wait(&mut self.pending, &caller, Wanted::Any)?
        } else {
            self.reader.go_on(&mut self.pending, input)?
        };
        Ok(sent.unwrap_or_else(|| Sent::Return(Obj::none())))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.reader);
        visit.obj(&self.caller);
        self.pending.traverse(visit);
    }

    fn awaits(&self) -> Option<Obj> {
        self.pending.awaits()
    }
}

/// Who searches for a separator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// `readuntil`.
    Until,
    /// `readline`.
    Line,
    /// `__anext__`.
    Next,
}

/// What is searched for.
enum Separators {
    /// A newline.
    Newline,
    /// What `readuntil` was given.
    Given(Obj),
    /// More than one, or other than `bytes`: copied and ordered by length.
    #[expect(clippy::box_collection, reason = "the machine has to stay small")]
    Many(Box<Vec<Vec<u8>>>),
}

/// `StreamReader.readuntil`, `StreamReader.readline` and `StreamReader.__anext__`.
pub(super) struct ReadUntil {
    /// The reader.
    reader: Ref<StreamReader>,
    /// What is searched for.
    separators: Separators,
    /// Where the next look begins.
    from: usize,
    /// The wait.
    pending: Pending,
    /// Who searches.
    caller: Caller,
}

/// The error's text where the separator comes too late.
const FOUND_TOO_LATE: &str = "Separator is found, but chunk is longer than limit";
/// The error's text where the separator has not come.
const NOT_FOUND: &str = "Separator is not found, and chunk exceed the limit";

impl ReadUntil {
    /// `readline()` or `__anext__()`.
    #[inline]
    pub(super) fn line(reader: Ref<StreamReader>, caller: Caller) -> Self {
        Self {
            reader,
            separators: Separators::Newline,
            from: 0,
            pending: Pending::Nothing,
            caller,
        }
    }

    /// `readuntil(separator)`.
    #[inline]
    pub(super) fn new(reader: Ref<StreamReader>, separator: Option<&Obj>) -> Self {
        let separators = separator.map_or(Separators::Newline, |separator| {
            Separators::Given(separator.clone())
        });
        Self {
            separators,
            ..Self::line(reader, Caller::Until)
        }
    }

    /// What comes before the search. A method that is overridden takes its place.
    fn begin(&mut self) -> PyRes<Option<Sent>> {
        let reader = &self.reader;
        let newline = |name| {
            let separator = Obj::bytes(b"\n")?;
            reader.obj().method(name, [&separator])
        };
        match self.caller {
            Caller::Line if reader.overrides(READUNTIL) => {
                let call = newline(names::readuntil());
                let sent = self.pending.stand_in(call);
                return self.overridden(sent).map(Some);
            }
            Caller::Next if reader.overrides(READLINE | READUNTIL) => {
                let call = reader.obj().method(names::readline(), []);
                let sent = self.pending.stand_in(call);
                return self.overridden(sent).map(Some);
            }
            _ => {}
        }
        if let Separators::Given(separator) = &self.separators
            && let Some(separators) = ordered(separator)?
        {
            reader.check_exception()?;
            self.separators = Separators::Many(Box::new(bytes_of(&separators)?));
            return Ok(None);
        }
        reader.check_exception()?;
        Ok(None)
    }

    /// A step of the method that stands in for this one.
    fn overridden(&self, sent: PyRes<Sent>) -> PyRes<Sent> {
        match sent {
            Ok(Sent::Return(line)) if self.caller == Caller::Next => {
                if line.equals(&Obj::bytes(b"")?)? {
                    return Err(Builtin::StopAsyncIteration.raise_bare());
                }
                Ok(Sent::Return(line))
            }
            Err(raised) if self.caller == Caller::Line => self.rescue(raised).map(Sent::Return),
            sent => sent,
        }
    }

    /// What `readline` makes of an error of `readuntil`.
    #[cold]
    fn rescue(&self, raised: Raised) -> PyRes {
        if raised.matches(stdlib::incomplete_read_error()?) {
            return raised.take().getattr(names::partial());
        }
        if !raised.matches(stdlib::limit_overrun_error()?) {
            return Err(raised);
        }
        let error = raised.take();
        while_handling(&error, || {
            let consumed = error.getattr(names::consumed())?.as_i64()?;
            let consumed = usize::try_from(consumed).unwrap_or(0);
            if self.reader.received.has_at(b"\n", consumed)? {
                self.reader.received.discard(consumed + 1)?;
            } else {
                self.reader.received.discard(usize::MAX)?;
            }
            self.reader.after_read()?;
            let message = error.getattr(names::args())?.item(&Obj::int(0)?)?;
            let error = Builtin::Value.class().call([&message])?;
            Err(Raised::raise(&error))
        })
    }

    /// Looks for the separator.
    #[inline]
    fn look(&self) -> PyRes<Look> {
        let received = &self.reader.received;
        match &self.separators {
            Separators::Newline => received.look(&[b"\n"], self.from),
            Separators::Given(one) => {
                received.look(&[one.as_bytes().unwrap_or_default()], self.from)
            }
            Separators::Many(many) => received.look(many, self.from),
        }
    }

    /// What to wait for, so that not each piece of data has to be looked at here.
    #[inline]
    fn wanted(&self) -> Wanted {
        let separator = match &self.separators {
            Separators::Newline => Separator::new(b"\n"),
            Separators::Given(one) => Separator::new(one.as_bytes().unwrap_or_default()),
            Separators::Many(_) => None,
        };
        separator.map_or(Wanted::Any, Wanted::Separator)
    }

    /// Searches, and waits where it needs more.
    #[inline]
    fn search(&mut self) -> PyRes<Sent> {
        loop {
            match self.look()? {
                Look::Found { start, end } => return self.found(start, end),
                Look::Missing { from } => {
                    self.from = from;
                    if from > self.reader.longest() {
                        return self.overrun(NOT_FOUND, from);
                    }
                }
                Look::TooShort => {}
            }
            if self.reader.eof.get() {
                return self.ended();
            }
            let wanted = self.wanted();
            let sent = self.reader.wait(&mut self.pending, "readuntil", wanted)?;
            if let Some(sent) = sent {
                if let Pending::Data(waiter) = &self.pending {
                    self.reader.from.set(self.from);
                    self.reader.from_of.set(waiter.future().address());
                }
                return Ok(sent);
            }
        }
    }

    /// The separator is there.
    #[inline]
    fn found(&self, start: usize, end: usize) -> PyRes<Sent> {
        if start > self.reader.longest() {
            return self.overrun(FOUND_TOO_LATE, start);
        }
        let chunk = self.reader.received.take(end)?;
        self.reader.after_read()?;
        Ok(Sent::Return(chunk))
    }

    /// The stream has ended, and there is no separator.
    #[cold]
    fn ended(&self) -> PyRes<Sent> {
        if self.caller == Caller::Until {
            return self.reader.incomplete(&Obj::none());
        }
        let rest = self.reader.received.take(usize::MAX)?;
        if self.caller == Caller::Next && rest.len()? == 0 {
            return Err(Builtin::StopAsyncIteration.raise_bare());
        }
        Ok(Sent::Return(rest))
    }

    /// There is more than the limit.
    #[cold]
    fn overrun(&self, message: &str, consumed: usize) -> PyRes<Sent> {
        let consumed = Obj::int(i64::try_from(consumed).unwrap_or(i64::MAX))?;
        let error = stdlib::limit_overrun_error()?.call([&Obj::str(message)?, &consumed])?;
        let raised = Raised::raise(&error);
        if self.caller == Caller::Until {
            return Err(raised);
        }
        self.rescue(raised).map(Sent::Return)
    }
}

/// The separators, ordered by length; `None` if it is one `bytes`, which is as good as that.
fn ordered(separator: &Obj) -> PyRes<Option<Vec<Obj>>> {
    let mut all = if separator.isinstance(stdlib::tuple()?)? {
        separator.items()?
    } else {
        vec![separator.clone()]
    };
    let mut lengths = Vec::new();
    for (index, one) in all.iter().enumerate() {
        lengths.push((one.len()?, index));
    }
    lengths.sort_unstable();
    let Some(&(shortest, _)) = lengths.first() else {
        return Err(Raised::value_error(
            "Separator should contain at least one element",
        ));
    };
    if shortest == 0 {
        return Err(Raised::value_error(
            "Separator should be at least one-byte string",
        ));
    }
    if separator.as_bytes().is_some() {
        return Ok(None);
    }
    all = lengths
        .into_iter()
        .map(|(_, index)| all[index].clone())
        .collect();
    Ok(Some(all))
}

/// Copies of what `bytearray.find` would search for.
fn bytes_of(separators: &[Obj]) -> PyRes<Vec<Vec<u8>>> {
    let copy = |separator: &Obj| {
        Buffer::readable(separator)
            .map(|view| view.as_slice().to_vec())
            .map_err(|raised| {
                if !raised.is(Builtin::Type) {
                    return raised;
                }
                raised.discard();
                Raised::type_error(&format!(
                    "argument should be integer or bytes-like object, not '{}'",
                    separator.class_name()
                ))
            })
    };
    separators.iter().map(copy).collect()
}

impl Machine for ReadUntil {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &mut self.pending {
            Pending::Nothing => {
                if let Some(sent) = self.begin()? {
                    return Ok(sent);
                }
            }
            Pending::StandIn(delegate) => {
                let sent = delegate.resume(input);
                return self.overridden(sent);
            }
            pending => {
                if let Some(sent) = self.reader.go_on(pending, input)? {
                    return Ok(sent);
                }
                if let Pending::Data(waiter) = &self.pending
                    && waiter.future().address() == self.reader.from_of.get()
                {
                    self.from = self.reader.from.get();
                }
            }
        }
        self.search()
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.reader);
        if let Separators::Given(separator) = &self.separators {
            visit.obj(separator);
        }
        self.pending.traverse(visit);
    }

    fn awaits(&self) -> Option<Obj> {
        self.pending.awaits()
    }
}

/// How much `read` reads.
enum Amount {
    /// Not decided: what it was given.
    Given(Obj),
    /// So many bytes at most.
    UpTo(usize),
    /// All, with what was read so far.
    All(Box<BytesBuilder>),
}

impl Amount {
    /// All; nothing was read so far. In a box, since the machine has to stay small.
    fn all() -> Self {
        Self::All(Box::new(BytesBuilder::new()))
    }
}

/// `StreamReader.read`.
pub(super) struct Read {
    /// The reader.
    reader: Ref<StreamReader>,
    /// How much is read.
    amount: Amount,
    /// The wait.
    pending: Pending,
}

impl Read {
    /// `read(n)`.
    #[inline]
    pub(super) fn new(reader: Ref<StreamReader>, n: Option<&Obj>) -> Self {
        Self {
            reader,
            amount: n.map_or_else(Amount::all, |n| Amount::Given(n.clone())),
            pending: Pending::Nothing,
        }
    }

    /// What comes before reading: is it at its end already?
    #[inline]
    fn begin(&mut self) -> PyRes<Option<Sent>> {
        self.reader.check_exception()?;
        let Amount::Given(n) = &self.amount else {
            return Ok(None);
        };
        self.amount = match bounded(n, true) {
            Ok(Some(0)) => return Obj::bytes(b"").map(Sent::Return).map(Some),
            Ok(Some(n)) => Amount::UpTo(n),
            Ok(None) => Amount::all(),
            // CPython: a number that is not whole is found out when there is something to take.
            Err(raised) if n.is_exact_float() => {
                raised.discard();
                return Ok(None);
            }
            Err(raised) => return Err(raised),
        };
        Ok(None)
    }

    /// Reads, and waits if there is nothing.
    #[inline]
    fn read(&mut self) -> PyRes<Sent> {
        loop {
            if let Amount::All(_) = self.amount
                && self.reader.overrides(READ)
            {
                let limit = self.reader.visible_limit()?;
                let call = self.reader.obj().method(names::read(), [&limit]);
                match self.pending.stand_in(call)? {
                    sent @ Sent::Yield(_) => return Ok(sent),
                    Sent::Return(block) => {
                        if let Some(all) = self.append(&block)? {
                            return Ok(Sent::Return(all));
                        }
                    }
                }
                continue;
            }
            if self.reader.received.len()? == 0 && !self.reader.eof.get() {
                let sent = self.reader.wait(&mut self.pending, "read", Wanted::Any)?;
                if let Some(sent) = sent {
                    return Ok(sent);
                }
            }
            if let Some(sent) = self.take()? {
                return Ok(sent);
            }
        }
    }

    /// Takes what there is. `None` says that more has to be read.
    #[inline]
    fn take(&mut self) -> PyRes<Option<Sent>> {
        let reader = &self.reader;
        match &mut self.amount {
            Amount::All(all) => {
                let count = reader.received.move_to(all, reader.longest())?;
                reader.after_read()?;
                if count == 0 {
                    return all.finish().map(Sent::Return).map(Some);
                }
                reader.check_exception()?;
                Ok(None)
            }
            Amount::Given(n) => {
                let len = reader.received.len()?;
                let all = Obj::int(i64::try_from(len).unwrap_or(i64::MAX))?;
                // CPython: from 3.15 on it only matters where it cuts.
                if !cfg!(Py_3_15) || n.less_than(&all)? {
                    return Err(Raised::type_error(&format!(
                        "'{}' object cannot be interpreted as an integer",
                        n.class_name()
                    )));
                }
                let data = reader.received.take(len)?;
                reader.after_read()?;
                Ok(Some(Sent::Return(data)))
            }
            Amount::UpTo(most) => {
                let data = reader.received.take(*most)?;
                reader.after_read()?;
                Ok(Some(Sent::Return(data)))
            }
        }
    }

    /// Appends a block that an overridden `read` gave. An empty one is the end, and all is returned.
    fn append(&mut self, block: &Obj) -> PyRes<Option<Obj>> {
        let Amount::All(all) = &mut self.amount else {
            return Ok(Some(block.clone()));
        };
        if !block.truth()? {
            return all.finish().map(Some);
        }
        all.extend(Buffer::readable(block)?.as_slice())?;
        Ok(None)
    }
}

impl Machine for Read {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &mut self.pending {
            Pending::Nothing => {
                if let Some(sent) = self.begin()? {
                    return Ok(sent);
                }
            }
            Pending::StandIn(delegate) => match delegate.resume(input)? {
                sent @ Sent::Yield(_) => return Ok(sent),
                Sent::Return(block) => {
                    if let Some(all) = self.append(&block)? {
                        return Ok(Sent::Return(all));
                    }
                }
            },
            pending => {
                if let Some(sent) = self.reader.go_on(pending, input)? {
                    return Ok(sent);
                }
                if let Some(sent) = self.take()? {
                    return Ok(sent);
                }
            }
        }
        self.read()
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.reader);
        if let Amount::Given(n) = &self.amount {
            visit.obj(n);
        }
        self.pending.traverse(visit);
    }

    fn awaits(&self) -> Option<Obj> {
        self.pending.awaits()
    }
}

/// A number of bytes; `None` if it is negative. `zero_first` says that it is compared with zero before that.
#[inline]
fn bounded(n: &Obj, zero_first: bool) -> PyRes<Option<usize>> {
    if !n.is_exact_int() {
        let zero = Obj::int(0)?;
        if zero_first && n.equals(&zero)? {
            return Ok(Some(0));
        }
        if n.less_than(&zero)? {
            return Ok(None);
        }
    }
    match n.as_i64() {
        Ok(n) => Ok(usize::try_from(n).ok()),
        Err(raised) if raised.is(Builtin::Overflow) => {
            raised.discard();
            Ok((!n.less_than(&Obj::int(0)?)?).then_some(usize::MAX))
        }
        Err(raised) => Err(raised),
    }
}

/// `StreamReader.readexactly`.
pub(super) struct ReadExactly {
    /// The reader.
    reader: Ref<StreamReader>,
    /// How much is read, as it was given.
    n: Obj,
    /// How much is read.
    count: usize,
    /// The wait.
    pending: Pending,
}

impl ReadExactly {
    /// `readexactly(n)`.
    #[inline]
    pub(super) fn new(reader: Ref<StreamReader>, n: &Obj) -> Self {
        Self {
            reader,
            n: n.clone(),
            count: 0,
            pending: Pending::Nothing,
        }
    }
}

impl Machine for ReadExactly {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Pending::Nothing = self.pending {
            let Some(count) = bounded(&self.n, false)? else {
                return Err(Raised::value_error(
                    "readexactly size can not be less than zero",
                ));
            };
            self.reader.check_exception()?;
            if count == 0 {
                return Obj::bytes(b"").map(Sent::Return);
            }
            self.count = count;
        } else if let Some(sent) = self.reader.go_on(&mut self.pending, input)? {
            return Ok(sent);
        }
        while self.reader.received.len()? < self.count {
            if self.reader.eof.get() {
                return self.reader.incomplete(&self.n);
            }
            let wanted = Wanted::Bytes(self.count);
            let sent = self.reader.wait(&mut self.pending, "readexactly", wanted)?;
            if let Some(sent) = sent {
                return Ok(sent);
            }
        }
        let data = self.reader.received.take(self.count)?;
        self.reader.after_read()?;
        Ok(Sent::Return(data))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.reader);
        visit.obj(&self.n);
        self.pending.traverse(visit);
    }

    fn awaits(&self) -> Option<Obj> {
        self.pending.awaits()
    }
}
