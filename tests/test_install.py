"""`install()`, `uninstall()`, `status()`, and the namespace that `import aioxide` gives.

What these tests look at is the state of a whole interpreter, so each runs in a fresh one.
"""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest import TestCase

raises = TestCase().assertRaisesRegex


def isolated(test: Callable[[], None]) -> Callable[[], None]:
    """Let a test run in an interpreter of its own, where warnings are errors."""

    @functools.wraps(test)
    def in_a_fresh_interpreter() -> None:
        here = str(Path(__file__).parent)
        # Imported as a module, so that the program under test is somebody else's `__main__`.
        code = f"import sys; sys.path.insert(0, {here!r}); import test_install as t; "
        code += f"t.{test.__name__}.__wrapped__()"
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    # Fixtures are looked up in the signature; there are none.
    return in_a_fresh_interpreter


def bindings() -> dict[tuple[str, str], object]:
    """Return everything bound in asyncio and its submodules, policy classes included."""
    import asyncio.unix_events

    found: dict[tuple[str, str], object] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] == "asyncio":
            for name, value in vars(module).items():
                found[module_name, name] = value
    for name, value in vars(asyncio.unix_events).items():
        if isinstance(value, type) and "_loop_factory" in vars(value):
            found[name, "_loop_factory"] = vars(value)["_loop_factory"]
    return found


def changed(before: dict[tuple[str, str], object]) -> set[tuple[str, str]]:
    after = bindings()
    assert after.keys() == before.keys()
    return {place for place in before if before[place] is not after[place]}


def set_policy(policy: object) -> None:
    """Call `set_event_loop_policy`, which warns from 3.14 on."""
    from asyncio import events

    names = vars(events)
    (names.get("_set_event_loop_policy") or names["set_event_loop_policy"])(policy)


def module_from(name: str, source: str) -> Any:
    """Make and register a module, as a program would by importing it."""
    module: Any = ModuleType(name)
    sys.modules[name] = module
    exec(source, vars(module))
    return module


# Bindings in asyncio.


@isolated
def test_import_changes_nothing() -> None:
    import asyncio.staggered

    before = bindings()
    import aioxide  # noqa: F401

    assert changed(before) == set()
    assert asyncio.sleep is before["asyncio.tasks", "sleep"]


@isolated
def test_every_binding_of_a_native_name_changes_and_is_restored() -> None:
    import aioxide
    from aioxide import _aioxide

    before = bindings()
    pairs = {}
    for module, names in _aioxide.NAMES.items():
        for name in names:
            stdlib = before.get((f"asyncio.{module}", name))
            if name != "new_event_loop" and stdlib is not None:
                pairs[id(stdlib)] = getattr(_aioxide, name)
    aioxide.install()
    after = bindings()
    loops = {"SelectorEventLoop", "EventLoop", "_loop_factory"}
    for place, stdlib in before.items():
        if place[1].startswith(("_Py", "_py_", "_Unix")):
            assert after[place] is stdlib, place
        elif place[1] not in loops:
            assert after[place] is pairs.get(id(stdlib), stdlib), place
        else:
            assert after[place] is not stdlib, place
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_slots_of_the_c_classes_are_filled() -> None:
    import aioxide
    from aioxide import _aioxide

    aioxide.install()
    from asyncio import futures, tasks

    assert vars(tasks)["_CTask"] is _aioxide.Task is tasks.Task
    assert vars(futures)["_CFuture"] is _aioxide.Future is futures.Future
    for module in (futures, tasks):
        for name, value in vars(module).items():
            if name.startswith("_c_"):
                public = name.removeprefix("_c_")
                assert value in (vars(module).get(public), vars(module).get(f"_{public}"))


@isolated
def test_shared_classes_stay_the_stdlibs() -> None:
    import asyncio

    import aioxide

    names = [
        name
        for name in asyncio.__all__
        if isinstance(value := getattr(asyncio, name), type)
        and (
            issubclass(value, (BaseException, asyncio.BaseProtocol, asyncio.BaseTransport))
            or name in ("AbstractEventLoop", "AbstractServer", "BaseEventLoop")
        )
        # It is native, and an instance of the protocols all the same.
        and name != "StreamReaderProtocol"
    ]
    before = {name: getattr(asyncio, name) for name in names}
    aioxide.install()
    assert before == {name: getattr(asyncio, name) for name in names}


@isolated
def test_loop_level_changes_nothing_but_loops() -> None:
    import aioxide

    before = bindings()
    aioxide.install("loop")
    assert {name for _, name in changed(before)} <= {
        "EventLoop",
        "SelectorEventLoop",
        "_loop_factory",
        "new_event_loop",
    }
    assert changed(before) != set()
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_level_can_change_in_both_directions() -> None:
    import aioxide

    before = bindings()
    aioxide.install("loop")
    loop = changed(before)
    aioxide.install("full")
    full = changed(before)
    assert loop < full
    aioxide.install("loop")
    assert changed(before) == loop
    aioxide.uninstall()
    assert changed(before) == set()
    aioxide.install("full")
    assert changed(before) == full


@isolated
def test_unknown_level_is_refused() -> None:
    import aioxide

    level: Any = "half"
    with raises(ValueError, "'full' or 'loop', not 'half'"):
        aioxide.install(level)
    assert aioxide.status().level == "none"


@isolated
def test_install_and_uninstall_may_be_repeated() -> None:
    import aioxide

    before = bindings()
    aioxide.uninstall()
    aioxide.install()
    once = bindings()
    aioxide.install()
    assert changed(once) == set()
    aioxide.uninstall()
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_module_of_asyncio_imported_later_is_restored_too() -> None:
    import asyncio

    stdlib = asyncio.sleep
    import aioxide

    aioxide.install()
    late = module_from("asyncio.late", "from asyncio import sleep")
    assert late.sleep is asyncio.sleep is not stdlib
    aioxide.uninstall()
    assert late.sleep is asyncio.sleep is stdlib


@isolated
def test_threads_may_install_and_uninstall_at_will() -> None:
    import threading

    import aioxide

    before = bindings()
    failures: list[BaseException] = []

    def alternate(level: Any) -> None:
        try:
            for _ in range(50):
                aioxide.install(level)
                aioxide.status()
                aioxide.uninstall()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=alternate, args=(x,)) for x in ("full", "loop")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert changed(before) == set()


# Together with others who patch.


class Patcher:
    """Somebody who wraps `asyncio.sleep` and puts back what was there."""

    def patch(self) -> None:
        import asyncio

        self.original = original = asyncio.sleep

        @functools.wraps(original)
        async def sleep(delay: float) -> None:
            await original(delay)

        self.wrapper = asyncio.sleep = sleep  # type: ignore[assignment]

    def unpatch(self) -> None:
        import asyncio

        asyncio.sleep = self.original


@isolated
def test_patch_made_and_undone_while_installed() -> None:
    import aioxide

    before, other = bindings(), Patcher()
    aioxide.install()
    other.patch()
    other.unpatch()
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_patch_from_before_is_left_alone() -> None:
    import asyncio

    import aioxide

    before, other = bindings(), Patcher()
    other.patch()
    aioxide.install()
    assert asyncio.sleep is other.wrapper
    assert asyncio.tasks.sleep is aioxide.sleep
    assert aioxide.status().overridden == ("asyncio.tasks.sleep",)
    assert "asyncio.tasks.sleep" not in aioxide.status().native
    aioxide.uninstall()
    assert changed(before) == {("asyncio", "sleep")}
    other.unpatch()
    assert changed(before) == set()


@isolated
def test_patch_from_before_undone_while_installed() -> None:
    import asyncio

    import aioxide

    before, other = bindings(), Patcher()
    other.patch()
    aioxide.install()
    other.unpatch()
    assert asyncio.sleep is before["asyncio", "sleep"]
    aioxide.install()
    assert asyncio.sleep is aioxide.sleep
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_patch_over_a_native_name_outlives_uninstall() -> None:
    import asyncio

    import aioxide

    before, other = bindings(), Patcher()
    aioxide.install()
    other.patch()
    aioxide.uninstall()
    assert changed(before) == {("asyncio", "sleep")}
    assert asyncio.sleep is other.wrapper
    # What it puts back is native. That shows, and can be undone.
    other.unpatch()
    assert aioxide.status().native == ("asyncio.tasks.sleep",)
    aioxide.uninstall()
    assert changed(before) == set()
    assert aioxide.status().native == ()


@isolated
def test_patch_left_over_from_an_earlier_install() -> None:
    import aioxide

    before, other = bindings(), Patcher()
    aioxide.install()
    other.patch()
    aioxide.uninstall()
    other.unpatch()
    aioxide.install("loop")
    aioxide.uninstall()
    assert changed(before) == set()


@isolated
def test_nest_asyncio_is_refused() -> None:
    import asyncio

    import aioxide

    before = bindings()
    twins: Any = asyncio
    asyncio.Task = twins.tasks._PyTask  # type: ignore[misc]
    with raises(RuntimeError, r"Remove the call of nest_asyncio\.apply"):
        aioxide.install()
    asyncio.Task = twins.tasks.Task  # type: ignore[misc]
    assert changed(before) == set()
    twins._nest_patched = True
    with raises(RuntimeError, "nest_asyncio"):
        aioxide.install()
    assert aioxide.status().level == "none"


# Other modules.


@isolated
def test_early_imports_are_reported_and_kept() -> None:
    import asyncio

    early = module_from("early", "from asyncio import Lock, sleep as nap, TimeoutError")
    import aioxide
    from aioxide import _aioxide

    aioxide.install()
    late = module_from("late", "from asyncio import sleep")
    found = {str(reference) for reference in aioxide.status().stale}
    assert "early.nap is still the stdlib's asyncio.tasks.sleep" in found
    if "Lock" in _aioxide.NAMES.get("locks", ()):
        assert "early.Lock is still the stdlib's asyncio.locks.Lock" in found
    assert not any("late" in reference or "Timeout" in reference for reference in found)
    assert early.nap is not late.sleep is asyncio.sleep
    aioxide.uninstall()
    assert aioxide.status().stale == ()


@isolated
def test_early_imports_are_rebound_on_request() -> None:
    early = module_from("early", "from asyncio import sleep, SelectorEventLoop, Queue as Q")
    before = dict(vars(early))
    import aioxide

    aioxide.install()
    aioxide.install(rebind_importers=True)
    assert early.sleep is aioxide.sleep
    assert early.SelectorEventLoop is aioxide.SelectorEventLoop
    assert early.Q is aioxide.Queue
    assert not [item for item in aioxide.status().stale if item.module == "early"]
    aioxide.install("loop")
    assert early.sleep is before["sleep"]
    assert early.SelectorEventLoop is aioxide.SelectorEventLoop
    aioxide.install("full", rebind_importers=True)
    early.sleep = None
    aioxide.uninstall()
    assert vars(early) == {**before, "sleep": None}


@isolated
def test_lazy_modules_stay_unloaded() -> None:
    import importlib.util

    spec = importlib.util.find_spec("colorsys")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules["colorsys"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import aioxide

    aioxide.install(rebind_importers=True)
    aioxide.status()
    assert "rgb_to_hsv" not in object.__getattribute__(module, "__dict__")
    aioxide.uninstall()


# Which loop a program gets.


@isolated
def test_new_loops_are_native_at_both_levels() -> None:
    import asyncio

    import aioxide

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    levels: tuple[Literal["loop", "full"], ...] = ("loop", "full")
    for level in levels:
        aioxide.install(level)
        assert aioxide.status().loops == "aioxide"
        assert isinstance(asyncio.run(running()), aioxide.Loop)
        with asyncio.Runner() as runner:
            assert isinstance(runner.get_loop(), aioxide.Loop)
        loop = asyncio.new_event_loop()
        assert isinstance(loop, aioxide.Loop)
        loop.close()
    aioxide.uninstall()
    assert not isinstance(asyncio.run(running()), aioxide.Loop)


@isolated
def test_reset_of_the_policy_does_not_matter() -> None:
    import asyncio

    import aioxide

    asyncio.new_event_loop().close()
    aioxide.install()
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert isinstance(loop, aioxide.Loop)
        loop.close()
        set_policy(None)
    aioxide.uninstall()
    loop = asyncio.new_event_loop()
    assert not isinstance(loop, aioxide.Loop)
    loop.close()


@isolated
def test_policy_of_the_program_is_obeyed() -> None:
    import asyncio
    from asyncio import unix_events

    import aioxide

    default = vars(unix_events).get("_UnixDefaultEventLoopPolicy")
    if default is None:
        return
    stdlib = vars(unix_events)["_UnixSelectorEventLoop"]

    def new_event_loop(self: object) -> Any:
        return stdlib()

    policy = type("Policy", (default,), {"new_event_loop": new_event_loop})
    aioxide.install()
    set_policy(policy())
    assert aioxide.status().loops == "test_install.Policy"
    loop = asyncio.new_event_loop()
    assert type(loop) is stdlib
    loop.close()
    # One that only inherits gets native loops.
    set_policy(type("Heir", (default,), {})())
    assert aioxide.status().loops == "aioxide"
    loop = asyncio.new_event_loop()
    assert isinstance(loop, aioxide.Loop)
    loop.close()


@isolated
def test_without_policies_the_factory_is_replaced() -> None:
    import asyncio
    from asyncio import events, unix_events

    for name, value in list(vars(unix_events).items()):
        if isinstance(value, type) and "_loop_factory" in vars(value):
            delattr(unix_events, name)

    def new_event_loop() -> Any:
        raise AssertionError("the factory of a Python without policies")

    stdlib: Any = new_event_loop
    asyncio.new_event_loop = events.new_event_loop = stdlib
    import aioxide

    assert aioxide.status().level == "none"
    aioxide.install("loop")
    assert events.new_event_loop is asyncio.new_event_loop is aioxide.new_event_loop
    assert aioxide.status().loops == "aioxide"
    loop = asyncio.new_event_loop()
    assert isinstance(loop, aioxide.Loop)
    loop.close()
    aioxide.install("full")
    aioxide.uninstall()
    assert events.new_event_loop is asyncio.new_event_loop is stdlib


@isolated
def test_selector_event_loop_is_native() -> None:
    import asyncio
    import selectors

    import aioxide

    stdlib = asyncio.SelectorEventLoop
    aioxide.install("loop")
    assert asyncio.SelectorEventLoop is aioxide.SelectorEventLoop is not stdlib
    selector = selectors.SelectSelector()
    for loop in (asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop(selector)):
        assert isinstance(loop, aioxide.Loop)
        assert isinstance(loop, asyncio.SelectorEventLoop)
        loop.close()
    if hasattr(selectors, "EpollSelector"):
        epoll = selectors.EpollSelector()
        asyncio.SelectorEventLoop(epoll).close()
        # Closed with the loop, as by the stdlib's.
        with raises(ValueError, "closed"):
            epoll.fileno()
    with raises(TypeError, "argument"):
        asyncio.SelectorEventLoop(None, None)  # type: ignore[call-arg]
    assert issubclass(asyncio.SelectorEventLoop, asyncio.BaseEventLoop)
    assert issubclass(aioxide.Loop, asyncio.SelectorEventLoop)
    assert not isinstance(None, asyncio.SelectorEventLoop)
    loop = stdlib()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()


@isolated
def test_selector_of_somebody_else_gets_the_stdlibs_loop() -> None:
    import asyncio
    import os
    import selectors

    import aioxide

    stdlib = asyncio.SelectorEventLoop
    aioxide.install()

    class Toolkit(selectors.SelectSelector):
        """Does work of its own while it waits."""

    loop = asyncio.SelectorEventLoop(Toolkit())
    assert type(loop) is stdlib
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    # One that somebody is using already is theirs, too.
    read, write = os.pipe()
    busy = selectors.SelectSelector()
    busy.register(read, selectors.EVENT_READ)
    loop = asyncio.SelectorEventLoop(busy)
    assert type(loop) is stdlib
    loop.close()
    os.close(read)
    os.close(write)


@isolated
def test_subclass_of_selector_event_loop_is_the_stdlibs() -> None:
    import asyncio
    from abc import ABC

    stdlib = asyncio.SelectorEventLoop
    import aioxide

    aioxide.install()

    class Mixin:
        """Somebody's methods."""

    class Loop(Mixin, asyncio.SelectorEventLoop):
        def __init__(self, answer: int, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.answer = answer

        def __init_subclass__(cls, colour: str = "") -> None:
            cls.colour = colour

        def which(self) -> type:
            return __class__  # type: ignore[name-defined, no-any-return]

        colour = ""

    class Heir(Loop, colour="red"):
        pass

    class Abstract(ABC, asyncio.SelectorEventLoop):
        pass

    assert Loop.__mro__[:3] == (Loop, Mixin, stdlib)
    assert (type(Loop), type(Abstract)) == (type, type(ABC))
    assert Loop.__qualname__.endswith("<locals>.Loop")
    assert Heir.colour == "red"
    for subclass in (Loop, Heir):
        loop = subclass(42)
        assert (loop.answer, loop.which()) == (42, Loop)
        assert isinstance(loop, asyncio.SelectorEventLoop)
        assert isinstance(loop, stdlib)
        assert loop.run_until_complete(asyncio.sleep(0, "slept")) == "slept"
        loop.close()
    aioxide.uninstall()
    loop = Loop(1)
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()


# status()


@isolated
def test_status_tells_what_is_native() -> None:
    import asyncio

    import aioxide

    none = aioxide.status()
    assert (none.version, none.level) == (aioxide.__version__, "none")
    assert (none.loops, none.native, none.bindings, none.stale) == ("asyncio", (), 0, ())
    before = bindings()
    aioxide.install()
    full = aioxide.status()
    assert (full.level, full.loops, full.overridden) == ("full", "aioxide", ())
    assert {"asyncio.tasks.Task", "asyncio.tasks.sleep"} <= set(full.native)
    assert full.bindings == len([p for p in changed(before) if p[1] != "_loop_factory"])
    # Every public name is either native, and only that, or has its reason.
    names = {name.rpartition(".")[2] for name in full.native}
    aliases = {"EventLoop"}
    assert set(asyncio.__all__) - names - set(full.stdlib) <= aliases
    assert not names & set(full.stdlib)
    assert "derives" in full.stdlib["BaseEventLoop"]
    assert "constant" in full.stdlib["FIRST_COMPLETED"]
    aioxide.install("loop")
    assert aioxide.status().native == ("asyncio.unix_events.SelectorEventLoop",)
    assert "level" in aioxide.status().stdlib["sleep"]


@isolated
def test_status_reads_well() -> None:
    module_from("early", "from asyncio import sleep")
    import aioxide

    assert str(aioxide.status()).startswith(f"aioxide {aioxide.__version__} on Python 3.")
    assert "not installed" in str(aioxide.status())
    aioxide.install()
    lines = str(aioxide.status()).splitlines()
    assert lines[0].endswith("installed, level 'full'")
    assert lines[1] == "new loops come from: aioxide"
    assert "  early.sleep is still the stdlib's asyncio.tasks.sleep" in lines
    assert any(line.startswith("  ") and "asyncio.tasks.sleep," in line for line in lines)


# The namespace.


@isolated
def test_package_is_the_asyncio_namespace() -> None:
    import asyncio
    import importlib

    from aioxide import _aioxide

    aioxide: Any = importlib.import_module("aioxide")
    own = {"Loop", "install", "new_event_loop", "status", "uninstall"}
    assert set(asyncio.__all__) | own <= set(aioxide.__all__)
    native = {name for names in _aioxide.NAMES.values() for name in names}
    for name in aioxide.__all__:
        value = getattr(aioxide, name)
        if name in native or name in own:
            assert name in ("install", "status", "uninstall") or value is getattr(_aioxide, name)
        elif name not in ("EventLoop", "SelectorEventLoop"):
            assert value is getattr(asyncio, name)
    assert set(aioxide.__all__) <= set(dir(aioxide))
    star: dict[str, Any] = {}
    exec("from aioxide import *", star)
    assert star["sleep"] is aioxide.sleep
    with raises(AttributeError, "module 'aioxide' has no attribute 'nonsense'"):
        aioxide.nonsense


@isolated
def test_submodules_have_the_names_of_asyncios() -> None:
    import asyncio
    import importlib.util

    from aioxide import _aioxide

    aioxide: Any = importlib.import_module("aioxide")
    # Without an import, as in asyncio.
    tasks = aioxide.tasks
    assert tasks.__name__ == "aioxide.tasks"
    assert tasks._PyTask is vars(asyncio.tasks)["_PyTask"]
    for name, names in _aioxide.NAMES.items():
        if importlib.util.find_spec(f"aioxide.{name}") is None:
            continue
        module = importlib.import_module(f"aioxide.{name}")
        stdlib = importlib.import_module(f"asyncio.{name}")
        assert set(getattr(stdlib, "__all__", ())) <= set(module.__all__)
        for native in names:
            assert getattr(module, native) is getattr(_aioxide, native)
        with raises(AttributeError, f"module 'aioxide.{name}' has no attribute 'nonsense'"):
            module.nonsense
    assert aioxide.sslproto is asyncio.sslproto


@isolated
def test_other_names_are_never_copied() -> None:
    import asyncio

    import aioxide

    sentinel: Any = object()
    asyncio.BaseEventLoop = sentinel  # type: ignore[misc]
    assert aioxide.BaseEventLoop is sentinel


@isolated
def test_import_fails_where_the_extension_does() -> None:
    import asyncio

    # As in a second interpreter.
    sys.modules["aioxide._aioxide"] = None  # type: ignore[assignment]
    before = bindings()
    with raises(ImportError, "_aioxide"):
        import aioxide
    # What `_install` recommends to start an interpreter with.
    try:
        import aioxide
    except ImportError:
        pass
    else:
        aioxide.install()
    assert changed(before) == set()
    asyncio.run(asyncio.sleep(0))


# The registry of tasks up to Python 3.13.


@isolated
def test_stdlib_registry_shows_native_tasks() -> None:
    import asyncio
    import gc
    from weakref import WeakSet

    from aioxide import _aioxide, _tasks_registry

    if not _tasks_registry.link_stdlib_registry():
        assert sys.version_info >= (3, 14)
        return
    names = vars(asyncio.tasks)
    registry: Any = names.get("_scheduled_tasks")
    if registry is None:
        registry = names["_all_tasks"]
    c_task, all_tasks = asyncio.Task, asyncio.all_tasks

    class Native:
        def __init__(self, loop: object) -> None:
            self.get_loop = lambda: loop

        def done(self) -> bool:
            return False

    async def main() -> None:
        loop = asyncio.get_running_loop()
        native: Any = Native(loop)
        _aioxide._native_tasks = lambda: [native]
        _tasks_registry.unlink_stdlib_registry()
        assert native not in all_tasks()
        data, length = registry.data, len(registry)
        for _ in range(2):
            assert _tasks_registry.link_stdlib_registry()
        assert all_tasks() == {asyncio.current_task(), native}
        assert native in registry
        assert len(registry) == length + 1
        assert registry.data is data
        assert len(data) == length
        # Of the stdlib's own tasks nothing is lost, nor kept.
        task = c_task(asyncio.sleep(0), loop=loop)
        assert task in registry
        assert len(registry) == length + 2
        for seen in registry:
            assert seen in (asyncio.current_task(), native, task)
        await task
        del task, seen
        await asyncio.sleep(0)  # the callback that woke us up holds the task
        gc.collect()
        assert len(registry) == length + 1
        assert len(data) == length
        # Removals during iteration wait for its end.
        task = c_task(asyncio.sleep(0), loop=loop)
        await task
        await asyncio.sleep(0)
        iterator = iter(registry)
        next(iterator)
        del task
        gc.collect()
        iterator.close()
        assert len(registry) == length + 1
        # One that somebody has registered is there once.
        asyncio._register_task(native)
        assert len(registry) == length + 1 == len(list(registry))
        asyncio._unregister_task(native)
        assert type(registry.copy()) is type(registry | set()) is WeakSet
        assert native in registry.copy()
        _tasks_registry.unlink_stdlib_registry()
        _tasks_registry.unlink_stdlib_registry()
        assert type(registry) is WeakSet
        assert all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
