"""The asyncio guide as one program: each function is one of its examples.

Run it as it is, or natively:

    python examples/guide.py
    python -m aioxide examples/guide.py
"""

import asyncio
import time
import warnings


def which_loop():
    """Tells what runs the examples."""

    async def main():
        print("event loop from", type(asyncio.get_running_loop()).__module__.partition(".")[0])

    asyncio.run(main())


def hello_world():
    """Says hello, gives way to others, says world."""

    async def main():
        print("hello")
        await asyncio.sleep(0.1)
        print("world")

    asyncio.run(main())


def blocking_call_in_a_thread():
    """Keeps the loop alive while a thread blocks."""
    finished = False

    def blocking_io():
        nonlocal finished
        print("start blocking_io")
        time.sleep(0.2)
        print("blocking_io complete")
        finished = True

    async def tick():
        ticks = 0
        while not finished:
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    async def main():
        print("started main")
        _, ticks = await asyncio.gather(asyncio.to_thread(blocking_io), tick())
        print("the loop went on meanwhile:", ticks > 1)
        print("finished main")

    asyncio.run(main())


def await_a_future():
    """Waits until somebody resolves a future."""

    async def set_after(future, delay, value):
        await asyncio.sleep(delay)
        future.set_result(value)

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.create_task(set_after(future, 0.1, "... world"))
        print("hello ...")
        print(await future)

    asyncio.run(main())


def gather_future_and_coroutine():
    """Awaits a future and a coroutine together."""

    async def some_python_coroutine():
        await asyncio.sleep(0)
        return "from the coroutine"

    async def main():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, future.set_result, "from the future")
        print(await asyncio.gather(future, some_python_coroutine()))

    asyncio.run(main())


def task_group():
    """Runs two tasks and waits for both."""

    async def say_after(delay, what):
        await asyncio.sleep(delay)
        print(what)
        return what.upper()

    async def main():
        async with asyncio.TaskGroup() as group:
            first = group.create_task(say_after(0.1, "hello"))
            second = group.create_task(say_after(0.2, "world"))
            print("started")
        print("both tasks have completed:", first.result(), second.result())

    asyncio.run(main())


def nested_coroutine():
    """Schedules a coroutine to run concurrently with this one."""

    async def nested():
        return 42

    async def main():
        task = asyncio.create_task(nested())
        print("done before it is awaited:", task.done())
        print("the answer is", await task)

    asyncio.run(main())


def cancel_a_task():
    """Cancels a task; it cleans up and passes the CancelledError on."""

    async def cancel_me():
        print("cancel_me(): before sleep")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            print("cancel_me(): cancel sleep,", *error.args)
            raise
        finally:
            print("cancel_me(): after sleep")

    async def main():
        task = asyncio.create_task(cancel_me())
        await asyncio.sleep(0)
        print("cancel() says", task.cancel("no longer needed"))
        try:
            await task
        except asyncio.CancelledError:
            print("main(): cancel_me is cancelled now:", task.cancelled())

    asyncio.run(main())


def uncancel_a_task():
    """Takes a cancellation back and goes on."""

    async def stubborn():
        task = asyncio.current_task()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("requests to cancel:", task.cancelling())
            print("left after uncancel():", task.uncancel())
        await asyncio.sleep(0)
        return "went on"

    async def main():
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        task.cancel()
        print(await task)

    asyncio.run(main())


def shield_a_task():
    """Cancels the waiter but not the work."""

    async def something():
        await asyncio.sleep(0.05)
        return "work done"

    async def caller(task):
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            print("the caller was cancelled, the task not:", not task.cancelled())
            raise

    async def main():
        task = asyncio.create_task(something())
        waiter = asyncio.create_task(caller(task))
        await asyncio.sleep(0)
        waiter.cancel()
        print(await asyncio.gather(waiter, task, return_exceptions=True))

    asyncio.run(main())


async def long_running_task(seconds):
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "finished"


def timeout_in_time():
    """A long task that ends before its ten seconds are over."""

    async def main():
        try:
            async with asyncio.timeout(10):
                print(await long_running_task(0.05))
        except TimeoutError:
            print("The long operation timed out, but we've handled it.")
        print("This statement will run regardless.")

    asyncio.run(main())


def timeout_too_late():
    """A task that is too long for its timeout."""

    async def main():
        try:
            async with asyncio.timeout(0.05):
                print(await long_running_task(3600))
        except TimeoutError:
            print("The long operation timed out, but we've handled it.")
        print("This statement will run regardless.")

    asyncio.run(main())


def timeout_rescheduled():
    """A timeout whose length is not known at the start."""

    async def main():
        try:
            async with asyncio.timeout(None) as limit:
                print("deadline at first:", limit.when())
                limit.reschedule(asyncio.get_running_loop().time() + 10)
                print(await long_running_task(0.05))
        except TimeoutError:
            pass
        print("expired:", limit.expired())

        try:
            async with asyncio.timeout(None) as limit:
                limit.reschedule(asyncio.get_running_loop().time() + 0.05)
                print(await long_running_task(3600))
        except TimeoutError:
            pass
        print("expired:", limit.expired())

    asyncio.run(main())


def timeout_at_a_time():
    """A timeout that names the moment it ends."""

    async def main():
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 0.05
        try:
            async with asyncio.timeout_at(deadline):
                print(await long_running_task(3600))
        except TimeoutError:
            print("The long operation timed out, but not before its time:", loop.time() >= deadline)
        print("This statement will run regardless.")

    asyncio.run(main())


def wait_for_eternity():
    """Waits at most one second."""

    async def eternity():
        await asyncio.sleep(3600)
        print("yay!")

    async def main():
        try:
            await asyncio.wait_for(eternity(), timeout=1.0)
        except TimeoutError:
            print("timeout!")

    asyncio.run(main())


def look_around():
    """Asks which tasks there are."""

    async def main():
        asyncio.current_task().set_name("main")
        others = [asyncio.create_task(asyncio.sleep(3600), name=name) for name in ("one", "two")]
        print("current task:", asyncio.current_task().get_name())
        print("all tasks:", sorted(task.get_name() for task in asyncio.all_tasks()))
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        print("left:", sorted(task.get_name() for task in asyncio.all_tasks()))

    asyncio.run(main())


def is_it_a_coroutine():
    """Tells coroutines from the functions that make them."""

    async def nested():
        return 42

    coroutine = nested()
    print("iscoroutine(nested()):", asyncio.iscoroutine(coroutine))
    print("iscoroutine(nested):", asyncio.iscoroutine(nested))
    coroutine.close()


def forgotten_await():
    """The slip: without `await` the function never runs, and Python says so."""
    ran = []

    async def main():
        asyncio.to_thread(ran.append, "ran")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
    for warning in caught:
        print(f"{warning.category.__name__}: {str(warning.message).partition(chr(10))[0]}")
    print("ran:", ran)


EXAMPLES = (
    which_loop,
    hello_world,
    blocking_call_in_a_thread,
    await_a_future,
    gather_future_and_coroutine,
    task_group,
    nested_coroutine,
    cancel_a_task,
    uncancel_a_task,
    shield_a_task,
    timeout_in_time,
    timeout_too_late,
    timeout_rescheduled,
    timeout_at_a_time,
    wait_for_eternity,
    look_around,
    is_it_a_coroutine,
    forgotten_await,
)


def main():
    """Runs every example and prints what it did."""
    for example in EXAMPLES:
        print(f"--- {example.__name__}: {example.__doc__}")
        example()


if __name__ == "__main__":
    main()
