"""Where asyncio's names are bound, and which native object stands for which of them.

asyncio copies its own names about: ``asyncio.sleep``, ``asyncio.tasks.sleep`` and
``asyncio.streams.sleep`` are three bindings of one object, ``tasks.Task``, ``tasks._CTask`` and
``asyncio.Task`` another three. So bindings are found by what they hold, never by a list of
places: a binding is ours to change when it *is* the stdlib's object. That also leaves alone what
somebody else put there.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from aioxide import _aioxide

#: Names that decide which loop a program gets. The loop level looks after them.
LOOP_NAMES = frozenset({"EventLoop", "Loop", "SelectorEventLoop", "new_event_loop"})

#: The stdlib keeps its pure-Python twins and its own loop class under these prefixes. Others
#: (tests, third-party loops) ask for exactly those, so they are never rebound.
_PRIVATE_TWINS = ("_Py", "_py_", "_Unix")

#: Classes that user code derives from or catches. They are shared, whatever a name list says.
_SHARED_CLASSES = frozenset({"AbstractEventLoop", "AbstractServer", "BaseEventLoop"})
_SHARED_MODULES = frozenset({"asyncio.exceptions", "asyncio.protocols", "asyncio.transports"})

#: Modules of asyncio whose names the package does not have.
NOT_EXPORTED = frozenset({"sslproto", "staggered"})


class _Absent:
    """What stands for the stdlib's object where this version has none."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """A stdlib object and the native one that stands for it.

    `stdlib` is `ABSENT` for a name of a later Python's asyncio.
    """

    #: The asyncio module that defines the name, without ``asyncio.``.
    module: str
    name: str
    stdlib: object
    native: object

    def __str__(self) -> str:
        return f"asyncio.{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One place that holds the stdlib's object of a replacement, or held it."""

    owner: ModuleType | type
    name: str
    replacement: Replacement

    def bind(self) -> None:
        """Put the native object there, if the stdlib's is still there."""
        self._exchange(self.replacement.stdlib, self.replacement.native)

    def restore(self) -> None:
        """Put the stdlib's object back, if the native one is still there."""
        self._exchange(self.replacement.native, self.replacement.stdlib)

    def _exchange(self, expected: object, value: object) -> None:
        names = namespace(self.owner)
        if names.get(self.name, ABSENT) is not expected:
            return
        if isinstance(self.owner, type):
            setattr(self.owner, self.name, value)
        elif value is ABSENT:
            del names[self.name]
        else:
            # Not setattr: a module class of its own may forbid it or react to it.
            names[self.name] = value


def namespace(owner: ModuleType | type) -> dict[str, Any]:
    """Return the dict of a module or class without waking up a lazily loaded module."""
    # isinstance() would ask for `__class__`, and a lazy module wakes up on any attribute.
    if issubclass(type(owner), type):
        return dict(vars(owner))
    found: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    return found


def asyncio_modules() -> dict[str, ModuleType]:
    """Return the asyncio package and its submodules that are imported, by full name."""
    return {
        name: module
        for name, module in _modules()
        if name.partition(".")[0] == "asyncio" and name != "asyncio.__main__"
    }


def importing_modules() -> dict[str, ModuleType]:
    """Return every other module; those of asyncio's own and of aioxide left out."""
    own = {"_asyncio", "asyncio", "aioxide"}
    return {name: module for name, module in _modules() if name.partition(".")[0] not in own}


def _modules() -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        # `type(...)` and not isinstance: some stand-ins lie about their class.
        if issubclass(type(module), ModuleType):
            yield name, module


def replacements() -> list[Replacement]:
    """Pair every native name with the stdlib object it stands for, loop names left out.

    A name is passed over when the stdlib lacks it, when both are the same object, when it is
    shared by design, or when nothing of the stdlib's is bound to it any more.
    """
    modules = asyncio_modules()
    found = []
    for module, names in _aioxide.NAMES.items():
        home = modules.get(f"asyncio.{module}")
        if home is None:
            continue
        for name in names:
            native = getattr(_aioxide, name)
            if name in LOOP_NAMES:
                continue
            stdlib = stdlib_object(name, native, [home, asyncio, *modules.values()])
            if stdlib is not None:
                found.append(Replacement(module, name, stdlib, native))
    return found


def additions() -> list[Replacement]:
    """Return the native names that a later Python's asyncio has and this one lacks."""
    modules = asyncio_modules()
    found = []
    for module, names in _aioxide.NAMES.items():
        home = modules.get(f"asyncio.{module}")
        for name in names:
            if home is not None and not name.startswith("_") and name not in namespace(home):
                found.append(Replacement(module, name, ABSENT, getattr(_aioxide, name)))
    return found


def places_of(addition: Replacement) -> list[Binding]:
    """Return where a name of a later Python belongs: its module, and the package."""
    modules = asyncio_modules()
    owners = [modules[f"asyncio.{addition.module}"]]
    if addition.module not in NOT_EXPORTED:
        owners.append(asyncio)
    return [Binding(owner, addition.name, addition) for owner in owners]


def stdlib_object(name: str, native: object, modules: Iterable[ModuleType]) -> object | None:
    """Return what the stdlib itself defines under `name`, wherever it is still bound."""
    values = [namespace(module).get(name) for module in modules]
    # A native object may name an asyncio module as its own.
    return next((v for v in values if v is not native and is_replaceable(v)), None)


def is_replaceable(value: Any) -> bool:
    """Tell whether `value` is a function or class that asyncio defined and that is not shared."""
    # Exact types: a proxy that wraps a function claims to be one.
    if type(value) is FunctionType:
        # `__module__` is what functools.wraps copies to a wrapper; the globals are not.
        return _of_asyncio(value.__globals__.get("__name__"))
    if type(value) is BuiltinFunctionType:
        return _of_asyncio(value.__module__)
    return isinstance(value, type) and _of_asyncio(value.__module__) and not is_shared_class(value)


def is_shared_class(value: type) -> bool:
    """Tell whether a class of asyncio has to stay the stdlib's own."""
    return issubclass(value, BaseException) or value.__module__ in _SHARED_MODULES or value.__name__ in _SHARED_CLASSES


def _of_asyncio(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in {"asyncio", "_asyncio"}


def holding_stdlib(wanted: Iterable[Replacement], modules: Iterable[ModuleType]) -> Iterator[Binding]:
    """Find every binding in `modules` that is the stdlib's object of one of `wanted`."""
    by_identity = {id(replacement.stdlib): replacement for replacement in wanted}
    for module in modules:
        for name, value in list(namespace(module).items()):
            replacement = by_identity.get(id(value))
            if replacement is not None and not name.startswith(_PRIVATE_TWINS):
                yield Binding(module, name, replacement)


def holding_native(wanted: Iterable[Replacement], modules: Iterable[ModuleType]) -> Iterator[Binding]:
    """Find every binding in `modules` that is the native object of one of `wanted`."""
    by_identity: dict[int, list[Replacement]] = {}
    for replacement in wanted:
        by_identity.setdefault(id(replacement.native), []).append(replacement)
    for module in modules:
        for name, value in list(namespace(module).items()):
            # One native object may stand for two of the stdlib's: the name decides. What was
            # added has no name but its own.
            candidates = by_identity.get(id(value), [])
            named = [candidate for candidate in candidates if candidate.name == name]
            others = [candidate for candidate in candidates if candidate.stdlib is not ABSENT]
            for candidate in (named or others)[:1]:
                yield Binding(module, name, candidate)
