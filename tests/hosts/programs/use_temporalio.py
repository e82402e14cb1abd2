"""Workflows of Temporal: each runs on an event loop of Temporal's own, which makes its tasks by `asyncio.Task`.

There is no Temporal server here: recorded histories are replayed, which runs the workflow's code
in the worker's core as a server would have it run. A history that does not fit is an error.
"""

import asyncio
import os
import sys

from running_on import check
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner


@workflow.defn(name="Wait")
class Wait:
    """Waits for two timers, with what asyncio has for that."""

    def __init__(self):
        self.order = []

    async def child(self, name, lock, queue):
        async with lock:
            self.order.append(name)
        await asyncio.sleep(0)
        await queue.put(name)

    @workflow.run
    async def run(self):
        lock, queue, event = asyncio.Lock(), asyncio.Queue(1), asyncio.Event()
        tasks = [asyncio.create_task(self.child(name, lock, queue)) for name in "abc"]
        received = [await queue.get() for _ in tasks]
        await asyncio.gather(*tasks)
        # The first timer of the history.
        await asyncio.sleep(1)
        # The second: the event does not come.
        try:
            await asyncio.wait_for(event.wait(), 2)
        except TimeoutError:
            received.append("timeout")
        async with asyncio.TaskGroup() as group:
            last = group.create_task(self.child("d", lock, queue))
        assert last.done()
        received.append(await queue.get())
        asyncio.get_running_loop().call_soon(event.set)
        await workflow.wait_condition(event.is_set)
        assert self.order == ["a", "b", "c", "d"], self.order
        return "".join(received)


def history():
    """What a server would have recorded."""
    identity = iter(range(1, 100))
    events = []

    def event(kind, **attributes):
        name = "".join(part.title() for part in kind.split("_"))
        events.append(
            {
                "eventId": str(next(identity)),
                "eventTime": f"2026-01-01T00:00:{len(events):02d}Z",
                "eventType": "EVENT_TYPE_" + kind.upper(),
                name[0].lower() + name[1:] + "EventAttributes": attributes,
            }
        )
        return str(len(events))

    def task():
        scheduled = event("workflow_task_scheduled", taskQueue={"name": "queue"}, attempt=1)
        started = event("workflow_task_started", scheduledEventId=scheduled)
        return event("workflow_task_completed", scheduledEventId=scheduled, startedEventId=started)

    event(
        "workflow_execution_started",
        workflowType={"name": "Wait"},
        taskQueue={"name": "queue"},
        originalExecutionRunId="00000000-0000-0000-0000-000000000001",
        firstExecutionRunId="00000000-0000-0000-0000-000000000001",
        attempt=1,
        workflowTaskTimeout="10s",
    )
    completed = task()
    for number, seconds in (("1", "1s"), ("2", "2s")):
        started = event(
            "timer_started", timerId=number, startToFireTimeout=seconds, workflowTaskCompletedEventId=completed
        )
        event("timer_fired", timerId=number, startedEventId=started)
        completed = task()
    result = {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "ImFiY3RpbWVvdXRkIg=="}]}
    event("workflow_execution_completed", result=result, workflowTaskCompletedEventId=completed)
    return WorkflowHistory.from_json("workflow", {"events": events})


async def main():
    check()
    runner = SandboxedWorkflowRunner() if "sandbox" in sys.argv else UnsandboxedWorkflowRunner()
    replayer = Replayer(workflows=[Wait], workflow_runner=runner)
    result = await replayer.replay_workflow(history())
    assert result.replay_failure is None


if __name__ == "__main__":
    asyncio.run(main())
    if sys.version_info < (3, 14):
        # Threads of Temporal's core may die of the interpreter's end, whatever the loop.
        os._exit(0)
