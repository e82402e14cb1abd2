"""anyio: it goes deeper into asyncio's private parts than anybody else."""

import pytest
from conftest import PROGRAMS

PARTS = ["cancellation", "groups", "threads", "memory", "network", "signals", "subprocesses"]


@pytest.mark.parametrize("part", PARTS)
def test_anyio(run, mode, part):
    run(mode, PROGRAMS / "use_anyio.py", part)


@pytest.mark.parametrize("part", PARTS)
def test_backend_constant(run, part):
    """`aioxide.anyio_backend` without anything installed."""
    run("stdlib", PROGRAMS / "use_anyio.py", part, "--constant", RUNNING_ON="loop")
