"""The stdlib's ``asyncio.all_tasks()`` sees native tasks too, on Python 3.11 to 3.13.

Up to 3.13 asyncio keeps its tasks in a `weakref.WeakSet`. To register a native task there would
cost more than the rest of making it; so the set is left alone and only looks larger: its
*class* is exchanged for one whose iteration also yields `_aioxide._native_tasks()`. Its contents,
the `data` that profilers read, its pending removals and the callbacks of its weak references stay
what they are, nothing is copied and no moment exists in which a task could get lost; `add` and
`discard`, which asyncio calls from C, are the inherited ones.

From 3.14 on native tasks are in CPython's own list, and nothing here does anything.
"""

import asyncio.tasks
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast
from weakref import WeakSet

from aioxide import _aioxide

_lock = threading.Lock()


class _WithNativeTasks(WeakSet[Any]):
    """A `WeakSet` of tasks in which the native ones seem to be contained.

    No instance is ever made: a set becomes one by assignment to its ``__class__``.
    """

    def __new__(cls, data: Any = None) -> Any:
        # `copy()`, `|`, `&` and the like call the class; what they make is an ordinary set.
        return WeakSet(() if data is None else data)

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield from self._unregistered()

    def __len__(self) -> int:
        return super().__len__() + sum(1 for _ in self._unregistered())

    def __contains__(self, item: object) -> bool:
        return super().__contains__(item) or any(item is task for task in _native_tasks())

    def _unregistered(self) -> Iterator[Any]:
        """Yield the native tasks that nobody has put into the set itself."""
        registered = super().__contains__
        return (task for task in _native_tasks() if not registered(task))


def _native_tasks() -> list[Any]:
    # Looked up at each call: the list is made anew each time.
    return cast("list[Any]", _aioxide._native_tasks())


def _registry() -> WeakSet[Any] | None:
    """Return the set in which asyncio keeps its tasks, if this version has one."""
    name = "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
    return None if sys.version_info >= (3, 14) else getattr(asyncio.tasks, name)


def link_stdlib_registry() -> bool:
    """Let `asyncio.all_tasks` see native tasks. Tell whether it does so by this registry."""
    registry = _registry()
    with _lock:
        # Any other class is somebody else's doing, and theirs to keep.
        if type(registry) is WeakSet:
            registry.__class__ = _WithNativeTasks
        return type(registry) is _WithNativeTasks


def unlink_stdlib_registry() -> None:
    """Give asyncio's registry back the class it had."""
    registry = _registry()
    with _lock:
        if type(registry) is _WithNativeTasks:
            registry.__class__ = WeakSet  # type: ignore[assignment]
