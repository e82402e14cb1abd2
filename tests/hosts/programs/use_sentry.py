"""Sentry's asyncio integration: a task factory that wraps each coroutine, a patched `loop.close`."""

import asyncio
import sys

import sentry_sdk
from running_on import check
from sentry_sdk.integrations.asyncio import AsyncioIntegration
from sentry_sdk.integrations.stdlib import StdlibIntegration
from sentry_sdk.transport import Transport

events = []


class Memory(Transport):
    """Keeps what would be sent."""

    def capture_envelope(self, envelope):
        for item in envelope.items:
            events.append(item.payload.json)


async def child(fail):
    await asyncio.sleep(0)
    if fail:
        raise KeyError("meant")
    return asyncio.current_task().get_name()


async def main():
    check()
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Memory,
        integrations=[AsyncioIntegration(), StdlibIntegration()],
        default_integrations=False,
        traces_sample_rate=1.0,
    )
    with sentry_sdk.start_transaction(name="transaction"):
        assert "Sentry-wrapped" in await asyncio.create_task(child(False))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(child(False), name="mine")
        # Before 3.12 a group gives the name when the task is made, and Sentry's is lost.
        assert ("child" if sys.version_info >= (3, 12) else "mine") in task.result()
        results = await asyncio.gather(child(False), child(True), return_exceptions=True)
        assert "child" in results[0], results
        assert isinstance(results[1], KeyError), results
        await asyncio.wait_for(child(False), 60)
        asyncio.get_running_loop().set_debug(True)
        assert "child" in await asyncio.create_task(child(False))
        child_process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        assert await child_process.communicate(b"x") == (b"x", None)
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    sentry_sdk.flush()
    assert asyncio.get_running_loop()._sentry_flush_patched


asyncio.run(main())
(error,) = [event for event in events if event.get("level") == "error"]
assert error["exception"]["values"][0]["type"] == "KeyError", error
assert error["exception"]["values"][0]["mechanism"]["type"] == "asyncio", error
(transaction,) = [event for event in events if event.get("type") == "transaction"]
spans = [span["description"] for span in transaction["spans"]]
assert spans.count("child") >= 5, spans
operations = [span["op"] for span in transaction["spans"]]
assert "subprocess" in operations, operations
