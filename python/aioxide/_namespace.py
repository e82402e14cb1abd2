"""How ``import aioxide as asyncio`` and ``aioxide.tasks`` get their names.

A module of the package holds the native names and nothing else. Whatever aioxide has no version
of is looked up in asyncio at the moment of use, so that there is never an outdated copy of it.
"""

import asyncio
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from aioxide import _aioxide
from aioxide._bindings import NOT_EXPORTED

#: Modules of asyncio that have a counterpart here. Any other is asyncio's own.
SUBMODULES = frozenset(
    {
        "base_events",
        "coroutines",
        "events",
        "exceptions",
        "futures",
        "locks",
        "queues",
        "runners",
        "sslproto",
        "staggered",
        "streams",
        "taskgroups",
        "tasks",
        "threads",
        "timeouts",
    }
)

_Names = tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]


def fill_package(package: dict[str, Any], *own: str) -> _Names:
    """Put the native names into the package; return its `__all__` and module hooks.

    `own` are names of the package that asyncio knows nothing of.
    """
    native: dict[str, Any] = {}
    for module, names in _aioxide.NAMES.items():
        if module in NOT_EXPORTED:
            continue
        stdlib = sys.modules.get(f"asyncio.{module}")
        for name in names:
            # asyncio's own, or of a later Python's asyncio. 3.11 forgot some in `__all__`.
            public = hasattr(asyncio, name) or not hasattr(stdlib, name)
            if name in asyncio.__all__ or (public and not name.startswith("_")):
                native[name] = getattr(_aioxide, name)
    return _fill(package, asyncio, native, own)


def fill_submodule(submodule: dict[str, Any]) -> _Names:
    """Do the same for one of `SUBMODULES`."""
    name = submodule["__name__"].rpartition(".")[2]
    names = _aioxide.NAMES.get(name, ())
    native = {name: getattr(_aioxide, name) for name in names}
    return _fill(submodule, importlib.import_module(f"asyncio.{name}"), native, ())


def _fill(module: dict[str, Any], stdlib: ModuleType, native: dict[str, Any], own: tuple[str, ...]) -> _Names:
    """Put `native` into `module`; make what finds everything else in `stdlib`."""
    # What the module has defined itself goes first.
    module |= {name: value for name, value in native.items() if name not in module}
    public = getattr(stdlib, "__all__", ())
    offered = [name for name in native if not name.startswith("_")]

    def __getattr__(name: str) -> Any:
        if module["__name__"] == "aioxide" and name in SUBMODULES:
            return importlib.import_module(f"aioxide.{name}")
        try:
            return getattr(stdlib, name)
        except AttributeError:
            text = f"module {module['__name__']!r} has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=sys.modules[module["__name__"]]) from None

    def __dir__() -> list[str]:
        return sorted({*module, *dir(stdlib)})

    return [*dict.fromkeys([*public, *offered, *own])], __getattr__, __dir__
