"""The guide's examples, on the stdlib's asyncio in this process and natively under `python -m aioxide`."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

GUIDE = pathlib.Path(__file__).parent.parent / "examples" / "guide.py"

OUTPUT = {
    "hello_world": ["hello", "world"],
    "blocking_call_in_a_thread": [
        "started main",
        "start blocking_io",
        "blocking_io complete",
        "the loop went on meanwhile: True",
        "finished main",
    ],
    "await_a_future": ["hello ...", "... world"],
    "gather_future_and_coroutine": ["['from the future', 'from the coroutine']"],
    "task_group": ["started", "hello", "world", "both tasks have completed: HELLO WORLD"],
    "nested_coroutine": ["done before it is awaited: False", "the answer is 42"],
    "cancel_a_task": [
        "cancel_me(): before sleep",
        "cancel() says True",
        "cancel_me(): cancel sleep, no longer needed",
        "cancel_me(): after sleep",
        "main(): cancel_me is cancelled now: True",
    ],
    "uncancel_a_task": ["requests to cancel: 1", "left after uncancel(): 0", "went on"],
    "shield_a_task": [
        "the caller was cancelled, the task not: True",
        "[CancelledError(''), 'work done']",
    ],
    "timeout_in_time": ["finished", "This statement will run regardless."],
    "timeout_too_late": [
        "The long operation timed out, but we've handled it.",
        "This statement will run regardless.",
    ],
    "timeout_rescheduled": ["deadline at first: None", "finished", "expired: False", "expired: True"],
    "timeout_at_a_time": [
        "The long operation timed out, but not before its time: True",
        "This statement will run regardless.",
    ],
    "wait_for_eternity": ["timeout!"],
    "look_around": ["current task: main", "all tasks: ['main', 'one', 'two']", "left: ['main']"],
    "is_it_a_coroutine": ["iscoroutine(nested()): True", "iscoroutine(nested): False"],
    "forgotten_await": ["RuntimeWarning: coroutine 'to_thread' was never awaited", "ran: []"],
}
"""Example to the lines it prints, whatever the provider."""


def load_guide():
    """Imports the guide from its file."""
    spec = importlib.util.spec_from_file_location("guide", GUIDE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guide = load_guide()


def sections(text):
    """Example to printed lines, from the output of a whole run."""
    found = {}
    for line in text.splitlines():
        if line.startswith("--- "):
            name = line.removeprefix("--- ").partition(":")[0]
            found[name] = []
        else:
            found[name].append(line)
    return found


@pytest.fixture(scope="module")
def native_run():
    """One run of the whole program under `python -m aioxide`."""
    command = [sys.executable, "-m", "aioxide", str(GUIDE)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_example_is_tested():
    assert [example.__name__ for example in guide.EXAMPLES] == ["which_loop", *OUTPUT]


SLOW = {"wait_for_eternity"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in OUTPUT]
)
def test_example_on_the_stdlib(name, capsys):
    getattr(guide, name)()
    assert capsys.readouterr().out.splitlines() == OUTPUT[name]


def test_stdlib_runs_the_stdlib_loop(capsys):
    guide.which_loop()
    assert capsys.readouterr().out == "event loop from asyncio\n"


@pytest.mark.slow
def test_native_run_succeeds_in_silence(native_run):
    assert (native_run.returncode, native_run.stderr) == (0, "")


@pytest.mark.slow
def test_native_run_has_every_example(native_run):
    assert list(sections(native_run.stdout)) == ["which_loop", *OUTPUT]


@pytest.mark.slow
def test_native_run_has_a_native_loop(native_run):
    assert sections(native_run.stdout)["which_loop"] == ["event loop from aioxide"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUT)
def test_example_under_aioxide(name, native_run):
    assert sections(native_run.stdout)[name] == OUTPUT[name]
