"""`python -m aioxide` runs a program as `python` would: the same output, exit status and tracebacks."""

import pathlib
import re
import signal
import subprocess
import sys

import pytest

import aioxide

PLAIN = [sys.executable]
NATIVE = [sys.executable, "-m", "aioxide"]


def run(start, *arguments, cwd=None):
    """Runs a program with or without aioxide."""
    command = [*start, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def comparable(text):
    """Without the frames of runpy, which python itself shows for -m only."""
    text = re.sub(r'  File "<frozen runpy>", line \d+, in \w+\n(?:    .*\n)*', "", text)
    return re.sub(r"0x[0-9a-f]+", "0x...", text)


def assert_same(*arguments, cwd=None, status=0):
    """Both ways give the same; returns what was printed."""
    plain, native = run(PLAIN, *arguments, cwd=cwd), run(NATIVE, *arguments, cwd=cwd)
    assert plain.returncode == status, plain.stderr
    assert native.stdout == plain.stdout
    assert comparable(native.stderr) == comparable(plain.stderr)
    assert native.returncode == plain.returncode
    return native


@pytest.fixture
def program(tmp_path):
    """Writes a program and returns its path."""

    def write(source, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return path

    return write


FACTS = """
import __main__, sys
print("argv", sys.argv)
print("path[0]", sys.path[0])
print("name", __name__)
print("file", globals().get("__file__"))
print("doc", __doc__)
print("package", __package__)
print("spec", __spec__ and __spec__.name)
print("cached", globals().get("__cached__"))
print("loader", type(__loader__).__name__)
print("main", vars(__main__) is globals(), sys.modules["__main__"] is __main__)
print("builtins", __builtins__.__name__)
print("names", sorted(name for name in globals() if name not in {"__cached__"}))
print("flags", sys.flags)
"""

WAYS = ("file", "-m", "-c")


def way(kind, write, source):
    """The arguments that run the source in one of the three ways, and the folder to run it in."""
    if kind == "-c":
        return ["-c", source], None
    path = write(source)
    return ([path] if kind == "file" else ["-m", path.stem]), path.parent


@pytest.mark.parametrize("kind", WAYS)
def test_program_finds_what_python_would_give_it(kind, program):
    arguments, folder = way(kind, program, '"""Documented."""' + FACTS)
    result = assert_same(*arguments, "one", "--two", "-h", "", cwd=folder)
    assert "'one', '--two', '-h', '']" in result.stdout


def test_file_in_another_folder(program):
    path = program(FACTS, "folder/program.py")
    result = assert_same(path.relative_to(path.parent.parent), cwd=path.parent.parent)
    assert "argv ['folder/program.py']" in result.stdout


def test_file_imports_its_neighbours(program):
    program("VALUE = 42", "neighbour.py")
    assert assert_same(program("import neighbour; print(neighbour.VALUE)")).stdout == "42\n"


def test_module_of_a_package(program):
    program("print('package', __name__)", "package/__init__.py")
    path = program("from . import __name__ as name; print('of', name)" + FACTS, "package/module.py")
    result = assert_same("-m", "package.module", "argument", cwd=path.parent.parent)
    assert "of package\n" in result.stdout
    assert "package package\n" in result.stdout


def test_package_with_main(program):
    program("", "package/__init__.py")
    path = program(FACTS, "package/__main__.py")
    assert_same("-m", "package", "argument", cwd=path.parent.parent)


def test_folder_with_main(program):
    path = program("import sys; print(sys.argv[1:], __name__, __file__)", "folder/__main__.py")
    assert_same(path.parent, "argument")


def test_main_does_not_see_the_words_after_it(program):
    path = program("import sys; print(sys.argv[1:])")
    for words in (["-m", "nothing"], ["-c", "1"], ["--help"], ["--", "x"]):
        assert assert_same(path, *words).stdout == f"{words}\n"


# The program is native.

NATIVE_NAMES = """
import asyncio, aioxide
from asyncio import *
from asyncio import TaskGroup, timeout

async def main():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(sleep(0))
    async with TaskGroup() as group, timeout(60):
        grouped = group.create_task(asyncio.sleep(0))
    assert type(loop) is aioxide.Loop, type(loop)
    for each in (task, grouped, asyncio.current_task()):
        assert type(each) is aioxide.Task, type(each)
    assert type(loop.create_future()) is asyncio.Future is Future
    assert type(task) is asyncio.Task is Task
    await task

asyncio.run(main())
print("native")
"""


@pytest.mark.parametrize("kind", WAYS)
def test_names_of_asyncio_are_native(kind, program):
    arguments, folder = way(kind, program, NATIVE_NAMES)
    result = run(NATIVE, *arguments, cwd=folder)
    assert (result.stdout, result.stderr, result.returncode) == ("native\n", "", 0)


def test_stdlib_is_not_native_without_it(program):
    result = run(PLAIN, program(NATIVE_NAMES))
    assert result.returncode == 1
    assert "AssertionError" in result.stderr


def test_modules_imported_by_the_program_are_native(program):
    program("from asyncio import Task, sleep", "neighbour.py")
    source = "import neighbour, aioxide; print(neighbour.Task is aioxide.Task, neighbour.sleep is aioxide.sleep)"
    assert run(NATIVE, program(source)).stdout == "True True\n"


# Ends.

ENDS = {
    "nothing": ("", 0),
    "sys.exit()": ("import sys; sys.exit()", 0),
    "sys.exit(None)": ("import sys; sys.exit(None)", 0),
    "sys.exit(3)": ("import sys; sys.exit(3)", 3),
    "sys.exit(True)": ("import sys; sys.exit(True)", 1),
    "sys.exit('text')": ("import sys; sys.exit('text')", 1),
    "raise SystemExit(3)": ("raise SystemExit(3)", 3),
    "os._exit(4)": ("import os; os._exit(4)", 4),
    "exit in a task": (
        "import asyncio, sys\nasync def main():\n    await asyncio.sleep(0)\n    sys.exit(5)\nasyncio.run(main())",
        5,
    ),
    "exit in a callback": (
        "import asyncio, sys\nasync def main():\n    asyncio.get_running_loop().call_soon(sys.exit, 6)\n"
        "    await asyncio.sleep(60)\nasyncio.run(main())",
        6,
    ),
    "atexit": ("import atexit; atexit.register(print, 'at exit'); print('program'); raise SystemExit(7)", 7),
    "thread": (
        "import threading\ngo_on = threading.Event()\n"
        "threading.Thread(target=lambda: (go_on.wait(), print('thread'))).start()\nprint('program')\ngo_on.set()\n",
        0,
    ),
    "output": ("import sys; sys.stdout.write('out'); sys.stderr.write('err')", 0),
}


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("end", ENDS)
def test_exit_status(kind, end, program):
    source, status = ENDS[end]
    arguments, folder = way(kind, program, source)
    assert_same(*arguments, cwd=folder, status=status)


FAILURES = {
    "exception": "def fail():\n    raise ValueError('text')\n\nfail()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('text') from error\n",
    "note": "error = ValueError('text')\nerror.add_note('a note')\nraise error\n",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])\n",
    "syntax": "def broken(:\n    pass\n",
    "import": "import no_such_module_anywhere\n",
    "name": "print(undefined)\n",
    "hook": "import sys\nsys.excepthook = lambda *args: print('hook', args[0].__name__)\n1 / 0\n",
    "recursion": "import sys\nsys.setrecursionlimit(60)\nsys.tracebacklimit = 3\ndef f(): f()\nf()\n",
}


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("failure", FAILURES)
def test_traceback(kind, failure, program):
    arguments, folder = way(kind, program, FAILURES[failure])
    result = assert_same(*arguments, cwd=folder, status=1)
    assert "aioxide" not in result.stderr.replace(sys.prefix, "")


IN_A_TASK = """
import asyncio

async def child():
    await asyncio.sleep(0)
    raise ValueError("text")

async def main():
    await asyncio.create_task(child())

asyncio.run(main())
"""


def test_traceback_of_a_task_has_the_programs_frames(program):
    path = program(IN_A_TASK)
    plain, native = run(PLAIN, path), run(NATIVE, path)
    frames = re.compile(rf'File "{re.escape(str(path))}", line (\d+), in (\S+)')
    assert frames.findall(native.stderr) == frames.findall(plain.stderr)
    assert frames.findall(native.stderr)[-1] == ("6", "child")
    assert native.stderr.splitlines()[-1] == "ValueError: text"
    assert native.returncode == plain.returncode == 1


@pytest.mark.parametrize("kind", WAYS)
def test_ctrl_c_ends_as_python_ends(kind, program):
    source = "import os, signal; os.kill(os.getpid(), signal.SIGINT); [None for _ in range(10**6)]"
    arguments, folder = way(kind, program, source)
    assert_same(*arguments, cwd=folder, status=-signal.SIGINT)


def test_ctrl_c_in_a_run_ends_as_python_ends(program):
    source = (
        "import asyncio, os, signal\n"
        "async def main():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    result = run(NATIVE, program(source))
    assert result.returncode == -signal.SIGINT
    assert result.stderr.splitlines()[-1] == "KeyboardInterrupt"


# What cannot be run.


def test_missing_file(tmp_path):
    plain, native = run(PLAIN, "missing.py", cwd=tmp_path), run(NATIVE, "missing.py", cwd=tmp_path)
    assert native.returncode == plain.returncode == 2
    assert plain.stderr.partition(": ")[2] in native.stderr


@pytest.mark.parametrize("module", ["no_such_module_anywhere", "json", "package.no_such_module"])
def test_module_that_cannot_be_run(module, tmp_path):
    (tmp_path / "package").mkdir()
    plain, native = run(PLAIN, "-m", module, cwd=tmp_path), run(NATIVE, "-m", module, cwd=tmp_path)
    assert native.returncode == plain.returncode == 1
    assert native.stderr.partition(": ")[2] == plain.stderr.partition(": ")[2]
    assert "Traceback" not in native.stderr


@pytest.mark.parametrize("option", ["-m", "-c"])
def test_option_without_its_argument(option):
    result = run(NATIVE, option)
    assert (result.returncode, result.stdout) == (2, "")
    assert "expected" in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_option():
    result = run(NATIVE, "--no-such-option")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--no-such-option" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(option):
    result = run(NATIVE, option)
    assert (result.returncode, result.stderr) == (0, "")
    for part in ("usage:", "python -m aioxide", "-m", "-c", "file"):
        assert part in result.stdout.lower()


# What else relies on __main__.


def test_options_of_the_interpreter_hold(program):
    path = program("import asyncio, sys; asyncio.run(asyncio.sleep(0)); print(sorted(sys.warnoptions))")
    start = [sys.executable, "-X", "dev", "-W", "error", "-m", "aioxide"]
    result = run(start, path)
    assert (result.stdout, result.stderr, result.returncode) == ("['default', 'error']\n", "", 0)


def test_classes_of_the_program_can_be_pickled(program):
    source = "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)\n"
    assert assert_same(program(source)).stdout == "True\n"


def test_source_of_the_program_can_be_found(program):
    source = "import inspect\ndef function():\n    return 42\nprint(inspect.getsource(function))\n"
    assert assert_same(program(source)).stdout == "def function():\n    return 42\n\n"


def test_program_may_start_processes(program):
    source = (
        "import multiprocessing\n"
        "def work(queue): queue.put(42)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    queue = context.SimpleQueue()\n"
        "    process = context.Process(target=work, args=(queue,))\n"
        "    process.start()\n"
        "    print(queue.get())\n"
        "    process.join()\n"
    )
    assert assert_same(program(source)).stdout == "42\n"


def test_program_may_be_a_link(program, tmp_path):
    path = program("import sys; print(sys.path[0] == __import__('os').path.realpath(sys.path[0]), __file__)")
    link = tmp_path / "bin" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    assert_same(link)


def test_program_may_import_aioxide_itself(program):
    source = "import aioxide, asyncio; print(aioxide.run(asyncio.sleep(0, 42)), aioxide.status() is not None)"
    result = run(NATIVE, program(source))
    assert (result.stdout, result.stderr, result.returncode) == ("42 True\n", "", 0)


def test_the_repository_is_not_on_the_programs_path(program):
    path = program("import sys; print(sys.path[0])")
    assert pathlib.Path(assert_same(path).stdout.strip()) == path.parent


# Children.


def test_children_are_native_on_request(program):
    path = program("""
import subprocess, sys
import asyncio, aioxide
print(aioxide.status().level, asyncio.sleep is aioxide.sleep, flush=True)
if sys.argv[1:] == ["parent"]:
    subprocess.run([sys.executable, __file__], check=True)
""")
    assert run(NATIVE, path, "parent").stdout == "full True\nnone False\n"
    assert run(NATIVE, "--children", path, "parent").stdout == "full True\nfull True\n"
    assert run(NATIVE, "run", "--loop-only", "--children", path, "parent").stdout == "loop False\nloop False\n"


# The doctor.


def test_doctor_finds_nothing_wrong():
    result = run(NATIVE, "doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"aioxide {aioxide.__version__}: ")
    assert f"installed, level 'full'{chr(10)}new loops come from: aioxide{chr(10)}" in result.stdout
    assert result.stdout.endswith("no problem found\n")
    assert "level 'loop'" in run(NATIVE, "doctor", "--loop-only").stdout


def test_doctor_names_what_was_imported_too_early(program):
    path = program("from asyncio import sleep as nap, Queue")
    result = run(NATIVE, "doctor", "program", cwd=path.parent)
    assert result.returncode == 1
    assert "  program.nap is still the stdlib's asyncio.tasks.sleep\n" in result.stdout
    assert "  program.Queue is still the stdlib's asyncio.queues.Queue\n" in result.stdout
    assert "problem: program: imported names from asyncio before aioxide.install()." in result.stdout


def test_doctor_reports_modules_that_fail(program):
    path = program("1 / 0")
    result = run(NATIVE, "doctor", "program", "nonsense", cwd=path.parent)
    assert result.returncode == 1
    assert "problem: program could not be imported: division by zero\n" in result.stdout
    assert "problem: nonsense could not be imported: No module named 'nonsense'\n" in result.stdout


def test_doctor_knows_nest_asyncio(program):
    path = program("import asyncio; asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask")
    result = run(NATIVE, "doctor", "program", cwd=path.parent)
    assert result.returncode == 1
    assert "problem: nest_asyncio has replaced" in result.stdout
    assert "Remove the call of nest_asyncio.apply()" in result.stdout


def test_doctor_sees_policies_loops_and_patches(program):
    path = program("""
import asyncio, functools
class Loop(asyncio.SelectorEventLoop): ...
original = asyncio.sleep
@functools.wraps(original)
async def sleep(delay): await original(delay)
asyncio.sleep = sleep
if base := getattr(asyncio.events, "_AbstractEventLoopPolicy", vars(asyncio.events).get("AbstractEventLoopPolicy")):
    class Policy(base):
        def new_event_loop(self): return Loop()
    vars(asyncio.events).get("_set_event_loop_policy", asyncio.events.__dict__["set_event_loop_policy"])(Policy())
""")
    result = run([sys.executable, "-W", "ignore", "-m", "aioxide"], "doctor", "program", cwd=path.parent)
    assert result.returncode == 1
    assert "stay what they are:\n  program.Loop\n" in result.stdout
    assert "problem: asyncio.tasks.sleep: others have bound something else to it" in result.stdout
    if sys.version_info < (3, 16):
        assert "problem: New loops come from program.Policy" in result.stdout


def test_doctor_sees_a_variable_without_effect(monkeypatch):
    monkeypatch.setenv("AIOXIDE_INSTALL", "full")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    result = run(NATIVE, "doctor")
    assert result.returncode == 1
    assert "problem: AIOXIDE_INSTALL=full has no effect unless PYTHONPATH begins with" in result.stdout


def test_doctor_is_a_script_after_run(program):
    path = program("print('a script')", "doctor")
    assert run(NATIVE, "run", "doctor", cwd=path.parent).stdout == "a script\n"
    assert run(NATIVE, "doctor", "-x").returncode == 2
