"""Dask's distributed: a real cluster of processes on this machine."""

import pytest
from conftest import PROGRAMS, PYTHON, free_port


def test_cluster(run, mode):
    """`aioxide.install()` at the top of the program reaches the workers, which import it."""
    # Workers that die report it, and so does the one that is killed.
    output = run("stdlib", PROGRAMS / "use_distributed.py", quiet=False, RUNNING_ON=mode)
    assert "done" in output


CLIENT = """
import sys
from distributed import Client
from running_on import expected
from use_distributed import increment, on_loop

with Client(sys.argv[1]) as client:
    client.wait_for_workers(1, timeout=60)
    found = [*client.run(on_loop).values(), client.run_on_scheduler(on_loop)]
    assert all(expected(sys.argv[2]).items() <= facts.items() for facts in found), found
    assert client.gather(client.map(increment, range(100))) == list(range(1, 101))
"""


@pytest.mark.parametrize(
    ("level", "worker"),
    [
        ("loop", ["-m", "distributed.cli.dask_worker", "--no-nanny"]),
        ("full", ["-m", "distributed.cli.dask_worker", "--no-nanny"]),
        ("full", ["--children", "-m", "distributed.cli.dask_worker"]),
    ],
    ids=["loop", "full", "nanny"],
)
def test_command_line(run, serve, level, worker):
    """A scheduler and a worker, each started under aioxide; a nanny's worker is a child."""
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = ["--host", address, "--no-dashboard"]
    scheduler = serve(level, *PYTHON[level], "-m", "distributed.cli.dask_scheduler", *arguments)
    scheduler.wait_for("Scheduler at")
    worker = serve(level, *PYTHON[level], *worker, address, "--no-dashboard")
    run("stdlib", "-c", CLIENT, address, level)
    assert worker.stop() == 0
    assert scheduler.stop() == 0
