"""Dask: a scheduler and workers in processes of their own, which nannies watch over.

The workers import this file, so that what is installed here is installed there.
"""

import asyncio
import os

import aioxide

if os.environ["RUNNING_ON"] != "stdlib":
    aioxide.install(os.environ["RUNNING_ON"])

import dask
from distributed import Client, LocalCluster, as_completed
from running_on import expected, facts


async def on_loop():
    await asyncio.sleep(0)
    return facts()


def increment(number):
    return number + 1


def main():
    # One death is enough to give a task up: by default it is tried on four workers.
    dask.config.set({"distributed.admin.event-loop": "asyncio", "distributed.scheduler.allowed-failures": 0})
    wanted = expected(os.environ["RUNNING_ON"]).items()
    with (
        LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = client.run(on_loop)
        assert len(workers) == len({worker["pid"] for worker in workers.values()} - {os.getpid()}) == 2
        assert all(wanted <= worker.items() for worker in workers.values()), workers
        scheduler = client.run_on_scheduler(on_loop)
        assert wanted <= scheduler.items(), scheduler
        assert client.gather(client.map(increment, range(300))) == list(range(1, 301))
        data = client.scatter(bytes(5_000_000), broadcast=True)
        assert client.submit(len, data).result() == 5_000_000
        assert sum(future.result() for future in as_completed(client.map(increment, range(20)))) == 210
        lost = client.submit(os._exit, 1, retries=0)
        assert isinstance(lost.exception(timeout=60), Exception)
        client.wait_for_workers(2, timeout=60)
        assert client.submit(increment, 1).result(timeout=60) == 2

    async def asynchronous():
        async with (
            LocalCluster(n_workers=1, processes=False, dashboard_address=None, asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            assert wanted <= facts().items()
            return await client.submit(increment, 1)

    assert asyncio.run(asynchronous()) == 2
    print("done")


if __name__ == "__main__":
    main()
