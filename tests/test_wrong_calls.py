"""Every wrong call gives asyncio's exception and message, its warnings and its reports.

Each snippet runs twice, with the stdlib's asyncio on the stdlib's loop and with aioxide on aioxide's, and has to
fail in the same way. In a snippet, `aio` is the namespace, `loop` the snippet's own loop (running, unless the
snippet is listed under OUTSIDE), `other` a loop that never runs, `closed` a closed one; `f` is a coroutine
function, `g` a function, `park` a coroutine function that never ends by itself.
"""

import asyncio
import gc
import re
import sys
import textwrap
import warnings

import pytest

import aioxide


def running(call):
    """A snippet that calls something of a child that runs."""
    return f"""
process = await aio.create_subprocess_exec('cat', stdin=-1)
try:
    {call}
finally:
    process.stdin.close()
    await process.wait()
    while process._transport._loop is not None:
        await aio.sleep(0)
"""


IN_A_TASK = {
    "sleep": [
        "await aio.sleep()",
        "await aio.sleep('1')",
        "await aio.sleep(None)",
        "await aio.sleep([])",
        "await aio.sleep(1j)",
        "await aio.sleep(0, 1, 2)",
        "await aio.sleep(0, bogus=1)",
        "await aio.sleep(0, delay=0)",
        "await aio.sleep(bogus=1)",
        ("3.13", "await aio.sleep(float('nan'))"),
        "aio.sleep(0).send(1)",
        "aio.sleep(0).throw(ValueError('thrown'))",
        "coro = aio.sleep(0); await coro; await coro",
        "coro = aio.sleep(0); coro.close(); await coro",
        "aio.create_task(aio.sleep)",
    ],
    "create_task": [
        "aio.create_task()",
        "aio.create_task(f)",
        "aio.create_task(g)",
        "aio.create_task(1)",
        "aio.create_task(None)",
        "aio.create_task(loop.create_future())",
        "aio.create_task(f(), 'name')",
        ("3.14", "aio.create_task(bogus=1)"),
        "aio.create_task(name='name')",
        ("3.14", "aio.create_task(f(), bogus=1)"),
        ("3.14", "aio.create_task(f(), loop=loop)"),
    ],
    "loop.create_task": [
        "loop.create_task()",
        "loop.create_task(f)",
        "loop.create_task(1)",
        "loop.create_task(loop.create_future())",
        "loop.create_task(f(), 'name')",
        "closed.create_task(f())",
        "loop.set_task_factory(lambda loop, coro, **kwargs: 1 / 0); loop.create_task(f())",
        "loop.set_task_factory(lambda: None); loop.create_task(f())",
    ],
    "Task": [
        "aio.Task()",
        "aio.Task(1)",
        "aio.Task(f)",
        "aio.Task(None)",
        "aio.Task(loop.create_future())",
        "aio.Task(f(), loop)",
        "aio.Task(f(), bogus=1)",
        "aio.Task(f(), loop=1)",
        "aio.Task(coro=1)",
        "aio.Task(f(), name='a', name2='b')",
    ],
    "Task methods": [
        "aio.create_task(f()).set_result(1)",
        "aio.create_task(f()).set_exception(ValueError())",
        "aio.create_task(f()).set_result()",
        "aio.create_task(f()).result()",
        "aio.create_task(f()).exception()",
        "aio.create_task(f()).result(1)",
        "aio.create_task(f()).exception(1)",
        "aio.create_task(f()).cancel(1, 2)",
        "aio.create_task(f()).cancel(bogus=1)",
        "aio.create_task(f()).set_name()",
        "aio.create_task(f()).set_name('a', 'b')",
        "aio.create_task(f()).get_name(1)",
        "aio.create_task(f()).get_coro(1)",
        ("3.12", "aio.create_task(f()).get_context(1)"),
        "aio.create_task(f()).get_stack(1)",
        "aio.create_task(f()).get_stack(bogus=1)",
        "aio.create_task(f()).print_stack(1)",
        "aio.create_task(f()).print_stack(bogus=1)",
        "aio.create_task(f()).uncancel(1)",
        "aio.create_task(f()).cancelling(1)",
        "aio.create_task(f()).done(1)",
        "aio.create_task(f()).add_done_callback()",
        "aio.create_task(f()).add_done_callback(g, 1)",
        "aio.create_task(f()).add_done_callback(g, bogus=1)",
        "aio.create_task(f()).remove_done_callback()",
        "aio.create_task(f()).no_such_attribute",
        ("3.14", "del aio.current_task()._log_destroy_pending"),
        "aio.create_task(f())._coro = 1",
        "aio.create_task(f())._fut_waiter = 1",
        "aio.create_task(f())._must_cancel = True",
        "task = aio.create_task(park()); task.cancel('why'); await task",
        "task = aio.create_task(park()); task.cancel(); await aio.wait([task]); task.result()",
        "task = aio.create_task(park()); task.cancel('why'); await aio.wait([task]); task.exception()",
        "aio.current_task().cancel('self'); await aio.sleep(0)",
        "task = aio.create_task(f(ValueError('inside'))); await task",
        "aio.create_task(f())()",
        "aio.create_task(f()) + 1",
        "aio.create_task(f()) < aio.create_task(f())",
        "len(aio.create_task(f()))",
        "async with aio.create_task(f()): pass",
    ],
    "what a task awaits": [
        "await None",
        "await 1",
        "await f",
        "await aio",
        """
        async def me():
            await task
        task = aio.create_task(me())
        await task
        """,
        """
        class Bad:
            def __await__(self):
                yield 5
        await Bad()
        """,
        """
        class Bad:
            def __await__(self):
                yield 'text'
        await aio.create_task(f(Bad()))
        """,
        """
        class Bad:
            def __await__(self):
                yield loop.create_future()
        await Bad()
        """,
        """
        class Bad:
            def __await__(self):
                return 5
        await Bad()
        """,
        """
        class Bad:
            def __await__(self):
                yield (i for i in ())
        await Bad()
        """,
        "await other.create_future()",
        "await aio.create_task(f(other.create_future()))",
        "coro = f(); await coro; await coro",
        "coro = f(); coro.close(); await aio.create_task(coro)",
        """
        async def parked():
            await future
        future = loop.create_future()
        coro = parked()
        aio.create_task(coro)
        await aio.sleep(0)
        await coro
        """,
    ],
    "ensure_future": [
        "aio.ensure_future()",
        "aio.ensure_future(1)",
        "aio.ensure_future(None)",
        "aio.ensure_future(f)",
        "aio.ensure_future([f])",
        "aio.ensure_future(f, loop=loop)",
        "aio.ensure_future(loop.create_future(), loop=other)",
        "aio.ensure_future(f(), loop)",
        "aio.ensure_future(f(), bogus=1)",
        "aio.ensure_future(f(), loop=1)",
        "aio.ensure_future(f(), loop=closed)",
    ],
    "gather": [
        "aio.gather(1)",
        "aio.gather(None)",
        "aio.gather(f)",
        "aio.gather([f])",
        "aio.gather({})",
        "aio.gather(loop.create_future(), bogus=1)",
        "aio.gather(loop.create_future(), other.create_future())",
        "aio.gather(f(), 1)",
        "await aio.gather(other.create_future())",
        "aio.gather(loop.create_future()).result()",
        "await aio.gather(f(ValueError('one')), f(KeyError('two')))",
        "outer = aio.gather(park()); outer.cancel('why'); await outer",
        "outer = aio.gather(park()); outer.cancel(1, 2)",
        "child = aio.create_task(park()); outer = aio.gather(child); child.cancel('why'); await outer",
        "outer = aio.gather(); outer.set_result(1); outer.set_result(2)",
    ],
    "wait": [
        "await aio.wait()",
        "await aio.wait([])",
        "await aio.wait(())",
        "await aio.wait([f()])",
        "await aio.wait(f())",
        "await aio.wait(loop.create_future())",
        "await aio.wait(1)",
        "await aio.wait(None)",
        "await aio.wait([1])",
        "await aio.wait([loop.create_future()], 1)",
        "await aio.wait([loop.create_future()], return_when='whenever')",
        "await aio.wait([loop.create_future()], return_when=None)",
        "await aio.wait([loop.create_future()], timeout='x')",
        "await aio.wait([loop.create_future()], bogus=1)",
        "await aio.wait([[]])",
        "await aio.wait(1 / 0 for _ in 'x')",
    ],
    "wait_for": [
        "await aio.wait_for()",
        "await aio.wait_for(f())",
        "await aio.wait_for(f, 1)",
        "await aio.wait_for(1, 1)",
        "await aio.wait_for(1, None)",
        "await aio.wait_for(1, 0)",
        "await aio.wait_for(f(), 1, 2)",
        "await aio.wait_for(f(), 1, timeout=2)",
        "await aio.wait_for(f(), timeout=1, bogus=2)",
        "await aio.wait_for(park(), 'x')",
        "await aio.wait_for(park(), 0)",
        "await aio.wait_for(park(), -1)",
        "await aio.wait_for(loop.create_future(), 0)",
        "await aio.wait_for(loop.create_future(), 0.001)",
        "await aio.wait_for(other.create_future(), None)",
        "await aio.wait_for(f(ValueError('inside')), 60)",
        "coro = f(); await coro; await aio.wait_for(coro, 60)",
    ],
    "as_completed": [
        "aio.as_completed()",
        ("3.13", "aio.as_completed(f())"),
        ("3.13", "aio.as_completed(loop.create_future())"),
        ("3.13", "aio.as_completed(1)"),
        "list(aio.as_completed(1))",
        "list(aio.as_completed(f()))",
        "list(aio.as_completed([1]))",
        "list(aio.as_completed([f]))",
        "aio.as_completed([loop.create_future()], 1)",
        "aio.as_completed([loop.create_future()], bogus=1)",
        "for item in aio.as_completed([loop.create_future()], timeout=0.001): await item",
        "for item in aio.as_completed([loop.create_future()], timeout='x'): await item",
        "for item in aio.as_completed([f(ValueError('inside'))]): await item",
        ("3.13", "async for item in aio.as_completed([loop.create_future()], timeout=0.001): pass"),
        ("3.13", "async for item in aio.as_completed([f(ValueError('inside'))]): await item"),
        "next(iter(aio.as_completed([])))",
    ],
    "shield": [
        "aio.shield()",
        "aio.shield(1)",
        "aio.shield(None)",
        "aio.shield(f)",
        "aio.shield(f(), 1)",
        "aio.shield(f(), bogus=1)",
        "await aio.shield(f(ValueError('inside')))",
        "outer = aio.shield(loop.create_future()); outer.cancel('why'); await outer",
        "inner = loop.create_future(); outer = aio.shield(inner); inner.cancel('why'); await outer",
        "await aio.shield(other.create_future())",
    ],
    "timeout": [
        "aio.timeout()",
        "aio.timeout('x')",
        "aio.timeout([])",
        "aio.timeout(1, 2)",
        "aio.timeout(bogus=1)",
        "aio.timeout_at()",
        "aio.timeout_at(1, 2)",
        "aio.timeout_at(bogus=1)",
        "aio.Timeout()",
        "aio.Timeout(1, 2)",
        "with aio.timeout(1): pass",
        "async with aio.timeout_at('x'): pass",
        "async with aio.timeout(0): await park()",
        "async with aio.timeout(-1): await park()",
        "async with aio.timeout_at(0): await park()",
        "async with aio.timeout(0.001): await park()",
        "async with aio.timeout(60): raise ValueError('inside')",
        "aio.timeout(1).reschedule(1)",
        "aio.timeout(1).reschedule()",
        "aio.timeout(1).reschedule(1, 2)",
        "aio.timeout(1).when(1)",
        "aio.timeout(1).expired(1)",
        "aio.timeout(1)._when = 'x'; aio.timeout(1).no_such_attribute",
        """
        block = aio.timeout(60)
        async with block:
            pass
        block.reschedule(1)
        """,
        """
        block = aio.timeout(60)
        async with block:
            pass
        async with block:
            pass
        """,
        """
        block = aio.timeout(60)
        async with block:
            async with block:
                pass
        """,
        """
        try:
            async with aio.timeout(0) as block:
                await park()
        except TimeoutError:
            pass
        block.reschedule(1)
        """,
        """
        async with aio.timeout(0) as block:
            try:
                await park()
            finally:
                block.reschedule(1)
        """,
        """
        async with aio.timeout(60) as block:
            block.reschedule('x')
        """,
        """
        async with aio.timeout(60) as block:
            aio.current_task().cancel('from outside')
            await park()
        """,
    ],
    "TaskGroup": [
        "aio.TaskGroup(1)",
        "aio.TaskGroup(bogus=1)",
        "with aio.TaskGroup(): pass",
        "aio.TaskGroup().create_task(f())",
        "aio.TaskGroup().create_task()",
        "aio.TaskGroup().create_task(f(), 'name')",
        "await aio.TaskGroup().__aexit__(None, None)",
        """
        async with aio.TaskGroup() as group:
            group.create_task(1)
        """,
        """
        async with aio.TaskGroup() as group:
            group.create_task(f)
        """,
        """
        async with aio.TaskGroup() as group:
            pass
        group.create_task(f())
        """,
        """
        async with aio.TaskGroup() as group:
            pass
        async with group:
            pass
        """,
        """
        async with aio.TaskGroup() as group:
            async with group:
                pass
        """,
        """
        async with aio.TaskGroup() as group:
            raise ValueError('inside')
        """,
        """
        async with aio.TaskGroup() as group:
            group.create_task(f(ValueError('inside')))
        """,
        """
        async with aio.TaskGroup() as group:
            group.create_task(f(ValueError('one')))
            group.create_task(f(ValueError('two')))
            raise KeyError('body')
        """,
        """
        async with aio.TaskGroup() as group:
            group.create_task(f(ValueError('inside')))
            try:
                await park()
            except aio.CancelledError:
                group.create_task(f())
        """,
        """
        async with aio.TaskGroup() as group:
            group.create_task(park())
            aio.current_task().cancel('from outside')
            await aio.sleep(0)
        """,
        ("3.15", "aio.TaskGroup().cancel(1)"),
    ],
    "to_thread": [
        "await aio.to_thread()",
        "await aio.to_thread(1)",
        "await aio.to_thread(None)",
        "await aio.to_thread(g, 1, bogus=2)",
        "await aio.to_thread(func=g)",
        "await aio.to_thread(int, 'x')",
        "aio.to_thread(g); raise LookupError('the warning is what counts')",
    ],
    "run_coroutine_threadsafe": [
        "aio.run_coroutine_threadsafe()",
        "aio.run_coroutine_threadsafe(1, loop)",
        "aio.run_coroutine_threadsafe(f, loop)",
        "aio.run_coroutine_threadsafe(loop.create_future(), loop)",
        "aio.run_coroutine_threadsafe(f)",
        "aio.run_coroutine_threadsafe(f(), 1)",
        "aio.run_coroutine_threadsafe(f(), closed)",
        "aio.run_coroutine_threadsafe(f(), loop, 1)",
    ],
    "asking": [
        "aio.current_task(1, 2)",
        "aio.current_task(bogus=1)",
        "aio.all_tasks(1, 2)",
        "aio.all_tasks(bogus=1)",
        "aio.iscoroutine()",
        "aio.iscoroutine(1, 2)",
        "aio.iscoroutinefunction()",
        "aio.iscoroutinefunction(1, 2)",
        "aio.isfuture()",
        "aio.isfuture(1, 2)",
        "aio.get_running_loop(1)",
        "aio.get_event_loop(1)",
        "aio.set_event_loop()",
        "aio.new_event_loop(1)",
        "aio._enter_task(loop, 1)",
        "aio._leave_task(loop, 1)",
        "aio._enter_task(loop)",
        "aio._register_task()",
    ],
    "eager tasks": [
        ("3.12", "aio.eager_task_factory()"),
        ("3.12", "aio.eager_task_factory(loop)"),
        ("3.12", "aio.eager_task_factory(loop, 1)"),
        ("3.14", "aio.eager_task_factory(loop, f(), bogus=1)"),
        ("3.12", "aio.create_eager_task_factory()"),
        ("3.12", "aio.create_eager_task_factory(1)(loop, f())"),
        ("3.12", "loop.set_task_factory(aio.eager_task_factory); await aio.create_task(f(ValueError('inside')))"),
    ],
    "nested run": [
        "aio.run(f())",
        "aio.run()",
        "loop.run_forever()",
        "loop.run_until_complete(f())",
        "loop.run_until_complete(loop.create_future())",
        "other.run_forever()",
        "other.run_until_complete(f())",
        "aio.Runner().run(f())",
        """
        with aio.Runner() as runner:
            runner.run(f())
        """,
        "loop.close()",
    ],
    "Future": [
        "aio.Future(1)",
        "aio.Future(loop)",
        "aio.Future(bogus=1)",
        "aio.Future(loop=1)",
        "aio.Future(loop='x')",
        "loop.create_future(1)",
        "aio.Future.__new__(aio.Future).result()",
        "aio.Future.__new__(aio.Future).set_result(1)",
        "aio.Future.__new__(aio.Future).add_done_callback(g)",
        "aio.Future.__new__(aio.Future).get_loop()",
        "aio.Task.__new__(aio.Task).result()",
        "aio.Future.result()",
        "aio.Future.result(1)",
        "aio.Future.set_result(1, 2)",
    ],
    "Future methods": [
        "loop.create_future().result()",
        "loop.create_future().exception()",
        "loop.create_future().result(1)",
        "loop.create_future().done(1)",
        "loop.create_future().cancelled(1)",
        "loop.create_future().get_loop(1)",
        "loop.create_future().cancel(1, 2)",
        "loop.create_future().cancel(bogus=1)",
        "loop.create_future().set_result()",
        "loop.create_future().set_result(1, 2)",
        "loop.create_future().set_result(result=1, bogus=2)",
        "loop.create_future().set_exception()",
        "loop.create_future().set_exception(1)",
        "loop.create_future().set_exception(None)",
        "loop.create_future().set_exception('text')",
        "loop.create_future().set_exception(int)",
        "loop.create_future().set_exception(ValueError, 1)",
        "loop.create_future().add_done_callback()",
        "loop.create_future().add_done_callback(g, 1)",
        "loop.create_future().add_done_callback(g, bogus=1)",
        "loop.create_future().remove_done_callback()",
        "loop.create_future().remove_done_callback(g, 1)",
        "loop.create_future().no_such_attribute",
        "loop.create_future()._state = 'x'",
        "loop.create_future()._result = 'x'",
        "loop.create_future()._callbacks = []",
        "loop.create_future()._log_traceback = True",
        "loop.create_future()._log_traceback = 1",
        ("3.14", "del loop.create_future()._log_traceback"),
        "loop.create_future()()",
        "len(loop.create_future())",
        "loop.create_future() < loop.create_future()",
        "with loop.create_future(): pass",
        "future = loop.create_future(); future.set_result(1); future.set_result(2)",
        "future = loop.create_future(); future.set_result(1); future.set_exception(ValueError())",
        "future = loop.create_future(); future.cancel(); future.set_result(2)",
        "future = loop.create_future(); future.cancel(); future.result()",
        "future = loop.create_future(); future.cancel('why'); future.result()",
        "future = loop.create_future(); future.cancel('why'); future.exception()",
        "future = loop.create_future(); future.set_exception(ValueError('set')); future.result()",
        "future = loop.create_future(); future.set_exception(ValueError); await future",
        "future = loop.create_future(); future.set_exception(TimeoutError()); await future",
        "it = iter(loop.create_future()); next(it); next(it)",
        "it = loop.create_future().__await__(); it.send(None); it.send(None)",
        "loop.create_future().__await__().throw()",
        "loop.create_future().__await__().throw(1)",
        "loop.create_future().__await__().throw(ValueError('thrown'))",
        "loop.create_future().__await__().throw(ValueError, 'thrown')",
        "loop.create_future().__await__().throw(ValueError, 'thrown', 1)",
        "loop.create_future().__await__().throw(ValueError('x'), 'y')",
        "loop.create_future().__await__().send()",
    ],
    "wrap_future": [
        "aio.wrap_future()",
        "aio.wrap_future(1)",
        "aio.wrap_future(None)",
        "aio.wrap_future(1, loop)",
        "aio.wrap_future(1, bogus=1)",
    ],
    "Lock": [
        "aio.Lock(1)",
        "aio.Lock(loop=loop)",
        "aio.Lock(bogus=1)",
        "aio.Lock().release()",
        "aio.Lock().release(1)",
        "aio.Lock().locked(1)",
        "await aio.Lock().acquire(1)",
        "await aio.Lock()",
        "with aio.Lock(): pass",
        "aio.Lock().no_such_attribute",
        "lock = aio.Lock(); await lock.acquire(); lock.release(); lock.release()",
        "lock = aio.Lock(); await lock.__aexit__(None, None, None)",
        "aio.Lock().acquire(); raise LookupError('the warning is what counts')",
        "lock = aio.Lock(); await lock.acquire(); await aio.wait_for(lock.acquire(), 0.001)",
    ],
    "Event": [
        "aio.Event(1)",
        "aio.Event(loop=loop)",
        "aio.Event().set(1)",
        "aio.Event().clear(1)",
        "aio.Event().is_set(1)",
        "await aio.Event().wait(1)",
        "await aio.Event()",
        "async with aio.Event(): pass",
        "aio.Event().wait(); raise LookupError('the warning is what counts')",
        "await aio.wait_for(aio.Event().wait(), 0.001)",
    ],
    "Condition": [
        "aio.Condition(1)",
        "aio.Condition('x')",
        "aio.Condition(None, 1)",
        "aio.Condition(loop=loop)",
        "aio.Condition().release()",
        "aio.Condition().notify()",
        "aio.Condition().notify_all()",
        "aio.Condition().notify(1, 2)",
        "aio.Condition().notify_all(1)",
        "aio.Condition().locked(1)",
        "await aio.Condition().wait()",
        "await aio.Condition().wait(1)",
        "await aio.Condition().wait_for()",
        "with aio.Condition(): pass",
        """
        condition = aio.Condition()
        async with condition:
            await condition.wait_for(1)
        """,
        """
        condition = aio.Condition()
        async with condition:
            await condition.wait_for(lambda: 1 / 0)
        """,
        """
        condition = aio.Condition()
        async def waiter():
            async with condition:
                await condition.wait()
        aio.create_task(waiter())
        await aio.sleep(0)
        async with condition:
            condition.notify('x')
        """,
        """
        condition = aio.Condition()
        async with condition:
            await aio.wait_for(condition.wait(), 0.001)
        """,
    ],
    "Semaphore": [
        "aio.Semaphore(-1)",
        "aio.Semaphore('x')",
        "aio.Semaphore(None)",
        "aio.Semaphore(1, 2)",
        "aio.Semaphore(loop=loop)",
        "aio.Semaphore(bogus=1)",
        "aio.Semaphore().release(1)",
        "aio.Semaphore().locked(1)",
        "await aio.Semaphore().acquire(1)",
        "with aio.Semaphore(): pass",
        "await aio.Semaphore()",
        "await aio.wait_for(aio.Semaphore(0).acquire(), 0.001)",
        "aio.Semaphore().acquire(); raise LookupError('the warning is what counts')",
        "aio.BoundedSemaphore(-1)",
        "aio.BoundedSemaphore('x')",
        "aio.BoundedSemaphore(1, 2)",
        "aio.BoundedSemaphore(bogus=1)",
        "aio.BoundedSemaphore().release()",
        "aio.BoundedSemaphore(2).release()",
    ],
    "Barrier": [
        "aio.Barrier()",
        "aio.Barrier(0)",
        "aio.Barrier(-1)",
        "aio.Barrier('x')",
        "aio.Barrier(None)",
        "aio.Barrier(1, 2)",
        "aio.Barrier(bogus=1)",
        "await aio.Barrier(1).wait(1)",
        "await aio.Barrier(1).reset(1)",
        "await aio.Barrier(1).abort(1)",
        "with aio.Barrier(1): pass",
        "aio.Barrier(1).parties = 2",
        "aio.Barrier(1).n_waiting = 2",
        "aio.Barrier(1).broken = True",
        "aio.Barrier(1).parties()",
        "barrier = aio.Barrier(2); await barrier.abort(); await barrier.wait()",
        """
        barrier = aio.Barrier(3)
        task = aio.create_task(barrier.wait())
        await aio.sleep(0)
        await barrier.abort()
        await task
        """,
        """
        barrier = aio.Barrier(3)
        task = aio.create_task(barrier.wait())
        await aio.sleep(0)
        await barrier.reset()
        await task
        """,
    ],
    "Queue": [
        "aio.Queue(1, 2)",
        "aio.Queue(bogus=1)",
        "aio.Queue(loop=loop)",
        "aio.Queue('x').put_nowait(1)",
        "aio.Queue(None).put_nowait(1)",
        "aio.Queue().get_nowait()",
        "aio.Queue().get_nowait(1)",
        "aio.Queue().put_nowait()",
        "aio.Queue().put_nowait(1, 2)",
        "await aio.Queue().put()",
        "await aio.Queue().put(1, 2)",
        "await aio.Queue().get(1)",
        "await aio.Queue().join(1)",
        "aio.Queue().qsize(1)",
        "aio.Queue().empty(1)",
        "aio.Queue().full(1)",
        "aio.Queue().task_done()",
        "aio.Queue().task_done(1)",
        "aio.Queue().maxsize = 3",
        "aio.Queue().maxsize()",
        "len(aio.Queue())",
        "iter(aio.Queue())",
        "await aio.Queue()",
        "async with aio.Queue(): pass",
        "queue = aio.Queue(1); queue.put_nowait(1); queue.put_nowait(2)",
        "queue = aio.Queue(); queue.put_nowait(1); queue.task_done(); queue.task_done()",
        "aio.Queue().get(); raise LookupError('the warning is what counts')",
        "aio.Queue().put(1); raise LookupError('the warning is what counts')",
        "await aio.wait_for(aio.Queue().get(), 0.001)",
        "queue = aio.Queue(1); queue.put_nowait(1); await aio.wait_for(queue.put(2), 0.001)",
        "queue = aio.Queue(); queue.put_nowait(1); await aio.wait_for(queue.join(), 0.001)",
        ("3.13", "aio.Queue().shutdown(True, True)"),
        ("3.13", "aio.Queue().shutdown(bogus=1)"),
        ("3.13", "queue = aio.Queue(); queue.shutdown(); queue.put_nowait(1)"),
        ("3.13", "queue = aio.Queue(); queue.shutdown(); queue.get_nowait()"),
        ("3.13", "queue = aio.Queue(); queue.shutdown(); await queue.put(1)"),
        ("3.13", "queue = aio.Queue(); queue.shutdown(); await queue.get()"),
        ("3.13", "queue = aio.Queue(); queue.put_nowait(1); queue.shutdown(immediate=True); await queue.get()"),
        (
            "3.13",
            """
            queue = aio.Queue()
            getter = aio.create_task(queue.get())
            await aio.sleep(0)
            queue.shutdown()
            await getter
            """,
        ),
        "aio.PriorityQueue(1, 2)",
        "aio.PriorityQueue().get_nowait()",
        "queue = aio.PriorityQueue(); queue.put_nowait(1); queue.put_nowait('x')",
        "queue = aio.PriorityQueue(); queue.put_nowait(object()); queue.put_nowait(object())",
        "queue = aio.PriorityQueue(1); queue.put_nowait(1); queue.put_nowait(2)",
        "aio.LifoQueue(1, 2)",
        "aio.LifoQueue().get_nowait()",
        "aio.LifoQueue().task_done()",
        "queue = aio.LifoQueue(1); queue.put_nowait(1); queue.put_nowait(2)",
    ],
    "loop, scheduling": [
        "loop.call_soon()",
        "loop.call_soon(bogus=1)",
        "loop.call_soon(g, bogus=1)",
        "loop.call_soon_threadsafe()",
        "loop.call_soon_threadsafe(g, bogus=1)",
        "loop.call_later()",
        "loop.call_later(1)",
        "loop.call_later(None, g)",
        "loop.call_later('x', g)",
        "loop.call_later([], g)",
        "loop.call_later(1, g, bogus=1)",
        "loop.call_at()",
        "loop.call_at(1)",
        "loop.call_at(None, g)",
        "loop.call_at(1, g, bogus=1)",
        "loop.time(1)",
        "closed.call_soon(g)",
        "closed.call_soon_threadsafe(g)",
        "closed.call_later(1, g)",
        "closed.call_at(1, g)",
        "loop.set_debug(True); loop.call_soon(1)",
        "loop.set_debug(True); loop.call_soon(None)",
        "loop.set_debug(True); loop.call_soon(f)",
        "loop.set_debug(True); coro = f(); coro.close(); loop.call_soon(coro)",
        "loop.set_debug(True); loop.call_soon_threadsafe(1)",
        "loop.set_debug(True); loop.call_soon_threadsafe(f)",
        "loop.set_debug(True); loop.call_later(1, f)",
        "loop.set_debug(True); loop.call_later(1, 2)",
        "loop.set_debug(True); loop.call_at(1, f)",
        "loop.set_debug(True); loop.call_at(1, 2)",
        "loop.set_debug(True); await loop.run_in_executor(None, lambda: loop.call_soon(g))",
        "loop.set_debug(True); await loop.run_in_executor(None, lambda: loop.call_later(1, g))",
        "loop.set_debug(True); await loop.run_in_executor(None, lambda: loop.call_at(1, g))",
    ],
    "loop, handles": [
        "aio.Handle()",
        "aio.Handle(g)",
        "aio.Handle(g, ())",
        "aio.Handle(g, (), loop, None, 1)",
        "aio.Handle(g, (), loop, bogus=1)",
        "aio.TimerHandle()",
        "aio.TimerHandle(1, g, ())",
        "aio.TimerHandle(1, g, (), loop, None, 1)",
        "loop.call_soon(g).cancel(1)",
        "loop.call_soon(g).cancelled(1)",
        "loop.call_soon(g).no_such_attribute",
        "loop.call_soon(g).when()",
        "loop.call_soon(g) < loop.call_soon(g)",
        "loop.call_soon(g)()",
        "loop.call_later(60, g).when(1)",
        "loop.call_later(60, g) < 1",
        "loop.call_later(60, g) >= None",
        "loop.call_later(60, g) <= loop.call_soon(g)",
    ],
    "loop, settings": [
        "loop.set_task_factory(1)",
        "loop.set_task_factory('x')",
        "loop.set_task_factory()",
        "loop.get_task_factory(1)",
        "loop.set_exception_handler(1)",
        "loop.set_exception_handler()",
        "loop.get_exception_handler(1)",
        "loop.call_exception_handler()",
        "loop.default_exception_handler()",
        "loop.set_debug()",
        "loop.set_debug(1, 2)",
        "loop.get_debug(1)",
        "loop.is_running(1)",
        "loop.is_closed(1)",
        "loop.stop(1)",
        "loop.close(1)",
        "await loop.shutdown_asyncgens(1)",
        "await loop.shutdown_default_executor(bogus=1)",
    ],
    "loop, executor": [
        "loop.run_in_executor()",
        "loop.run_in_executor(None)",
        "loop.run_in_executor(1, g)",
        "loop.run_in_executor('x', g)",
        "await loop.run_in_executor(None, 1)",
        "await loop.run_in_executor(None, g, 1)",
        "loop.run_in_executor(None, g, bogus=1)",
        "closed.run_in_executor(None, g)",
        "loop.set_default_executor(1)",
        "loop.set_default_executor(None)",
        "loop.set_default_executor()",
        "await loop.shutdown_default_executor(); loop.run_in_executor(None, g)",
        "loop.set_debug(True); loop.run_in_executor(None, f)",
        "loop.set_debug(True); loop.run_in_executor(None, 1)",
    ],
    "loop, descriptors": [
        "loop.add_reader()",
        "loop.add_reader(0)",
        "loop.add_reader('x', g)",
        "loop.add_reader(None, g)",
        "loop.add_reader(-1, g)",
        "loop.add_reader(1.5, g)",
        "loop.add_reader(object(), g)",
        "loop.add_reader(1000000, g)",
        "loop.add_reader(0, g, bogus=1)",
        "loop.add_writer()",
        "loop.add_writer(0)",
        "loop.add_writer('x', g)",
        "loop.add_writer(-1, g)",
        "loop.add_writer(1000000, g)",
        "loop.remove_reader()",
        "loop.remove_reader('x')",
        "loop.remove_reader(-1)",
        "loop.remove_reader(0, 1)",
        "loop.remove_writer()",
        "loop.remove_writer('x')",
        "loop.remove_writer(-1)",
        "closed.add_reader(0, g)",
        "closed.add_writer(0, g)",
    ],
    "reports": [
        # The loop goes on after these; what counts is the report to its exception handler.
        "loop.call_soon(1); await aio.sleep(0); raise LookupError('the report is what counts')",
        "loop.call_soon(g, 1); await aio.sleep(0); raise LookupError('the report is what counts')",
        "loop.call_later(0, g, 1); await aio.sleep(0.001); raise LookupError('the report is what counts')",
        "loop.call_soon_threadsafe(None); await aio.sleep(0.001); raise LookupError('the report is what counts')",
        "loop.create_future().set_exception(ValueError('lost')); raise LookupError('the report is what counts')",
        """
        future = loop.create_future()
        future.add_done_callback(1)
        future.set_result(None)
        await aio.sleep(0)
        raise LookupError('the report is what counts')
        """,
        """
        future = loop.create_future()
        future.add_done_callback(lambda: None)
        future.cancel()
        await aio.sleep(0)
        raise LookupError('the report is what counts')
        """,
        """
        task = aio.create_task(f(ValueError('lost')))
        await aio.wait([task])
        del task
        raise LookupError('the report is what counts')
        """,
        (
            "3.14",
            """
            inner = aio.create_task(f(ValueError('lost')))
            outer = aio.shield(inner)
            outer.cancel()
            await aio.wait([inner])
            del inner, outer
            await aio.sleep(0)
            raise LookupError('the report is what counts')
            """,
        ),
    ],
    "subprocesses": [
        "await aio.create_subprocess_exec()",
        "await aio.create_subprocess_shell()",
        "await aio.create_subprocess_shell('true', 1, 2, 3, 4, 5)",
        "await aio.create_subprocess_shell(['true'])",
        "await aio.create_subprocess_shell(None)",
        "await aio.create_subprocess_exec('true', program='false')",
        "await aio.create_subprocess_exec('true', text=True)",
        "await aio.create_subprocess_exec('true', universal_newlines=True)",
        "await aio.create_subprocess_exec('true', encoding='utf-8')",
        "await aio.create_subprocess_exec('true', errors='strict')",
        "await aio.create_subprocess_exec('true', shell=True)",
        "await aio.create_subprocess_shell('true', shell=False)",
        "await aio.create_subprocess_exec('true', bufsize=-1)",
        "await aio.create_subprocess_exec('true', bufsize='0')",
        "await aio.create_subprocess_exec('true', nonsense=1)",
        "await aio.create_subprocess_exec('/nonexistent')",
        "await aio.create_subprocess_exec(b'/nonexistent')",
        "await aio.create_subprocess_exec('true', cwd='/nonexistent')",
        "await aio.create_subprocess_exec(1)",
        "await aio.create_subprocess_exec('true', 1)",
        "await aio.create_subprocess_exec(['true'])",
        "await aio.create_subprocess_exec('true', protocol_factory=1)",
        "await loop.subprocess_exec()",
        "await loop.subprocess_exec(g)",
        "await loop.subprocess_exec(None, 'true')",
        "await loop.subprocess_exec(1, 'true')",
        "await loop.subprocess_shell(g)",
        "await loop.subprocess_shell(g, 'true', 1)",
        "await loop.subprocess_shell(g, 1)",
        "await loop.subprocess_exec(lambda: 1 / 0, 'true')",
        "aio.subprocess.Process()",
        "aio.subprocess.Process(1, 2, 3)",
        "aio.subprocess.Process(1, 2, 3, 4)",
        "aio.subprocess.SubprocessStreamProtocol()",
        "aio.subprocess.SubprocessStreamProtocol(1)",
        "aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop).connection_made()",
        "aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop).connection_made(1)",
        "aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop).pipe_data_received(1)",
        "aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop).pipe_connection_lost(1)",
        "aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop).resume_writing()",
        "protocol = aio.subprocess.SubprocessStreamProtocol(limit=1, loop=loop); protocol.process_exited()",
        running("process.returncode = 1"),
        running("process.returncode()"),
        running("process.send_signal()"),
        running("process.kill(9)"),
        running("process.terminate(9)"),
        running("await process.wait(1)"),
        running("await process.communicate(1, 2)"),
        running("await process.communicate(1)"),
        running("await process.communicate('text')"),
        running("process._transport.get_pipe_transport()"),
        running("process._transport.get_pipe_transport([])"),
        running("process._transport._process_exited(None)"),
        running("process.nonsense"),
    ],
}
"""Area to the snippets that run inside a task."""

OUTSIDE = {
    "no running loop": [
        "aio.create_task(f())",
        "aio.ensure_future(1)",
        "aio.current_task()",
        "aio.all_tasks()",
        "aio.get_running_loop()",
        "aio.timeout(1)",
        "aio.gather(1)",
        "aio.shield(1)",
        "aio.wait([]).send(None)",
        "aio.sleep(1).send(None)",
        "aio.to_thread(g).send(None)",
        "aio.wait_for(f(), 1).send(None)",
        "aio.Event().wait().send(None)",
        "aio.Queue().get().send(None)",
        "aio.TaskGroup().__aenter__().send(None)",
        "aio.Timeout(None).__aenter__().send(None)",
        ("3.14", "aio.get_event_loop()"),
        ("3.14", "aio.Future()"),
        ("3.14", "aio.Task(f())"),
        ("3.14", "aio.ensure_future(f())"),
        ("3.14", "aio.gather(f())"),
    ],
    "run": [
        "aio.run()",
        "aio.run(f)",
        "aio.run(1)",
        "aio.run(None)",
        "aio.run(g)",
        "aio.run(f(), 1)",
        "aio.run(f(), bogus=1)",
        "aio.run(f(ValueError('inside')))",
        "aio.run(f(aio.CancelledError('inside')))",
        ("3.12", "aio.run(f(), loop_factory=1)"),
        ("3.12", "aio.run(f(), loop_factory=lambda: None)"),
    ],
    "Runner": [
        "aio.Runner(1)",
        "aio.Runner(bogus=1)",
        "with aio.Runner(loop_factory=1): pass",
        """
        with aio.Runner() as runner:
            runner.run(f)
        """,
        """
        with aio.Runner() as runner:
            runner.run(1)
        """,
        """
        with aio.Runner() as runner:
            runner.run()
        """,
        """
        with aio.Runner() as runner:
            runner.run(f(), 1)
        """,
        """
        with aio.Runner() as runner:
            runner.run(f(), bogus=1)
        """,
        """
        with aio.Runner() as runner:
            runner.run(f(ValueError('inside')))
        """,
        """
        with aio.Runner() as runner:
            runner.get_loop(1)
        """,
        """
        with aio.Runner() as runner:
            pass
        runner.get_loop()
        """,
        """
        with aio.Runner() as runner:
            pass
        runner.run(f())
        """,
        """
        with aio.Runner() as runner:
            async def nested():
                runner.run(f())
            runner.run(nested())
        """,
    ],
    "loop": [
        "loop.run_until_complete()",
        "loop.run_until_complete(1)",
        "loop.run_until_complete(None)",
        "loop.run_until_complete(f)",
        "loop.run_until_complete(f(), 1)",
        "loop.run_until_complete(other.create_future())",
        "loop.run_until_complete(f(ValueError('inside')))",
        "loop.run_forever(1)",
        "closed.run_forever()",
        "closed.run_until_complete(f())",
        "closed.run_until_complete(closed.create_future())",
        "loop.call_soon(loop.stop); loop.run_until_complete(loop.create_future())",
        "loop.call_soon(loop.stop); loop.run_until_complete(park())",
        "loop.run_until_complete(aio.sleep('x'))",
        "loop.run_until_complete(loop.shutdown_asyncgens(1))",
        "future = loop.create_future(); future.cancel('why'); loop.run_until_complete(future)",
        "task = loop.create_task(park()); task.cancel('why'); loop.run_until_complete(task)",
        ("3.12", "aio.set_event_loop(1)"),
        ("3.12", "aio.set_event_loop('x')"),
    ],
    "bound to another loop": [
        # The object is used with contention on `other` first, then on `loop`.
        """
        lock = aio.Lock()
        async def contend():
            await lock.acquire()
            waiter = aio.create_task(lock.acquire())
            await aio.sleep(0)
            waiter.cancel()
            await aio.wait([waiter])
        other.run_until_complete(contend())
        loop.run_until_complete(lock.acquire())
        """,
        """
        event = aio.Event()
        async def contend():
            waiter = aio.create_task(event.wait())
            await aio.sleep(0)
            waiter.cancel()
            await aio.wait([waiter])
        other.run_until_complete(contend())
        loop.run_until_complete(event.wait())
        """,
        """
        semaphore = aio.Semaphore(0)
        async def contend():
            waiter = aio.create_task(semaphore.acquire())
            await aio.sleep(0)
            waiter.cancel()
            await aio.wait([waiter])
        other.run_until_complete(contend())
        loop.run_until_complete(semaphore.acquire())
        """,
        """
        queue = aio.Queue()
        async def contend():
            waiter = aio.create_task(queue.get())
            await aio.sleep(0)
            waiter.cancel()
            await aio.wait([waiter])
        other.run_until_complete(contend())
        loop.run_until_complete(queue.get())
        """,
        """
        queue = aio.Queue(1)
        queue.put_nowait(1)
        async def contend():
            waiter = aio.create_task(queue.put(2))
            await aio.sleep(0)
            waiter.cancel()
            await aio.wait([waiter])
        other.run_until_complete(contend())
        loop.run_until_complete(queue.put(3))
        """,
        # Up to 3.12 it gave up the lock before it looked at the loop.
        (
            "3.13",
            """
            condition = aio.Condition()
            async def wait():
                async with condition:
                    await condition.wait()
            async def contend():
                waiter = aio.create_task(wait())
                await aio.sleep(0)
                waiter.cancel()
                await aio.wait([waiter])
            other.run_until_complete(contend())
            loop.run_until_complete(wait())
            """,
        ),
    ],
}
"""Area to the snippets that run without a running loop."""


def table():
    """All rows as pytest parameters."""
    for place, areas in (("in a task", IN_A_TASK), ("outside", OUTSIDE)):
        for area, snippets in areas.items():
            for snippet in snippets:
                since, code = snippet if isinstance(snippet, tuple) else ("3.11", snippet)
                code = textwrap.dedent(code).strip()
                too_old = sys.version_info < tuple(map(int, since.split(".")))
                mark = pytest.mark.skipif(too_old, reason=f"the stdlib has this from {since}")
                yield pytest.param(place, code, id=f"{area}: {' / '.join(code.split(chr(10)))}", marks=mark)


def normalise(text):
    """Takes out what differs from run to run, and names of what is defined elsewhere.

    The interpreter puts a heap type's module in front of its name in messages of its own ("'_asyncio.Future'
    object is not callable"): a type that is defined elsewhere has another module there. And it names a method after
    its class ("BaseEventLoop.call_soon() missing ..."): the classes of asyncio's loops and of ours are not the same.
    """
    text = re.sub(r"0x[0-9a-fA-F]+", "0x...", text)
    text = re.sub(r"Task-\d+", "Task-N", text)
    # A callback of the library has a line of source in the stdlib only.
    text = re.sub(r"\(\) at \S+/asyncio/\w+\.py:\d+", "()", text)
    text = re.sub(
        r"\b(?:BaseLoop|Loop|BaseEventLoop|BaseSelectorEventLoop|_UnixSelectorEventLoop)\.(?=\w+\(\))", "Loop.", text
    )
    return re.sub(r"\b(?:_?asyncio|_?aioxide)(?:\.\w+)*\.(?=[A-Z])", "", text)


def compile_snippet(place, code):
    """The snippet as a function of its names."""
    keyword = "async def" if place == "in a task" else "def"
    source = f"{keyword} main(aio, loop, other, closed, f, g, park):\n{textwrap.indent(code, '    ')}\n"
    namespace = {}
    exec(compile(source, "<snippet>", "exec"), namespace)
    return namespace["main"]


def outcome(place, code, aio, new_loop):
    """What the wrong call led to: exception, warnings, reports."""
    reports = []
    loop, other, closed = new_loop(), new_loop(), new_loop()
    closed.close()
    for each in loop, other:
        each.set_exception_handler(lambda _, context: reports.append(report(context)))

    async def f(what=None):
        if isinstance(what, BaseException):
            raise what
        if what is not None:
            await what
        return 1

    def g():
        return 1

    async def park():
        await aio.get_running_loop().create_future()

    main = compile_snippet(place, code)
    arguments = aio, loop, other, closed, f, g, park
    raised = None
    chain = []

    def failed(error):
        nonlocal raised
        inner = [normalise(repr(each)) for each in getattr(error, "exceptions", ())]
        raised = type(error), normalise(str(error)), inner
        links = (error.__cause__, error.__context__)
        chain.extend((type(link), normalise(str(link))) for link in links if link is not None)

    async def in_a_task():
        try:
            await main(*arguments)
        except BaseException as error:
            failed(error)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if place == "in a task":
            loop.run_until_complete(in_a_task())
        else:
            try:
                main(*arguments)
            except BaseException as error:
                failed(error)
        gc.collect()
        loop.set_task_factory(None)
        for each in loop, other:
            left = aio.all_tasks(each)
            for task in left:
                task.cancel()
            if left:
                each.run_until_complete(aio.gather(*left, return_exceptions=True))
            del left
            each.run_until_complete(each.shutdown_asyncgens())
            each.run_until_complete(each.shutdown_default_executor())
            each.close()
        gc.collect()
    asyncio.set_event_loop(None)
    shown = sorted((warning.category.__name__, normalise(str(warning.message))) for warning in caught)
    return {"raised": raised, "chain": chain, "warned": shown, "reported": sorted(reports)}


@pytest.fixture(scope="module", autouse=True)
def small_collections():
    """Keeps what exists already out of the many collections of this module."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def report(context):
    """A call of the exception handler as text."""
    error = context.get("exception")
    keys = sorted(set(context) - {"exception", "message"})
    return normalise(f"{context['message']} / {type(error).__name__}: {error} / {keys}")


@pytest.mark.parametrize(("place", "code"), list(table()))
def test_wrong_call(place, code):
    wanted = outcome(place, code, asyncio, asyncio.SelectorEventLoop)
    assert wanted["raised"] is not None, "the stdlib does not mind this call"
    found = outcome(place, code, aioxide, aioxide.new_event_loop)
    if sys.version_info < (3, 14):
        # Later versions close coroutines and cut exception chains that these leave; aioxide does so everywhere.
        for each in wanted, found:
            del each["chain"]
        assert set(found["warned"]) <= set(wanted["warned"])
        found["warned"] = wanted["warned"]
    assert found == wanted
