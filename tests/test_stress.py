"""Very many tasks with random ends; nothing may be left of them.

`python tests/test_stress.py --tasks 1000000` runs the load and prints what it found; the tests run that program.
Tasks go through groups, gather, cancellation, timeouts, queues and locks, with random exceptions from a seeded
generator. Afterwards the numbers of objects, blocks of memory, references to shared objects and the resident
memory have to be what they were after a first part of the same load, and the reports to the exception handler
exactly those that the load provoked.
"""

import argparse
import collections
import concurrent.futures
import contextvars
import gc
import importlib
import logging
import pathlib
import random
import resource
import subprocess
import sys
import threading
import warnings

import pytest

BATCH = 500
"""Tasks alive at the same time."""

WORKERS = 6
"""Threads of the executor."""


class Boom(Exception):
    """The load's own exception."""


class Sentinel:
    """An object that passes through the load; its references are counted."""


class Load:
    """The scenarios; each spends about `count` tasks and checks what became of them."""

    def __init__(self, aio, seed):
        self.aio = aio
        self.random = random.Random(seed)
        self.value = Sentinel()
        self.message = "".join(["can", "celled"])
        self.context = contextvars.copy_context()
        self.spent = 0
        self.lost = 0
        self.calls = 0
        self.reports = collections.Counter()
        self.unraisable = []
        self.scenarios = [
            self.group,
            self.nested_groups,
            self.gather,
            self.cancel,
            self.timeouts,
            self.wait_for,
            self.queue,
            self.lock,
            self.condition,
            self.callbacks,
            self.lose,
            self.threads,
        ]

    def shared(self):
        """Objects to which every task refers, by name."""
        aio = self.aio
        return {
            "value": self.value,
            "message": self.message,
            "context": self.context,
            "callback": self.count_call.__func__,
            "coroutine's code": Load.work.__code__,
            "Boom": Boom,
            "CancelledError": aio.CancelledError,
            "Task": aio.Task,
            "Future": aio.Future,
            "Handle": aio.Handle,
            "TimerHandle": aio.TimerHandle,
            "None": None,
            "True": True,
            "()": (),
        }

    def handler(self, loop, context):
        """The loop's exception handler."""
        self.reports[context["message"]] += 1

    def count_call(self, *args):
        self.calls += 1

    async def work(self, fails):
        """A few turns, then a result or an exception."""
        for _ in range(self.random.randrange(3)):
            await self.aio.sleep(0)
        if self.random.random() < fails:
            raise Boom(self.value)
        return self.value

    async def park(self):
        """Waits for ever, in one of many ways."""
        aio = self.aio
        how = self.random.randrange(6)
        if how == 0:
            await aio.sleep(3600)
        elif how == 1:
            await aio.Event().wait()
        elif how == 2:
            await aio.Queue().get()
        elif how == 3:
            await aio.Semaphore(0).acquire()
        elif how == 4:
            await aio.gather(aio.get_running_loop().create_future(), aio.sleep(3600))
        else:
            async with aio.timeout(3600):
                await aio.shield(aio.get_running_loop().create_future())

    async def group(self, count):
        fails = self.random.choice([0, 0.01])
        tasks = []
        try:
            async with self.aio.TaskGroup() as group:
                tasks = [group.create_task(self.work(fails)) for _ in range(count)]
        except* Boom as error:
            check(all(each.args == (self.value,) for each in error.exceptions))
        self.spent += len(tasks)
        check(all(task.done() for task in tasks))
        check(all(task.cancelled() or task.exception() or task.result() is self.value for task in tasks))

    async def nested_groups(self, count):
        async def inner():
            async with self.aio.TaskGroup() as group:
                for _ in range(9):
                    group.create_task(self.work(0.01))
                    self.spent += 1

        try:
            async with self.aio.TaskGroup() as group:
                for _ in range(count // 10):
                    group.create_task(inner())
                    self.spent += 1
        except* Boom:
            pass

    async def gather(self, count):
        aio = self.aio
        results = await aio.gather(*[self.work(0.2) for _ in range(count // 2)], return_exceptions=True)
        check(all(result is self.value or type(result) is Boom for result in results))
        tasks = [aio.create_task(self.work(0.01)) for _ in range(count // 2)]
        try:
            await aio.gather(*tasks)
        except Boom:
            await aio.gather(*tasks, return_exceptions=True)
        self.spent += count // 2 * 2
        check(all(task.done() for task in tasks))

    async def cancel(self, count):
        aio = self.aio
        tasks = [aio.create_task(self.park()) for _ in range(count)]
        for _ in range(self.random.randrange(3)):
            await aio.sleep(0)
        self.random.shuffle(tasks)
        for task in tasks:
            check(task.cancel(self.message))
        done, pending = await aio.wait(tasks)
        self.spent += count
        check(not pending and all(task.cancelled() for task in done))

    async def timeouts(self, count):
        aio = self.aio

        async def limited():
            try:
                async with aio.timeout(self.random.choice([0, 0.0001, 60])) as block:
                    await aio.sleep(self.random.choice([0, 0.0001, 0.001]))
                    return "ended", block.expired()
            except TimeoutError:
                return "expired", not block.expired()

        results = await aio.gather(*[limited() for _ in range(count)])
        self.spent += count
        check(not any(wrong for _, wrong in results))

    async def wait_for(self, count):
        aio = self.aio

        async def limited():
            try:
                return await aio.wait_for(self.work(0.1), self.random.choice([0, 0.0001, 60, None]))
            except (TimeoutError, Boom):
                return self.value

        check(set(await aio.gather(*[limited() for _ in range(count)])) == {self.value})
        self.spent += count

    async def queue(self, count):
        aio = self.aio
        queue = aio.Queue(self.random.choice([0, 1, 10]))
        put, got = [], []

        async def produce(item):
            await queue.put(item)
            put.append(item)

        async def consume():
            got.append(await queue.get())
            queue.task_done()

        tasks = []
        for item in range(count // 2):
            tasks.append(aio.create_task(produce(item)))
            tasks.append(aio.create_task(consume()))
        await aio.sleep(0)
        for task in self.random.sample(tasks, count // 10):
            task.cancel(self.message)
        while any(not task.done() for task in tasks):
            before = len(put), len(got)
            await aio.sleep(0)
            await aio.sleep(0)
            if before == (len(put), len(got)):
                for task in tasks:
                    task.cancel()
        await aio.gather(*tasks, return_exceptions=True)
        self.spent += len(tasks)
        left = []
        while not queue.empty():
            left.append(queue.get_nowait())
        check(sorted(got + left) == sorted(put))

    async def lock(self, count):
        aio = self.aio
        lock, semaphore = aio.Lock(), aio.Semaphore(3)
        inside = [0, 0]

        async def worker():
            async with lock:
                inside[0] += 1
                check(inside[0] == 1)
                try:
                    await aio.sleep(0)
                finally:
                    inside[0] -= 1
            async with semaphore:
                inside[1] += 1
                check(inside[1] <= 3)
                try:
                    await aio.sleep(0)
                finally:
                    inside[1] -= 1

        tasks = [aio.create_task(worker()) for _ in range(count)]
        await aio.sleep(0)
        for task in self.random.sample(tasks, count // 5):
            task.cancel(self.message)
        results = await aio.gather(*tasks, return_exceptions=True)
        self.spent += count
        check(all(result is None or type(result) is aio.CancelledError for result in results))
        check(not lock.locked() and not semaphore.locked())

    async def condition(self, count):
        aio = self.aio
        condition, barrier, woken = aio.Condition(), aio.Barrier(2), []

        async def waiter():
            async with condition:
                await condition.wait()
                woken.append(self.value)

        tasks = [aio.create_task(waiter()) for _ in range(count - 2)]
        await aio.sleep(0)
        await aio.gather(barrier.wait(), barrier.wait())
        self.spent += count
        async with condition:
            condition.notify(len(tasks) // 2)
        while len(woken) < len(tasks) // 2:
            await aio.sleep(0)
        async with condition:
            condition.notify_all()
        await aio.gather(*tasks)
        check(len(woken) == len(tasks))

    async def callbacks(self, count):
        aio, loop = self.aio, self.aio.get_running_loop()
        wanted = self.calls
        for number in range(count):
            future = loop.create_future()
            future.add_done_callback(self.count_call, context=self.context)
            future.add_done_callback(print)
            future.remove_done_callback(print)
            wanted += 1
            if number % 3 == 0:
                future.set_result(self.value)
            elif number % 3 == 1:
                future.set_exception(Boom(self.value))
                future.exception()
            else:
                future.cancel(self.message)
            handle = loop.call_later(self.random.choice([0, 60]), self.count_call, self.value, context=self.context)
            handle.cancel()
            loop.call_soon(self.count_call, self.value)
            wanted += 1
        await aio.sleep(0)
        await aio.sleep(0)
        check(self.calls == wanted)

    async def lose(self, count):
        """Tasks that fail, and nobody looks: each has to be reported once."""
        aio = self.aio
        tasks = [aio.create_task(self.work(0.05)) for _ in range(count)]
        await aio.wait(tasks)
        self.spent += count
        for task in tasks:
            if task._exception is not None:
                self.lost += 1

    async def threads(self, count):
        aio, loop = self.aio, self.aio.get_running_loop()
        check(await aio.gather(*[aio.to_thread(id, self.value) for _ in range(5)]) == [id(self.value)] * 5)

        def other_thread():
            futures = [aio.run_coroutine_threadsafe(self.work(0.1), loop) for _ in range(20)]
            done, _ = concurrent.futures.wait(futures)
            return all(future.exception() or future.result() is self.value for future in done)

        check(await aio.to_thread(other_thread))
        self.spent += 26

    async def prepare(self):
        """Starts all threads: later a busy moment more or less would tell whether there is another one."""
        executor = concurrent.futures.ThreadPoolExecutor(WORKERS)
        self.aio.get_running_loop().set_default_executor(executor)
        all_at_once = threading.Barrier(WORKERS)
        await self.aio.gather(*[self.aio.to_thread(all_at_once.wait) for _ in range(WORKERS)])

    async def run(self, tasks):
        """Spends at least `tasks` tasks."""
        self.aio.get_running_loop().set_exception_handler(self.handler)
        end = self.spent + tasks
        while self.spent < end:
            for scenario in self.random.sample(self.scenarios, len(self.scenarios)):
                await scenario(BATCH)


def check(fact):
    """An assert that -O leaves in."""
    if not fact:
        raise AssertionError("the load found something wrong")


def resident():
    """Resident bytes of this process."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(load):
    """What must not grow."""
    for _ in range(3):
        gc.collect()
    objects = gc.get_objects()
    kinds = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    number = len(objects)
    del objects
    return {
        "objects": number,
        "kinds": kinds,
        "blocks": sys.getallocatedblocks(),
        "references": {name: sys.getrefcount(each) for name, each in load.shared().items()},
        "resident": resident(),
    }


def compare(before, after, tasks):
    """The differences that `tasks` tasks must not make."""
    wrong = []
    for kind, number in (after["kinds"] - before["kinds"]).items():
        # The first count itself: a handful. What is leaked by tasks goes into the thousands.
        if number > 5:
            wrong.append(f"{number} more objects of type {kind}")
    if after["objects"] - before["objects"] > 20:
        wrong.append(f"{after['objects'] - before['objects']} more objects")
    if after["blocks"] - before["blocks"] > 1000 + tasks // 100:
        wrong.append(f"{after['blocks'] - before['blocks']} more blocks of memory")
    for name, number in after["references"].items():
        # Constants have references in code and caches, which come and go; a leak shows as thousands either way.
        room = 500 if name in {"None", "True", "()"} else 5
        if abs(number - before["references"][name]) > room:
            wrong.append(f"references to {name}: {before['references'][name]}, then {number}")
    grown = after["resident"] - before["resident"]
    if grown > 4 * 2**20 + 8 * tasks:
        wrong.append(f"{grown / 2**20:.1f} MiB more resident memory")
    return wrong


def main():
    """Runs the load; the exit status tells whether anything was left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--namespace", default="aioxide", help="aioxide, or asyncio to try the load itself")
    options = parser.parse_args()

    warnings.simplefilter("error")
    aio = importlib.import_module(options.namespace)
    load = Load(aio, options.seed)
    logged = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("asyncio").addHandler(handler)
    sys.unraisablehook = lambda args: load.unraisable.append(f"{args.err_msg} {args.exc_value!r} {args.object!r}")

    with aio.Runner() as runner:
        # A first part fills caches, free lists and the allocator's arenas. So does a first look: what it asks of
        # abstract base classes stays in their caches, a weak reference for each of their subclasses.
        runner.run(load.prepare())
        runner.run(load.run(max(20_000, options.tasks // 20)))
        measure(load)
        before = measure(load)
        spent = load.spent
        runner.run(load.run(options.tasks))
        after = measure(load)
        spent = load.spent - spent

    wrong = compare(before, after, spent)
    wanted = {"Task exception was never retrieved": load.lost}
    if load.reports != wanted:
        wrong.append(f"reports: {dict(load.reports)}, wanted {wanted}")
    wrong += [f"logged: {text}" for text in logged[:10]]
    wrong += [f"unraisable: {text}" for text in load.unraisable[:10]]
    print(
        f"{spent} tasks, seed {options.seed}: {after['objects'] - before['objects']:+} objects, "
        f"{after['blocks'] - before['blocks']:+} blocks, {(after['resident'] - before['resident']) / 2**20:+.1f} MiB, "
        f"{load.lost} exceptions lost on purpose"
    )
    for text in wrong:
        print("wrong:", text)
    return int(bool(wrong))


def run(*arguments):
    """Runs this file as a program."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.stress)])
def test_nothing_is_left_of_many_tasks(seed):
    result = run("--tasks", 50_000, "--seed", seed)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.stress
def test_nothing_is_left_of_a_million_tasks():
    result = run("--tasks", 1_000_000)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr


def test_a_leak_is_found():
    before = {"objects": 10, "kinds": collections.Counter(Task=1), "blocks": 5, "resident": 0}
    before["references"] = {"value": 3, "None": 100}
    assert compare(before, before, 1000) == []
    leaks = {
        "objects": 1000,
        "kinds": collections.Counter(Task=100),
        "blocks": 10_000,
        "resident": 2**30,
        "references": {"value": 9, "None": 100},
    }
    for name, value in leaks.items():
        assert len(compare(before, before | {name: value}, 1000)) == 1


if __name__ == "__main__":
    sys.exit(main())
