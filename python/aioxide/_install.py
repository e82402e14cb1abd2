"""`install()`, `uninstall()` and `status()`: asyncio's own names, bound to native objects.

Two layers, each applied and taken back on its own:

* *loop*: new loops are native. The default event loop policy is given another loop class, which
  outlives `set_event_loop_policy(None)`; a policy that a program sets is obeyed as before.
  `asyncio.new_event_loop` itself is left alone: it asks the policy, as programs expect of it.
  On a Python without policies there is nobody to ask, and it is replaced.
* *names*: `Task`, `sleep`, `Lock` and whatever else is native, and the names of later Pythons
  (`QueueShutDown` on 3.12, say), which are added to asyncio.

And what hosts call ``auto`` is asyncio's loop: see `aioxide._hosts`.

Nothing is changed but a binding that is the stdlib's object, and nothing is restored but one that
is still ours. So `uninstall()` may come before or after others take back their patches. One case
cannot be seen from here: somebody patches over a native object, `uninstall()` leaves that alone,
and then they put "the original" back. Another `uninstall()` clears it.

What starts a program's interpreters (a ``.pth`` file, ``sitecustomize``) should be ready for one
in which the extension module cannot be imported, such as a subinterpreter::

    try:
        import aioxide
    except ImportError:
        pass
    else:
        aioxide.install()
"""

import asyncio
import threading
from asyncio import events, tasks, unix_events
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

from aioxide import _aioxide, _children, _hosts
from aioxide._bindings import (
    ABSENT,
    LOOP_NAMES,
    Binding,
    Replacement,
    additions,
    asyncio_modules,
    holding_native,
    holding_stdlib,
    importing_modules,
    is_replaceable,
    is_shared_class,
    namespace,
    places_of,
    replacements,
    stdlib_object,
)
from aioxide._selector_event_loop import SelectorEventLoop, StdlibLoop
from aioxide._status import Level, StaleReference, Status

_NEST_ASYNCIO = (
    "nest_asyncio has replaced asyncio's Task and Future by the pure-Python ones and patched the "
    "loop's internals, which a native loop does not have. Remove the call of nest_asyncio.apply() "
    "(or make it conditional), then call aioxide.install()."
)


#: Functions and classes of asyncio that know native loops, tasks and futures as they know their own.
_GOOD_FOR_BOTH = frozenset(
    {
        "FrameCallGraphEntry",
        "FutureCallGraph",
        "Server",
        "_enter_task",
        "_get_running_loop",
        "_leave_task",
        "_register_task",
        "_set_running_loop",
        "_unregister_task",
        "all_tasks",
        "capture_call_graph",
        "current_task",
        "format_call_graph",
        "future_add_to_awaited_by",
        "future_discard_from_awaited_by",
        "get_event_loop",
        "get_running_loop",
        "iscoroutine",
        "iscoroutinefunction",
        "print_call_graph",
        "set_event_loop",
    }
)

#: Replacements by their name in full.
_Layer: TypeAlias = dict[str, Replacement]


class _Installation:
    """What is installed in this interpreter."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._level: Literal["none", "loop", "full"] = "none"
        #: The replacements of each layer in force, by name.
        self._loop: _Layer = {}
        self._names: _Layer = {}
        #: All there ever were, to know a native object that comes back after `uninstall()`.
        self._known: _Layer = {}
        #: Changed outside of asyncio: policy classes, and modules that import from asyncio.
        self._elsewhere: list[Binding] = []

    def install(self, level: Level, rebind_importers: bool, children: bool) -> None:
        if level not in get_args(Level):
            raise ValueError(f"level must be 'full' or 'loop', not {level!r}")
        with self._lock:
            if _is_nest_asyncio_active():
                raise RuntimeError(_NEST_ASYNCIO)
            if self._level == "none":
                self._take_back(self._known)
                loop, self._elsewhere = _loop_layer()
                self._loop = _layer(loop)
            if level == "full":
                # A second call finds what has become the stdlib's again since the first.
                self._names |= _layer([*replacements(), *_names_of_later_pythons()])
            else:
                self._take_back(self._names)
                self._names = {}
            self._level = level
            self._known |= self._loop | self._names
            bindings = list(holding_stdlib(self._in_force(), asyncio_modules().values()))
            for replacement in self._in_force():
                if replacement.stdlib is ABSENT:
                    bindings += places_of(replacement)
            if rebind_importers:
                others = importing_modules().values()
                self._elsewhere += holding_stdlib(self._in_force(), others)
            for binding in bindings + self._elsewhere:
                binding.bind()
            if children or _children.level() is not None:
                _children.reach(level)
            _hosts.install()

    def uninstall(self) -> None:
        with self._lock:
            if self._level != "none":
                _children.leave()
            _hosts.uninstall()
            self._take_back(self._known)
            self._loop, self._names, self._level = {}, {}, "none"

    def _in_force(self) -> list[Replacement]:
        return [*self._loop.values(), *self._names.values()]

    def _take_back(self, layer: _Layer) -> None:
        """Restore every binding that a layer has changed and that still is what it made it."""
        # Found by identity, so that modules of asyncio imported since then are there too.
        bindings = holding_native(layer.values(), asyncio_modules().values())
        taken = {id(replacement) for replacement in layer.values()}
        elsewhere = [item for item in self._elsewhere if id(item.replacement) in taken]
        self._elsewhere = [item for item in self._elsewhere if id(item.replacement) not in taken]
        for binding in [*bindings, *elsewhere]:
            binding.restore()

    def status(self) -> Status:
        with self._lock:
            modules = asyncio_modules()
            bound = list(holding_native(self._known.values(), modules.values()))
            stdlib = {id(b.replacement) for b in holding_stdlib(self._in_force(), modules.values())}
            overridden = [
                replacement
                for replacement in self._in_force()
                if id(replacement) in stdlib or _is_overridden(replacement)
            ]
            native = {str(binding.replacement) for binding in bound} - set(map(str, overridden))
            return Status(
                version=_aioxide.__version__,
                level=self._level,
                loops=source_of_loops(),
                native=tuple(sorted(native)),
                bindings=len(bound),
                added=tuple(sorted(str(item) for item in self._in_force() if item.stdlib is ABSENT)),
                overridden=tuple(sorted(map(str, overridden))),
                stale=tuple(
                    StaleReference(name, binding.name, str(binding.replacement))
                    for name, module in importing_modules().items()
                    for binding in holding_stdlib(self._in_force(), [module])
                ),
                stdlib=self._left_to_the_stdlib(),
                foreign_loops=tuple(sorted(_foreign_loops())),
                hosts=_hosts.names(),
                children=_children.level() or "none",
                advice=tuple(_advice()),
            )

    def _left_to_the_stdlib(self) -> dict[str, str]:
        natives = {id(replacement.native) for replacement in self._known.values()}
        taken = {replacement.name for replacement in self._in_force()}
        return {
            name: _reason(name, value, self._level)
            for name in sorted(asyncio.__all__)
            if name not in taken and id(value := getattr(asyncio, name)) not in natives
        }


def _layer(found: list[Replacement]) -> _Layer:
    return {str(replacement): replacement for replacement in found}


def _is_nest_asyncio_active() -> bool:
    # Without the C accelerators, `tasks._PyTask` is the ordinary Task.
    accelerated = hasattr(tasks, "_CTask")
    return hasattr(asyncio, "_nest_patched") or (
        accelerated and namespace(asyncio)["Task"] is namespace(tasks)["_PyTask"]
    )


def _names_of_later_pythons() -> list[Replacement]:
    found = additions()
    if "EventLoop" not in namespace(asyncio):
        found.append(Replacement("unix_events", "EventLoop", ABSENT, SelectorEventLoop))
    return found


def _foreign_loops() -> Iterator[str]:
    """Name the classes that derive from the stdlib's loop: theirs stay as they are."""
    unseen: list[type] = [StdlibLoop]
    while unseen:
        subclasses: list[type] = type.__subclasses__(unseen.pop())
        for subclass in subclasses:
            if subclass is not SelectorEventLoop:
                unseen.append(subclass)
                yield f"{subclass.__module__}.{subclass.__qualname__}"


def _advice() -> Iterator[str]:
    """Say what keeps the program from what `install()` is for, and what to do about it."""
    if _is_nest_asyncio_active():
        yield _NEST_ASYNCIO
    source = source_of_loops()
    if source not in ("aioxide", "asyncio"):
        yield (
            f"New loops come from {source}, which somebody has set as the event loop policy or put in the place of "
            "asyncio.new_event_loop. Remove that (a call of set_event_loop_policy(), of uvloop.install() and the "
            "like), or pass loop_factory=aioxide.new_event_loop to asyncio.run() or asyncio.Runner()."
        )
    running = events._get_running_loop()
    if running is not None and not isinstance(running, _aioxide.Loop):
        kind = type(running)
        yield (
            f"A {kind.__module__}.{kind.__qualname__} is running in this thread. It stays what it is: call "
            "aioxide.install() before the loop is made, or run the program with python -m aioxide."
        )


def _loop_layer() -> tuple[list[Replacement], list[Binding]]:
    """Return what makes new loops native: replaced names, and attributes of policy classes."""
    loop_class = Replacement("unix_events", "SelectorEventLoop", StdlibLoop, SelectorEventLoop)
    policies = [
        value
        for name, value in namespace(unix_events).items()
        if isinstance(value, type)
        and "_loop_factory" in namespace(value)
        # Not its aliases.
        and value.__name__ == name
    ]
    if policies:
        return [loop_class], [Binding(policy, "_loop_factory", loop_class) for policy in policies]
    # Python 3.16.
    native = _aioxide.new_event_loop
    factory = stdlib_object("new_event_loop", native, [events, asyncio])
    return [loop_class, *([Replacement("events", "new_event_loop", factory, native)] if factory else [])], []


def _is_overridden(replacement: Replacement) -> bool:
    """Tell whether others have bound something else to a name, where it is at home or public."""
    name, native = replacement.name, replacement.native
    home = namespace(asyncio_modules()[f"asyncio.{replacement.module}"])
    return home.get(name) is not native or namespace(asyncio).get(name, native) is not native


def source_of_loops() -> str:
    """Name what `asyncio.new_event_loop()` takes its loops from."""
    factory = namespace(events)["new_event_loop"]
    if factory is _aioxide.new_event_loop:
        return "aioxide"
    if not is_replaceable(factory):
        return f"{getattr(factory, '__module__', None)}.{getattr(factory, '__qualname__', repr(factory))}"
    default = namespace(unix_events).get("_UnixDefaultEventLoopPolicy")
    # Not by `get_event_loop_policy()`: that would make one, and may warn.
    policy = getattr(events, "_event_loop_policy", None)
    in_use = default if policy is None else type(policy)
    if getattr(in_use, "new_event_loop", None) is getattr(default, "new_event_loop", None):
        made_by = getattr(in_use, "_loop_factory", StdlibLoop)
        if made_by in (SelectorEventLoop, StdlibLoop):
            return "aioxide" if made_by is SelectorEventLoop else "asyncio"
    return f"{type(policy).__module__}.{type(policy).__qualname__}"


def _reason(name: str, value: object, level: str) -> str:
    """Say why a public name of asyncio is the stdlib's."""
    offered = any(name in names for names in _aioxide.NAMES.values())
    if isinstance(value, type) and is_shared_class(value):
        return "because user code derives from it or catches it"
    if not callable(value):
        return "because it is a constant"
    if offered and getattr(_aioxide, name) is value:
        return "because aioxide uses the same object"
    if name.lower().endswith(("policy", "childwatcher", "child_watcher")):
        return "because policies and child watchers end with Python 3.16"
    if name in _GOOD_FOR_BOTH:
        return "because it is right for native objects, too"
    if level == "none" and (offered or name in LOOP_NAMES):
        return "because aioxide is not installed"
    if name in LOOP_NAMES:
        return "because it asks the event loop policy"
    if offered:
        return "because others have patched it" if level == "full" else "because of the level"
    return "because there is no native one yet"


_installation = _Installation()


def install(level: Level = "full", *, rebind_importers: bool = False, children: bool = False) -> None:
    """Make an asyncio program run on native code.

    `level` says how much: ``"full"`` replaces every asyncio name that aioxide has a native
    version of and adds those of later Pythons, ``"loop"`` only lets new event loops be native
    ones (their tasks and futures are native then, too). Another call changes the level.

    A module that did ``from asyncio import sleep`` earlier holds the stdlib's `sleep` and keeps
    it, unless `rebind_importers` is true: then such names in all imported modules are replaced
    as well. `status()` lists them. Classes need it least: native tasks and futures are instances
    of the stdlib's classes.

    With `children`, the Pythons that this process starts do the same as soon as they import
    asyncio: subprocesses, and the processes of multiprocessing however they are started. It is
    done by the environment (``AIOXIDE_INSTALL``, and a folder on ``PYTHONPATH``), so it reaches
    their children, too, but none that ignores the environment (``python -I`` or ``-E``).

    Hosts that prefer another loop to asyncio's while they are told none (uvicorn, gunicorn's ASGI
    worker and granian: uvloop or rloop, where those are there) take asyncio's instead. A loop that
    is named is what its name says.

    Loops that exist already go on as they are. Safe to call from any thread.
    """
    _installation.install(level, rebind_importers, children)


def uninstall() -> None:
    """Undo `install()`: every binding that is still native becomes the stdlib's again.

    What was changed by others in the meantime is theirs and stays. Objects that exist already
    stay what they are. Does nothing if aioxide is not installed.
    """
    _installation.uninstall()


def status() -> Status:
    """Return what is native right now, what holds stale references and what is not native."""
    return _installation.status()
