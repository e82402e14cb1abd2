"""Who waits for whom: `python -m asyncio ps` and `pstree` see native tasks from outside, call graphs from inside."""

import asyncio
import io
import re
import subprocess
import sys
import threading

import pytest

import aioxide

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came with Python 3.14")

PROGRAM = """
import asyncio, os, sys

async def leaf():
    await asyncio.Event().wait()

async def middle():
    await asyncio.create_task(leaf(), name="the leaf")

async def shielded():
    await asyncio.shield(asyncio.create_task(leaf(), name="in a shield"))

async def gathered():
    await asyncio.gather(asyncio.create_task(leaf(), name="gathered"))

async def waited():
    await asyncio.wait([asyncio.create_task(leaf(), name="waited for")])

async def gone():
    pass

async def main():
    asyncio.current_task().set_name("main task")
    await asyncio.create_task(gone(), name="gone")
    cancelled = asyncio.create_task(leaf(), name="cancelled")
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    async with asyncio.TaskGroup() as group:
        for body in (middle, shielded, gathered, waited):
            group.create_task(body(), name=body.__name__)
        for _ in range(3):
            await asyncio.sleep(0)
        # Until somebody has looked.
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, loop.stop)
        print("ready", flush=True)

loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
os._exit(0)
"""

AWAITED_BY = {
    "middle": "main task",
    "shielded": "main task",
    "gathered": "main task",
    "waited": "main task",
    "the leaf": "middle",
    "waited for": "waited",
    "gathered by gather": "gathered",
    "in a shield": "shielded",
    "main task": "",
}
"""The tasks of `PROGRAM`, each with the one that waits for it."""


@pytest.fixture(params=["stdlib", "aioxide"])
def look(request):
    """Starts the program; gives a function that runs `python -m asyncio COMMAND PID`."""
    way = ["-m", "aioxide"] if request.param == "aioxide" else []
    program = PROGRAM.replace('name="gathered")', 'name="gathered by gather")')
    command = [sys.executable, *way, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"

        def look(what):
            command = [sys.executable, "-m", "asyncio", what, str(process.pid)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode and re.search(r"[Pp]ermission|not permitted|ptrace|not supported", done.stderr):
                pytest.skip("this system lets no process read another's memory (ptrace)")
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        yield look
        process.stdin.write("\n")


def rows(table):
    """The name of each task in what `ps` prints, with the name of the one that awaits it."""
    head, _, *lines = table.rstrip("\n").splitlines()
    starts = [head.index(title) for title in ("task name", "coroutine stack", "awaiter name", "awaiter id")]
    name, stack, awaiter, end = starts
    return {(line[name:stack].strip(), line[awaiter:end].strip()) for line in lines}


def test_ps_shows_tasks_and_who_waits_for_them(look):
    found = rows(look("ps"))
    assert found == set(AWAITED_BY.items())


def test_pstree_shows_the_tree(look):
    lines = look("pstree").splitlines()
    depth = {match[1]: match.start() for line in lines if (match := re.search(r"\(T\) (.*)", line))}
    assert depth.keys() == AWAITED_BY.keys()
    for task, awaiter in AWAITED_BY.items():
        assert not awaiter or depth[task] > depth[awaiter]
    coroutines = {match[1] for line in lines if (match := re.search(r"── +(\w+) ", line))}
    assert {"main", "middle", "shielded", "gathered", "waited", "leaf"} <= coroutines


@pytest.fixture
def native():
    """A native loop."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.close()


def named(graph):
    """A graph as nested tuples of names."""
    return graph.future.get_name(), sorted(named(each) for each in graph.awaited_by)


async def until_cancelled(*awaitables):
    for awaitable in awaitables:
        await awaitable


WAITS = {
    "await": lambda aio, task: until_cancelled(task),
    "gather": lambda aio, task: until_cancelled(gathering(aio, task)),
    "shield": lambda aio, task: until_cancelled(shielding(aio, task)),
    "wait": lambda aio, task: aio.wait([task]),
    "wait_for": lambda aio, task: aio.wait_for(task, 3600),
    "wait_for without a limit": lambda aio, task: aio.wait_for(task, None),
    "timeout": lambda aio, task: within(aio, task),
}


async def gathering(aio, task):
    await aio.gather(task)


async def shielding(aio, task):
    await aio.shield(task)


async def within(aio, task):
    async with aio.timeout(3600):
        await task


@pytest.mark.parametrize("wait", WAITS)
def test_graph_of_a_task_leads_to_who_waits_for_it(wait, aio, loop):
    async def main():
        inner = loop.create_task(aio.Event().wait(), name="inner")
        outer = loop.create_task(WAITS[wait](aio, inner), name="outer")
        await aio.sleep(0)
        await aio.sleep(0)
        found = named(asyncio.capture_call_graph(inner))
        text = asyncio.format_call_graph(inner)
        outer.cancel()
        inner.cancel()
        await aio.gather(outer, inner, return_exceptions=True)
        assert not inner._asyncio_awaited_by
        assert asyncio.capture_call_graph(inner).awaited_by == ()
        return found, text

    found, text = loop.run_until_complete(main())
    assert found == ("inner", [("outer", [])])
    assert text.index("Task(name='inner'") < text.index("Awaited by") < text.index("Task(name='outer'")


def test_graph_of_the_current_task_has_its_stack(aio, loop):
    async def inner():
        file = io.StringIO()
        asyncio.print_call_graph(file=file)
        return asyncio.capture_call_graph(), file.getvalue()

    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(inner(), name="inner")
        return await task

    graph, text = loop.run_until_complete(main())
    assert "inner" in [entry.frame.f_code.co_name for entry in graph.call_stack]
    assert re.search(r"in async .*inner\(\)", text)
    assert re.search(r"in async .*main\(\)", text)
    assert "Task(name='inner'" in text


def test_graph_crosses_from_one_kind_to_the_other(native):
    """A native task waits for a stdlib one, which waits for a native one."""

    async def main():
        innermost = native.create_task(aioxide.Event().wait(), name="innermost")
        middle = asyncio.Task(until_cancelled(innermost), loop=native, name="middle")
        outer = native.create_task(until_cancelled(middle), name="outer")
        for _ in range(3):
            await aioxide.sleep(0)
        found = named(asyncio.capture_call_graph(innermost))
        outer.cancel()
        await aioxide.wait([outer])
        return found

    assert native.run_until_complete(main()) == ("innermost", [("middle", [("outer", [])])])


def test_graph_of_several_waiters(aio, loop):
    async def main():
        inner = loop.create_task(aio.Event().wait(), name="inner")
        outer = [loop.create_task(until_cancelled(inner), name=name) for name in "abc"]
        for _ in range(2):
            await aio.sleep(0)
        found = [named(asyncio.capture_call_graph(inner))]
        outer[1].cancel()
        await aio.wait([outer[1]])
        inner.cancel()
        await aio.gather(*outer, return_exceptions=True)
        return found

    assert loop.run_until_complete(main()) == [("inner", [("a", []), ("b", []), ("c", [])])]


def test_graph_of_a_task_in_another_thread(aio, loop):
    ready, done = threading.Event(), threading.Event()
    found = []

    async def main():
        found.append(asyncio.current_task())
        ready.set()
        await loop.run_in_executor(None, done.wait)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait()
    graph = asyncio.capture_call_graph(found[0])
    assert graph.future is found[0]
    assert graph.awaited_by == ()
    done.set()
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())


def test_wrong_arguments_are_refused(aio, loop):
    with pytest.raises(TypeError, match=r"compatible with asyncio\.Future"):
        asyncio.capture_call_graph(object())
    with pytest.raises(RuntimeError, match="outside of a running event loop"):
        asyncio.capture_call_graph()
    future = loop.create_future()
    assert asyncio.capture_call_graph(future).call_stack == ()


def test_add_and_discard_by_hand(aio, loop):
    """anyio's task groups tell the graph about their own waits."""

    async def main():
        waiter = aio.current_task()
        future = loop.create_future()
        for _ in range(2):
            asyncio.future_add_to_awaited_by(future, waiter)
            assert future._asyncio_awaited_by == {waiter}
        assert [each.future for each in asyncio.capture_call_graph(future).awaited_by] == [waiter]
        asyncio.future_discard_from_awaited_by(future, waiter)
        asyncio.future_discard_from_awaited_by(future, waiter)
        assert not future._asyncio_awaited_by
        # What are no futures do not matter.
        asyncio.future_add_to_awaited_by(future, object())
        asyncio.future_add_to_awaited_by(object(), future)
        assert not future._asyncio_awaited_by

    loop.run_until_complete(main())
