"""OpenTelemetry's asyncio instrumentation: it wraps functions of asyncio by name, and counts coroutines."""

import asyncio
import os

os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "child,sleepy"
os.environ["OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE"] = "work"
os.environ["OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED"] = "true"

from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from running_on import check

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))


async def child(fail=False):
    await asyncio.sleep(0)
    if fail:
        raise KeyError("meant")
    return 1


async def sleepy():
    await asyncio.Event().wait()


def work():
    return 2


async def main():
    assert await asyncio.create_task(child()) == 1
    assert await asyncio.ensure_future(child()) == 1
    assert await asyncio.wait_for(child(), 60) == 1
    assert await asyncio.gather(child(), child()) == [1, 1]
    done, _ = await asyncio.wait([asyncio.create_task(child())])
    assert [task.result() for task in done] == [1]
    assert [await one for one in asyncio.as_completed([child(), child()])] == [1, 1]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(child())
    assert task.result() == 1
    assert await asyncio.to_thread(work) == 2
    loop = asyncio.get_running_loop()
    nested = await loop.run_in_executor(None, lambda: asyncio.run_coroutine_threadsafe(child(), loop).result())
    assert nested == 1
    task = asyncio.create_task(sleepy())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    try:
        await asyncio.create_task(child(True))
    except KeyError:
        pass
    future = loop.create_future()
    loop.call_soon(future.set_result, 3)
    assert await asyncio.ensure_future(future) == 3


async def start():
    check()
    AsyncioInstrumentor().instrument(tracer_provider=provider, meter_provider=MeterProvider(metric_readers=[reader]))
    try:
        await main()
    finally:
        AsyncioInstrumentor().uninstrument()
    check()


asyncio.run(start())
names = [span.name for span in exporter.get_finished_spans()]
assert names.count("asyncio coro-child") >= 9, names
assert "asyncio coro-sleepy" in names, names
assert "asyncio to_thread-work" in names, names
assert "asyncio future" in names, names
