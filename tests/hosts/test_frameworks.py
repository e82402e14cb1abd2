"""Frameworks that bring a scheduler, a reactor or a core of their own: tornado, Twisted, gRPC."""

import pytest
from conftest import PROGRAMS


def test_tornado(run, mode):
    run(mode, PROGRAMS / "use_tornado.py")


def test_twisted(run, mode):
    assert "done" in run(mode, PROGRAMS / "use_twisted.py")


def test_twisted_with_a_loop(run):
    """Nothing is installed: the loop is handed to the reactor."""
    assert "done" in run("stdlib", PROGRAMS / "use_twisted.py", "--loop", RUNNING_ON="loop")


def test_grpc(run, mode):
    run(mode, PROGRAMS / "use_grpc.py")


@pytest.mark.parametrize("runner", ["plain", "sandbox"])
def test_temporalio(run, mode, runner):
    run(mode, PROGRAMS / "use_temporalio.py", runner)
