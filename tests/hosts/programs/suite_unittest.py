"""Tests of the standard library's kind."""

import asyncio
import contextvars
import os
import sys
import unittest

from running_on import check

VARIABLE = contextvars.ContextVar("variable")


@unittest.skipIf(sys.version_info < (3, 13) and os.environ.get("FACTORY"), "loop_factory is new in 3.13")
class Case(unittest.IsolatedAsyncioTestCase):
    if os.environ.get("FACTORY"):
        from aioxide import new_event_loop as loop_factory

    def setUp(self):
        self.events = ["setUp"]

    async def asyncSetUp(self):
        check()
        self.events.append("asyncSetUp")
        VARIABLE.set(1)
        self.addAsyncCleanup(self.cleanup)

    async def cleanup(self):
        check()
        assert VARIABLE.get() == 2

    async def test_context_and_order(self):
        check()
        assert asyncio.get_running_loop().get_debug()
        assert self.events == ["setUp", "asyncSetUp"]
        assert VARIABLE.get() == 1
        VARIABLE.set(2)
        await asyncio.sleep(0)

    async def test_tasks(self):
        VARIABLE.set(2)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(10)]
        self.assertEqual([task.result() for task in tasks], list(range(10)))

    @unittest.expectedFailure
    async def test_failure(self):
        VARIABLE.set(2)
        raise AssertionError


if __name__ == "__main__":
    unittest.main()
