"""Task groups: what happens at each call into Python code, on every kind of loop and task, and what is left behind."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest

import aioxide


class VisibleLoop(aioxide.Loop):
    """Not direct: one of the scheduling methods is overridden."""

    def call_soon(self, callback, *args, **kwargs):
        return super().call_soon(callback, *args, **kwargs)


@pytest.fixture(params=["direct", "debug", "overridden", "foreign"])
def kind(request):
    """The ways in which a loop may take tasks."""
    return {
        "direct": {},
        "debug": {"debug": True},
        "overridden": {"loop_class": VisibleLoop},
        "foreign": {"loop_class": asyncio.SelectorEventLoop},
    }[request.param]


def run(main, *, debug=False, loop_class=aioxide.Loop):
    """Runs a coroutine on a loop of its own; returns its result and what was reported."""
    loop = loop_class()
    loop.set_debug(debug)
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    try:
        return loop.run_until_complete(main), reports
    finally:
        loop.close()


def forever():
    """A future that nobody finishes."""
    return asyncio.get_running_loop().create_future()


async def wait_forever():
    await forever()


async def give(value):
    await asyncio.sleep(0)
    return value


async def fail(error):
    await asyncio.sleep(0)
    raise error


def test_tasks_are_awaited(kind):
    async def main():
        async with aioxide.TaskGroup() as group:
            assert repr(group) == "<TaskGroup entered>"
            tasks = [group.create_task(give(number)) for number in range(100)]
            assert group._tasks == set(tasks)
            assert repr(group) == "<TaskGroup tasks=100 entered>"
        assert [task.result() for task in tasks] == list(range(100))
        assert group._tasks == set()
        assert (group._parent_task, group._errors, group._base_error) == (None, None, None)

    assert run(main(), **kind)[1] == []


def test_failure_cancels_the_rest_and_the_body(kind):
    async def main():
        with pytest.raises(ExceptionGroup, match="unhandled errors in a TaskGroup") as caught:
            async with aioxide.TaskGroup() as group:
                task = group.create_task(wait_forever())
                group.create_task(fail(KeyError()))
                await forever()
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        assert caught.value.__suppress_context__
        assert task.cancelled()
        assert asyncio.current_task().cancelling() == 0

    assert run(main(), **kind)[1] == []


def test_error_of_the_body_is_part_of_the_group(kind):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aioxide.TaskGroup() as group:
                group.create_task(wait_forever())
                raise ValueError
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        assert isinstance(caught.value.__context__, ValueError)

    assert run(main(), **kind)[1] == []


def test_cancel_ends_the_group_quietly(kind):
    async def main():
        async with aioxide.TaskGroup() as group:
            task = group.create_task(wait_forever())
            group.cancel()
            group.cancel()
            assert repr(group) == "<TaskGroup tasks=1 cancelling>"
            await forever()
        assert task.cancelled()
        group.cancel()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    assert run(main(), **kind)[1] == []


def test_cancel_before_entering(kind):
    async def main():
        group = aioxide.TaskGroup()
        group.cancel()
        async with group:
            with pytest.raises(RuntimeError, match="is shutting down"):
                group.create_task(closed := give(1))
            closed.close()
            await forever()
        assert asyncio.current_task().cancelling() == 0

    assert run(main(), **kind)[1] == []


def test_exit_tells_that_it_swallowed():
    async def main():
        group = aioxide.TaskGroup()
        await group.__aenter__()
        assert await group.__aexit__(None, None, None) is True

    run(main())


def test_cancellation_from_outside_while_waiting_is_kept(kind):
    async def main():
        parent = asyncio.current_task()
        with pytest.raises(asyncio.CancelledError, match="outside"):
            async with aioxide.TaskGroup() as group:
                group.create_task(wait_forever())
                asyncio.get_running_loop().call_soon(parent.cancel, "outside")
        assert parent.cancelling() == 1
        parent.uncancel()

    assert run(main(), **kind)[1] == []


def test_cancellation_from_outside_while_an_own_one_is_in_progress():
    async def main():
        parent = asyncio.current_task()

        async def slow():
            try:
                await forever()
            except asyncio.CancelledError:
                parent.cancel("outside")
                await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            async with aioxide.TaskGroup() as group:
                group.create_task(slow())
                await asyncio.sleep(0)
                group.cancel()
        assert parent.cancelling() == 1
        parent.uncancel()

    run(main())


def test_errors_of_inactive_groups():
    async def main():
        group = aioxide.TaskGroup()
        coro = give(1)
        with pytest.raises(RuntimeError, match=r"TaskGroup <TaskGroup> has not been entered"):
            group.create_task(coro)
        if sys.version_info >= (3, 13):
            with pytest.raises(RuntimeError, match="cannot reuse"):
                coro.send(None)
        coro.close()
        async with group:
            with pytest.raises(RuntimeError, match=r"TaskGroup <TaskGroup entered> has already been entered"):
                await group.__aenter__()
        coro = give(1)
        with pytest.raises(RuntimeError, match=r"TaskGroup <TaskGroup entered> is finished"):
            group.create_task(coro)
        coro.close()

    run(main())


def test_keywords_of_create_task(kind):
    variable = contextvars.ContextVar("variable", default=0)

    async def read():
        return variable.get()

    async def main():
        context = contextvars.copy_context()
        context.run(variable.set, 5)
        async with aioxide.TaskGroup() as group:
            named = group.create_task(read(), name="named", context=context)
            plain = group.create_task(read(), name=None, context=None)
            with pytest.raises(TypeError):
                group.create_task(coro := read(), unknown=1)
            coro.close()
        assert (named.get_name(), named.result(), plain.result()) == ("named", 5, 0)

    assert run(main(), **kind)[1] == []


def test_task_factory():
    async def main():
        made = []

        def factory(loop, coro, **kwargs):
            made.append(kwargs)
            return aioxide.Task(coro, loop=loop, **kwargs)

        asyncio.get_running_loop().set_task_factory(factory)
        async with aioxide.TaskGroup() as group:
            task = group.create_task(give(1))
            group.create_task(give(2), context=contextvars.copy_context())
        assert task.result() == 1
        assert [sorted(kwargs) for kwargs in made] == [[], ["context"]]

    run(main())


def test_strange_tasks():
    """Tasks of another class, whose callbacks and states are asked for by their methods."""

    class Task(aioxide.Task):
        calls = []

        def add_done_callback(self, fn, /, *, context=None):
            self.calls.append(fn.__name__)
            super().add_done_callback(fn, context=context)

        def cancel(self, msg=None):
            self.calls.append("cancel")
            return super().cancel(msg)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **kwargs: Task(coro, loop=loop, **kwargs))
        async with aioxide.TaskGroup() as group:
            group.create_task(wait_forever())
            group.cancel()
        assert Task.calls == ["_on_task_done", "cancel"]

    run(main())


def test_task_that_is_done_at_once_comes_back_through_the_loop():
    async def at_once():
        raise KeyError

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **kwargs: aioxide.Task(coro, loop=loop, eager_start=True, **kwargs))
        with pytest.raises(ExceptionGroup) as caught:
            async with aioxide.TaskGroup() as group:
                task = group.create_task(at_once())
                assert task.done()
                assert asyncio.current_task().cancelling() == 0
                await forever()
        assert len(caught.value.exceptions) == 1

    run(main())


def test_eager_task_that_cancels_its_group():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **kwargs: aioxide.Task(coro, loop=loop, eager_start=True, **kwargs))

        async def cancels():
            group.cancel()
            await forever()

        async with aioxide.TaskGroup() as group:
            task = group.create_task(cancels())
        assert task.cancelled()

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_base_error_is_raised_bare(error):
    async def main():
        with pytest.raises(error):
            async with aioxide.TaskGroup() as group:
                group.create_task(wait_forever())
                raise error

    run(main())


def test_lone_generator_exit_is_raised_bare():
    async def values():
        async with aioxide.TaskGroup():
            yield 1

    async def main():
        generator = values()
        async for _ in generator:
            break
        await generator.aclose()
        with pytest.raises(GeneratorExit):
            async with aioxide.TaskGroup():
                raise GeneratorExit

    run(main())


def test_cancel_of_a_task_that_raises():
    class Stubborn(asyncio.Future):
        refusals = 1

        def cancel(self, msg=None):
            if self.refusals:
                self.refusals = 0
                raise ZeroDivisionError
            return super().cancel(msg)

    async def main():
        async def wait():
            await Stubborn(loop=asyncio.get_running_loop())

        async with aioxide.TaskGroup() as group:
            task = group.create_task(wait())
            await asyncio.sleep(0)
            with pytest.raises(ZeroDivisionError):
                group.cancel()
            assert group._aborting
            task.cancel()

    assert run(main())[1] == []


def test_cancel_of_a_task_that_changes_the_group():
    class Meddler(asyncio.Future):
        def cancel(self, msg=None):
            group = self.group
            group._tasks.clear()
            group.cancel()
            group._tasks.update(self.tasks)
            return super().cancel(msg)

    async def main():
        async def wait():
            await meddler

        meddler = Meddler(loop=asyncio.get_running_loop())
        async with aioxide.TaskGroup() as group:
            tasks = [group.create_task(wait()), group.create_task(wait_forever())]
            meddler.group, meddler.tasks = group, tasks
            await asyncio.sleep(0)
            group.cancel()
        assert all(task.cancelled() for task in tasks)
        del meddler.group, meddler.tasks

    assert run(main())[1] == []


def test_closed_while_waiting():
    """Tasks that end after the group was left find nobody; what they raise is reported."""

    async def block(group):
        async with group:
            group.create_task(wait_for(gate))

    async def wait_for(future):
        await future
        raise KeyError

    async def main():
        nonlocal gate
        gate = forever()
        group = aioxide.TaskGroup()
        coro = block(group)
        coro.send(None)
        assert asyncio.isfuture(group._on_completed_fut)
        coro.close()
        assert (group._parent_task, group._errors) == (None, None)
        (task,) = group._tasks
        gate.set_result(None)
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert not group._tasks

    gate = None
    _, reports = run(main())
    assert [type(report["exception"]) for report in reports] == [AttributeError]
    assert "_on_task_done" in reports[0]["message"]


def test_parent_that_is_done():
    """The parent has ended without leaving the group."""

    async def enter(group):
        await group.__aenter__()

    async def main():
        group = aioxide.TaskGroup()
        await asyncio.ensure_future(enter(group))
        task = group.create_task(fail(KeyError()))
        await asyncio.wait([task])
        await asyncio.sleep(0)

    _, reports = run(main())
    assert len(reports) == 1
    assert "has errored out but its parent task" in reports[0]["message"]
    assert isinstance(reports[0]["exception"], KeyError)


def test_subclass_is_asked():
    class Group(aioxide.TaskGroup):
        calls = []

        def _on_task_done(self, task):
            self.calls.append("_on_task_done")
            super()._on_task_done(task)

        def _abort(self):
            self.calls.append("_abort")
            super()._abort()

        def _is_base_error(self, exc):
            self.calls.append("_is_base_error")
            return super()._is_base_error(exc)

        async def _aexit(self, et, exc):
            self.calls.append("_aexit")
            return await super()._aexit(et, exc)

    async def main():
        with pytest.raises(ExceptionGroup):
            async with Group() as group:
                group.create_task(fail(KeyError()))
        assert group._errors is None
        assert Group.calls == ["_aexit", "_on_task_done", "_is_base_error", "_abort"]

    run(main())


def test_common_recipe_to_stop_a_group():
    async def main():
        async with aioxide.TaskGroup() as group:
            group.create_task(wait_forever())
            group._abort()
            group._parent_cancel_requested = True
            group._parent_task.cancel()
            await forever()

    run(main())


def test_not_initialised():
    class Group(aioxide.TaskGroup):
        def __init__(self):
            pass

    group = Group()
    assert repr(group) == "<TaskGroup>"
    with pytest.raises(RuntimeError, match="not initialized"):
        group.create_task(coro := give(1))
    coro.close()


def test_outside_of_a_task():
    async def main():
        caught = forever()

        def enter():
            try:
                aioxide.TaskGroup().__aenter__().send(None)
            except RuntimeError as error:
                caught.set_result(str(error))

        asyncio.get_running_loop().call_soon(enter)
        assert await caught == "TaskGroup <TaskGroup> cannot determine the parent task"

    run(main())


def test_callback_is_named_in_the_repr_of_a_task():
    async def main():
        async with aioxide.TaskGroup() as group:
            task = group.create_task(give(1))
            assert "TaskGroup._on_task_done()" in repr(task)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with 3.14")
def test_awaited_by():
    async def main():
        async with aioxide.TaskGroup() as group:
            task = group.create_task(give(1))
            assert asyncio.current_task() in task._asyncio_awaited_by
        assert not task._asyncio_awaited_by

    run(main())


def test_nothing_is_left_behind():
    class Mark(Exception):
        pass

    async def raise_mark():
        await asyncio.sleep(0)
        raise Mark

    async def main():
        gc.disable()
        try:
            with pytest.raises(ExceptionGroup) as caught:
                async with aioxide.TaskGroup() as group:
                    group.create_task(raise_mark())
            mark = weakref.ref(caught.value.exceptions[0])
            dead = weakref.ref(group)
            del caught, group
            await asyncio.sleep(0)
            assert dead() is None
            assert mark() is None
        finally:
            gc.enable()

    run(main())


def test_cycle_through_a_group_is_collected():
    async def main():
        group = aioxide.TaskGroup()
        group.itself = group
        dead = weakref.ref(group)
        async with group:
            group.create_task(give(1))
        del group
        gc.collect()
        assert dead() is None

    run(main())


def test_group_held_by_its_waiting_parent_alone_is_collected():
    loop = aioxide.new_event_loop()

    async def main():
        async with aioxide.TaskGroup() as group:
            group.create_task(wait_forever()).get_name()
            groups.append(weakref.ref(group))

    groups = []
    task = loop.create_task(main())
    task._log_destroy_pending = False
    loop.call_soon(lambda: [setattr(task, "_log_destroy_pending", False) for task in groups[0]()._tasks])
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()
    del task
    gc.collect()
    assert groups[0]() is None


def test_memory_is_reused_clean():
    async def main():
        for _ in range(3):
            async with aioxide.TaskGroup() as group:
                group.note = 1
                group.cancel()
            del group
            fresh = aioxide.TaskGroup()
            assert not hasattr(fresh, "note")
            assert (repr(fresh), fresh._tasks, fresh._errors) == ("<TaskGroup>", set(), [])
            del fresh

    run(main())
