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
    """Return where something else is bound now, but for names that were added."""
    after = bindings()
    assert after.keys() >= before.keys()
    added = after.keys() - before.keys()
    assert {name for _, name in added} <= {"EventLoop", *LATER_NAMES}, added
    return {place for place in before if before[place] is not after[place]}


LATER_NAMES = {"QueueShutDown", "create_eager_task_factory", "eager_task_factory"}
"""What a later Python's asyncio has."""


def import_all_of_asyncio() -> None:
    """Import every submodule there is for this system."""
    import asyncio
    import importlib
    import pkgutil

    for module in pkgutil.iter_modules(asyncio.__path__):
        if module.name not in ("__main__", "windows_events", "windows_utils"):
            importlib.import_module(f"asyncio.{module.name}")


def everything() -> dict[tuple[str, ...], object]:
    """Return all that asyncio's modules hold, and all that its classes hold."""
    found: dict[tuple[str, ...], object] = dict(bindings())
    for (module, name), value in bindings().items():
        if isinstance(value, type) and value.__module__.partition(".")[0] in ("asyncio", "_asyncio"):
            # What `abc` keeps of earlier isinstance calls.
            found |= {(module, name, k): v for k, v in vars(value).items() if k != "_abc_impl"}
    return found


def assert_restored(before: dict[tuple[str, ...], object]) -> None:
    """Fail unless asyncio is what it was, to the last identity."""
    after = everything()
    assert after.keys() == before.keys(), after.keys() ^ before.keys()
    assert [place for place in before if before[place] is not after[place]] == []


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
def test_instances_of_native_classes_are_instances_of_asyncios_names() -> None:
    import asyncio

    stdlib_handle, stdlib_future = asyncio.Handle, asyncio.Future
    import aioxide

    aioxide.install()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop.call_soon(int), asyncio.Handle)
        assert isinstance(loop.call_later(0, int), asyncio.TimerHandle)
        assert isinstance(loop.create_future(), (asyncio.Future, stdlib_future))
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert isinstance(writer.transport.get_protocol(), asyncio.StreamReaderProtocol)
        writer.close()
        server.close()
        # One that the stdlib's class made is none, as it is none of a native loop.
        assert not isinstance(stdlib_handle(int, (), loop), asyncio.Handle)

    asyncio.run(main())


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
def test_identity_of_everything_in_asyncio_is_restored() -> None:
    import_all_of_asyncio()
    before = everything()
    import aioxide

    levels: tuple[Literal["loop", "full"], ...] = ("full", "loop", "full")
    for level in levels:
        aioxide.install(level)
        aioxide.uninstall()
        assert_restored(before)
    for level in levels:
        aioxide.install(level, rebind_importers=True, children=True)
    import asyncio

    asyncio.run(asyncio.sleep(0))
    aioxide.uninstall()
    # The policy object that `run()` has made, and the class of the registry, are asyncio's own.
    for place in list(before):
        if place[1] == "_event_loop_policy":
            before[place] = everything()[place]
    assert_restored(before)


@isolated
def test_names_of_later_pythons_are_added() -> None:
    import asyncio

    before = bindings()
    import aioxide

    aioxide.install("loop")
    assert bindings().keys() == before.keys()
    assert aioxide.status().added == ()
    aioxide.install()
    names: Any = vars(asyncio)
    for name in LATER_NAMES:
        assert names[name] is getattr(aioxide, name)
    assert names["EventLoop"] is names["SelectorEventLoop"]
    queue = names["Queue"]()
    queue.shutdown()
    with raises(names["QueueShutDown"], ""):
        queue.get_nowait()
    added = {name.rpartition(".")[2] for name in aioxide.status().added}
    assert added == {name for name in {"EventLoop", *LATER_NAMES} if ("asyncio", name) not in before}
    assert added or sys.version_info >= (3, 13)
    namespace: dict[str, Any] = {}
    exec("from asyncio import QueueShutDown, eager_task_factory, EventLoop; import asyncio.queues", namespace)
    assert namespace["asyncio"].queues.QueueShutDown is namespace["QueueShutDown"]
    # Somebody's own is theirs.
    theirs = names["eager_task_factory"] = object()
    aioxide.uninstall()
    assert vars(asyncio)["eager_task_factory"] is theirs
    if ("asyncio", "eager_task_factory") in before:
        names["eager_task_factory"] = before["asyncio", "eager_task_factory"]
    else:
        del names["eager_task_factory"]
    assert changed(before) == set()
    assert bindings().keys() == before.keys()


@isolated
def test_name_that_somebody_has_added_already_is_theirs() -> None:
    import asyncio

    names: Any = vars(asyncio)
    before = names.get("QueueShutDown")
    theirs = names["QueueShutDown"] = type("QueueShutDown", (Exception,), {})
    import aioxide

    aioxide.install()
    assert names["QueueShutDown"] is theirs
    assert vars(asyncio.queues)["QueueShutDown"] is aioxide.QueueShutDown  # type: ignore[attr-defined]
    aioxide.uninstall()
    assert names["QueueShutDown"] is theirs
    assert vars(asyncio.queues).get("QueueShutDown") is before


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

    def assert_intact(self) -> None:
        import asyncio

        assert asyncio.sleep is self.wrapper


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


class NestAsyncio:
    """What `nest_asyncio.apply()` does to the names of asyncio, which it never takes back."""

    def patch(self) -> None:
        import asyncio
        from asyncio import futures, tasks

        self.before = {
            (module, name): vars(module)[name]
            for module, names in {
                asyncio: ["Task", "Future", "run"],
                tasks: ["Task", "_CTask"],
                futures: ["Future"],
            }.items()
            for name in names
        }
        twins: Any = tasks
        asyncio.Task = twins.Task = twins._CTask = twins._PyTask  # type: ignore[misc]
        asyncio.Future = futures.Future = vars(futures)["_PyFuture"]  # type: ignore[misc]

        def run(main: Any, *, debug: bool = False) -> Any:
            raise AssertionError(main)

        asyncio.run = run  # type: ignore[assignment]
        self.patched = {place: vars(place[0])[place[1]] for place in self.before}

    def unpatch(self) -> None:
        for (module, name), value in self.before.items():
            vars(module)[name] = value

    def assert_intact(self) -> None:
        assert all(vars(module)[name] is value for (module, name), value in self.patched.items())


@isolated
def test_nest_asyncio_applied_while_installed() -> None:
    import_all_of_asyncio()
    before = everything()
    import aioxide

    other = NestAsyncio()
    aioxide.install()
    assert aioxide.status().advice == ()
    other.patch()
    found = aioxide.status()
    assert "nest_asyncio.apply()" in found.advice[0]
    assert {"asyncio.tasks.Task", "asyncio.futures.Future", "asyncio.runners.run"} <= set(found.overridden)
    with raises(RuntimeError, r"nest_asyncio\.apply"):
        aioxide.install()
    aioxide.uninstall()
    other.assert_intact()
    # What it puts back is native, and that can be undone.
    other.unpatch()
    aioxide.uninstall()
    assert_restored(before)


@isolated
def test_every_order_with_a_second_patcher() -> None:
    from itertools import permutations

    import_all_of_asyncio()
    before = everything()
    import aioxide

    class Policy:
        """Somebody who sets a policy."""

        def patch(self) -> None:
            from asyncio import events

            default = vars(events)
            self.before = default.get("_event_loop_policy")
            base: Any = default.get("_AbstractEventLoopPolicy") or default.get("AbstractEventLoopPolicy")
            self.policy = type("Theirs", (base or object,), {"new_event_loop": lambda self: None})()
            if base is not None:
                set_policy(self.policy)

        def unpatch(self) -> None:
            from asyncio import events

            if "_event_loop_policy" in vars(events):
                set_policy(self.before)

        def assert_intact(self) -> None:
            from asyncio import events

            assert vars(events).get("_event_loop_policy", self.policy) is self.policy

    other: Any
    for other in (Patcher(), Policy(), NestAsyncio()):
        actions = {
            "install": aioxide.install,
            "uninstall": aioxide.uninstall,
            "patch": other.patch,
            "unpatch": other.unpatch,
        }
        for order in permutations(actions):
            if order.index("unpatch") < order.index("patch"):
                continue
            for action in order:
                try:
                    actions[action]()
                except RuntimeError as error:
                    # It refuses to be installed over nest_asyncio, and changes nothing then.
                    assert (action, type(other)) == ("install", NestAsyncio), error
                if order.index("patch") <= order.index(action) < order.index("unpatch"):
                    other.assert_intact()
            aioxide.uninstall()
            assert_restored(before)


@isolated
def test_every_order_with_uvloop() -> None:
    """uvloop.install() sets a policy, where there are policies."""
    import asyncio
    import warnings
    from itertools import permutations

    # It uses names that are going to be removed.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        import uvloop
    except ImportError:
        return
    if not hasattr(uvloop, "install"):
        return
    import_all_of_asyncio()
    before = everything()
    import aioxide

    def reset() -> None:
        set_policy(None)

    for order in permutations([aioxide.install, aioxide.uninstall, uvloop.install, reset]):
        is_theirs = is_native = False
        for action in order:
            action()  # type: ignore[operator]
            is_theirs = action is uvloop.install or (is_theirs and action is not reset)
            is_native = action is aioxide.install or (is_native and action is not aioxide.uninstall)
            loop = asyncio.new_event_loop()
            assert type(loop).__module__.startswith("uvloop" if is_theirs else "aioxide" if is_native else "asyncio")
            loop.close()
            if is_theirs:
                assert aioxide.status().loops.startswith("uvloop.")
                assert "uvloop" in aioxide.status().advice[0]
        aioxide.uninstall()
        reset()
        assert_restored(before)


@isolated
def test_nest_asyncio_itself() -> None:
    """The real one, where it is there: before and after `install()`."""
    import asyncio
    import warnings

    # It uses names that are going to be removed.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        import nest_asyncio  # type: ignore[import-untyped]
    except ImportError:
        return
    import aioxide

    aioxide.install()
    loop = asyncio.new_event_loop()
    with raises(ValueError, "Can't patch loop of type"):
        nest_asyncio.apply(loop)
    loop.close()
    assert "nest_asyncio.apply()" in aioxide.status().advice[0]
    aioxide.uninstall()
    with raises(RuntimeError, r"nest_asyncio\.apply"):
        aioxide.install()


@isolated
def test_advice_about_a_loop_that_runs_already() -> None:
    import asyncio

    import aioxide

    async def main() -> None:
        aioxide.install()
        assert "unix_events" in aioxide.status().advice[0]
        assert "python -m aioxide" in aioxide.status().advice[0]

    asyncio.run(main())
    assert aioxide.status().advice == ()


# Children.


def in_a_child(code: str, *arguments: str, **environment: str | None) -> str:
    """Return what a Python prints that this one starts."""
    import os

    merged = {**os.environ, **environment}
    values = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, *arguments, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=values)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


WHAT_IS_NATIVE = """
import asyncio
import sys
import aioxide
status = aioxide.status()
assert asyncio.__spec__.loader is asyncio.__loader__ and type(asyncio.__loader__).__name__ == "SourceFileLoader"
assert not any("_bootstrap" in folder for folder in sys.path)
assert (asyncio.sleep is aioxide.sleep) == (status.level == "full")
loop = asyncio.new_event_loop()
assert isinstance(loop, aioxide.Loop) == (status.level != "none")
loop.close()
print(status.level, status.children)
"""


@isolated
def test_children_are_reached_on_request() -> None:
    import os

    os.environ["PYTHONPATH"] = path = os.pathsep.join(["/nowhere", str(Path(__file__).parent)])
    import aioxide

    aioxide.install()
    assert in_a_child(WHAT_IS_NATIVE) == "none none"
    aioxide.install(children=True)
    assert aioxide.status().children == "full"
    assert "Pythons started from here install aioxide, level 'full'" in str(aioxide.status())
    assert in_a_child(WHAT_IS_NATIVE) == "full full"
    # Whichever is imported first.
    assert in_a_child(f"import aioxide\n{WHAT_IS_NATIVE}") == "full full"
    # A child of the child.
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WHAT_IS_NATIVE!r}], check=True)"
    assert in_a_child(nested) == "full full"
    # Not those that do not look at the environment, or are told not to.
    assert in_a_child(WHAT_IS_NATIVE, "-E") == "none full"
    assert in_a_child(WHAT_IS_NATIVE, AIOXIDE_INSTALL="0").startswith("none")
    # A program without asyncio does not pay for it.
    assert in_a_child("import sys; print('asyncio' in sys.modules or 'aioxide' in sys.modules)") == "False"
    aioxide.install("loop")
    assert in_a_child(WHAT_IS_NATIVE) == "loop loop"
    assert os.environ["PYTHONPATH"].endswith(os.pathsep + path)
    aioxide.uninstall()
    assert aioxide.status().children == "none"
    assert os.environ["PYTHONPATH"] == path
    assert "AIOXIDE_INSTALL" not in os.environ
    assert in_a_child(WHAT_IS_NATIVE) == "none none"


@isolated
def test_environment_of_children_is_given_back() -> None:
    import os

    os.environ.pop("PYTHONPATH", None)
    import aioxide

    aioxide.install(children=True)
    # An empty part would be the current folder.
    assert "" not in os.environ["PYTHONPATH"].split(os.pathsep)
    aioxide.uninstall()
    assert "PYTHONPATH" not in os.environ
    # What others have put there in the meantime stays.
    aioxide.install(children=True)
    os.environ["PYTHONPATH"] += os.pathsep + "/theirs"
    aioxide.uninstall()
    assert os.environ["PYTHONPATH"] == "/theirs"
    # Set by others, without an install() here: theirs.
    os.environ["AIOXIDE_INSTALL"] = "full"
    aioxide.uninstall()
    assert os.environ["AIOXIDE_INSTALL"] == "full"


@isolated
def test_wrong_level_for_children_is_reported() -> None:
    import os

    import aioxide

    aioxide.install(children=True)
    os.environ["AIOXIDE_INSTALL"] = "half"
    done = subprocess.run([sys.executable, "-c", "import asyncio"], capture_output=True, text=True, check=True)
    assert done.stderr == "aioxide: AIOXIDE_INSTALL must be 'full', 'loop' or '0', not 'half'\n"
    assert in_a_child(WHAT_IS_NATIVE, AIOXIDE_INSTALL="1") == "full full"


@isolated
def test_sitecustomize_of_others_is_run() -> None:
    import os
    import tempfile

    import aioxide

    show = "import sitecustomize; print(sitecustomize.__file__); import asyncio, aioxide; print(aioxide.status().level)"
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder, "sitecustomize.py")
        theirs.write_text("import builtins; builtins.answer = 42")
        os.environ["PYTHONPATH"] = folder
        aioxide.install(children=True)
        assert in_a_child(f"{show}; print(answer)") == f"{theirs}\nfull\n42"
        # Its errors are reported as Python does it.
        theirs.write_text("import nonsense")
        done = subprocess.run([sys.executable, "-c", "pass"], capture_output=True, text=True, check=False)
        assert "No module named 'nonsense'" in done.stderr
        theirs.unlink()
        assert in_a_child(show).endswith("sitecustomize.py\nfull")


@isolated
def test_children_without_aioxide_are_left_alone() -> None:
    import os
    import tempfile

    import aioxide

    aioxide.install(children=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "aioxide.py").write_text("raise ImportError('not for this Python')")
        os.environ["PYTHONPATH"] += os.pathsep + folder
        assert in_a_child("import asyncio; print(asyncio.sleep.__module__)") == "asyncio.tasks"


@isolated
def test_second_interpreters_of_children_are_left_alone() -> None:
    """The extension refuses to be imported there; asyncio is as it was."""
    if sys.version_info < (3, 14):
        return
    import aioxide

    aioxide.install(children=True)
    code = """
from concurrent import interpreters
second = interpreters.create()
second.exec("import asyncio; print(asyncio.sleep.__module__, asyncio.run(asyncio.sleep(0, 42)), flush=True)")
second.close()
import asyncio, aioxide
print(aioxide.status().level)
"""
    assert in_a_child(code) == "asyncio.tasks 42\nfull"


def report_level(queue: Any) -> None:
    """Run in a process of multiprocessing."""
    import asyncio

    import aioxide

    queue.put((aioxide.status().level, asyncio.sleep is aioxide.sleep))


@isolated
def test_processes_of_multiprocessing_are_reached() -> None:
    import multiprocessing

    import aioxide

    aioxide.install(children=True)
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=report_level, args=(queue,))
        process.start()
        assert queue.get() == ("full", True), method
        process.join()


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


def take_policies_away() -> None:
    """Make asyncio what it is from Python 3.16 on: there are no policies, loops are kept for each thread."""
    from asyncio import events, unix_events

    for name, value in list(vars(unix_events).items()):
        if isinstance(value, type) and "_loop_factory" in vars(value):
            delattr(unix_events, name)
    functions = """
import threading as _threading
_set_loops = _threading.local()

def new_event_loop():
    from asyncio import EventLoop
    return EventLoop()

def set_event_loop(loop):
    _set_loops.loop = loop

def get_event_loop():
    running = _get_running_loop()
    if running is None:
        running = getattr(_set_loops, "loop", None)
    if running is None:
        raise RuntimeError("There is no current event loop")
    return running
"""
    import asyncio

    names, package = vars(events), vars(asyncio)
    package.setdefault("EventLoop", package["SelectorEventLoop"])
    vars(unix_events).setdefault("EventLoop", package["SelectorEventLoop"])
    for module in (names, package, vars(unix_events)):
        for name in list(module):
            if "policy" in name.lower():
                del module[name]
    asyncio.__all__ = tuple(name for name in asyncio.__all__ if name in package)
    exec(functions, names)
    for name in ("new_event_loop", "set_event_loop", "get_event_loop"):
        package[name] = names[name]
    # The C version of this asks for the policy.
    names["_c_get_event_loop"] = names["get_event_loop"]


@isolated
def test_without_policies_the_factory_is_replaced() -> None:
    import asyncio
    import threading
    import unittest
    from asyncio import events

    take_policies_away()
    import_all_of_asyncio()
    before = everything()
    stdlib = asyncio.new_event_loop
    import aioxide

    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_loop(self) -> None:
            kinds.append(type(asyncio.get_running_loop()))

    async def main() -> None:
        kinds.append(type(asyncio.get_running_loop()))

    kinds: list[type] = []

    def use_loops() -> set[bool]:
        kinds.clear()
        asyncio.run(main())
        with asyncio.Runner() as runner:
            runner.run(main())
        assert unittest.TextTestRunner(stream=__import__("io").StringIO()).run(Case("test_loop")).wasSuccessful()
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        thread.join()
        for factory in (asyncio.new_event_loop, events.new_event_loop, asyncio.SelectorEventLoop):
            loop = factory()
            kinds.append(type(loop))
            loop.close()
        return {issubclass(kind, aioxide.Loop) for kind in kinds}

    assert (aioxide.status().level, aioxide.status().loops) == ("none", "asyncio")
    assert use_loops() == {False}
    levels: tuple[Literal["loop", "full"], ...] = ("loop", "full")
    for level in levels:
        aioxide.install(level)
        assert events.new_event_loop is asyncio.new_event_loop is aioxide.new_event_loop
        assert (aioxide.status().loops, aioxide.status().advice) == ("aioxide", ())
        assert "asyncio.events.new_event_loop" in aioxide.status().native
        assert use_loops() == {True}
        assert vars(asyncio)["EventLoop"] is aioxide.SelectorEventLoop
    aioxide.uninstall()
    assert events.new_event_loop is asyncio.new_event_loop is stdlib
    assert use_loops() == {False}
    assert_restored(before)
    # Without install(), aioxide's own runner takes a native loop.
    aioxide.run(main())
    assert issubclass(kinds[-1], aioxide.Loop)


@isolated
def test_without_policies_others_patch_the_factory() -> None:
    import asyncio
    from asyncio import events

    take_policies_away()
    import_all_of_asyncio()
    before = everything()
    stdlib = asyncio.new_event_loop
    import aioxide

    def theirs() -> Any:
        return stdlib()

    # In both places, before and after.
    asyncio.new_event_loop = events.new_event_loop = theirs
    aioxide.install()
    assert asyncio.new_event_loop is events.new_event_loop is theirs
    assert aioxide.status().loops.endswith("theirs")
    assert "theirs" in aioxide.status().advice[0]
    aioxide.uninstall()
    assert asyncio.new_event_loop is events.new_event_loop is theirs
    asyncio.new_event_loop = events.new_event_loop = stdlib
    assert_restored(before)
    aioxide.install()
    asyncio.new_event_loop = events.new_event_loop = theirs
    assert aioxide.status().overridden == ("asyncio.events.new_event_loop",)
    aioxide.uninstall()
    assert asyncio.new_event_loop is events.new_event_loop is theirs
    # In one of the places.
    asyncio.new_event_loop = stdlib
    aioxide.install()
    assert events.new_event_loop is theirs
    assert asyncio.new_event_loop is aioxide.new_event_loop
    aioxide.uninstall()
    events.new_event_loop = stdlib
    assert_restored(before)


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


@isolated
def test_subclasses_of_the_stdlibs_loop_are_listed() -> None:
    import asyncio

    import aioxide

    aioxide.install()
    assert aioxide.status().foreign_loops == ()

    class Loop(asyncio.SelectorEventLoop):
        pass

    class Heir(Loop):
        pass

    assert [name.rpartition(".")[2] for name in aioxide.status().foreign_loops] == ["Heir", "Loop"]
    assert "Loop" in str(aioxide.status())


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
    added = bindings().keys() - before.keys()
    assert full.bindings == len([p for p in changed(before) if p[1] != "_loop_factory"]) + len(added)
    # Every public name is either native, and only that, or has its reason.
    names = {name.rpartition(".")[2] for name in full.native}
    aliases = {"EventLoop"}
    assert set(asyncio.__all__) - names - set(full.stdlib) <= aliases
    assert not names & set(full.stdlib)
    assert "derives" in full.stdlib["BaseEventLoop"]
    assert "constant" in full.stdlib["FIRST_COMPLETED"]
    assert "too" in full.stdlib["current_task"]
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
        elif name not in ("EventLoop", "SelectorEventLoop", "anyio_backend"):
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
    assert aioxide.subprocess is asyncio.subprocess


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
