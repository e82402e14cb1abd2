"""Hosts that prefer another loop to asyncio's, and hosts whose workers are Pythons of their own.

uvicorn, gunicorn's ASGI worker and granian call it ``auto``, which is also their default: uvloop,
or rloop, wherever that can be imported, asyncio's loop otherwise. While aioxide is installed,
``auto`` is asyncio's loop, which is native then. Who names a loop gets it, as ever.

Each of them decides in one place, and that is changed right after the module it is in has been
imported. What is put there asks whether aioxide is installed whenever it is called, so that
`uninstall()` takes effect at once. A host that has moved the place is left as it is.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The folder is no package: this is the module that children run, under a name that does nothing.
from aioxide._bootstrap.sitecustomize import Loader


class _Hosts:
    """Finds the modules in which hosts decide, and changes them while aioxide is installed."""

    def __init__(self) -> None:
        #: Whether ``auto`` is asyncio's loop.
        self.installed = False
        #: Whether to warn of workers that are Pythons of their own and know nothing of aioxide.
        self.warns = False
        #: The modules that have been changed.
        self._changed: dict[str, ModuleType] = {}

    def install(self) -> None:
        self.installed = True
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        for name in _PLACES:
            module = sys.modules.get(name)
            # A module that is being imported right now has been found already.
            if module is not None and self._changed.get(name) is not module:
                self._change(module)

    def uninstall(self) -> None:
        self.installed = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def names(self) -> tuple[str, ...]:
        """Name the hosts that decide for asyncio's loop now, as far as they are imported."""
        return tuple(sorted({name.partition(".")[0] for name in self._changed if name in _CHOICES and self.installed}))

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of a host as usual, with a loader that changes it afterwards."""
        if name not in _PLACES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None and (spec := find(name, path, target)) is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = Loader(spec.loader, self._change)  # type: ignore[no-untyped-call]
                found: ModuleSpec = spec
                return found
        return None

    def _change(self, module: ModuleType) -> None:
        try:
            _PLACES[module.__name__](module)
        except AttributeError:
            return
        self._changed[module.__name__] = module


_hosts = _Hosts()
install, uninstall, names = _hosts.install, _hosts.uninstall, _hosts.names


def warn_of_workers() -> None:
    """Warn from now on when a host starts Pythons that know nothing of aioxide."""
    _hosts.warns = True


def _uvicorn(auto: Any) -> None:
    chosen = auto.auto_loop_factory

    @wraps(chosen)
    def auto_loop_factory(*arguments: Any, **keywords: Any) -> Any:
        if not _hosts.installed:
            return chosen(*arguments, **keywords)
        from uvicorn.loops.asyncio import asyncio_loop_factory

        return asyncio_loop_factory(*arguments, **keywords)

    auto.auto_loop_factory = auto_loop_factory


def _gunicorn(gasgi: Any) -> None:
    set_up = gasgi.ASGIWorker._setup_event_loop

    @wraps(set_up)
    def _setup_event_loop(worker: Any) -> None:
        if _hosts.installed and worker.cfg.asgi_loop == "auto":
            worker.cfg.set("asgi_loop", "asyncio")
        set_up(worker)

    gasgi.ASGIWorker._setup_event_loop = _setup_event_loop


def _granian(module: Any) -> None:
    loops, chosen = module.loops, module.build_auto_loop

    @wraps(chosen)
    def build_auto_loop() -> Any:
        return loops.get("asyncio") if _hosts.installed else chosen()

    loops.register("auto")(build_auto_loop)


#: Where hosts decide what ``auto`` is.
_CHOICES: dict[str, Callable[[Any], None]] = {
    "granian._loops": _granian,
    "gunicorn.workers.gasgi": _gunicorn,
    "uvicorn.loops.auto": _uvicorn,
}


def _warning(*path: str) -> Callable[[Any], None]:
    """Return what makes a function or method of a module warn of the Pythons that it starts."""

    def change(module: Any) -> None:
        *owners, name = path
        owner = module
        for each in owners:
            owner = getattr(owner, each)
        start = getattr(owner, name)

        @wraps(start)
        def warn(*arguments: Any, **keywords: Any) -> Any:
            # Granian forks where that is what multiprocessing does.
            forks = arguments and getattr(arguments[0], "_spawn_method", None) == "fork"
            if _hosts.warns and _hosts.installed and not forks:
                host = module.__name__.partition(".")[0]
                warnings.warn(
                    f"{host} starts new Pythons here, in which nothing is native: python -m aioxide --children "
                    "reaches them.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return start(*arguments, **keywords)

        setattr(owner, name, warn)

    return change


#: Where hosts start workers that are new interpreters.
_WORKERS: dict[str, Callable[[Any], None]] = {
    "distributed.nanny": _warning("WorkerProcess", "start"),
    "granian.server.mp": _warning("WorkerProcess", "_spawn"),
    "hypercorn.run": _warning("_populate"),
    "uvicorn._subprocess": _warning("get_subprocess"),
}

_PLACES = _CHOICES | _WORKERS
