"""What `install()` does to hosts that prefer another loop, and what `python -m aioxide` says of what is not native.

The hosts here are stand-ins with the names of the real ones, which `tests/hosts` starts. Each test has an interpreter
of its own.
"""

import subprocess
import sys

import pytest

#: By their paths: what of the hosts is looked at.
STAND_INS = {
    "uvicorn/__init__.py": "",
    "uvicorn/loops/__init__.py": "",
    "uvicorn/loops/asyncio.py": "def asyncio_loop_factory(use_subprocess=False):\n    return 'asyncio', use_subprocess",
    "uvicorn/loops/auto.py": "import asyncio\ndef auto_loop_factory(use_subprocess=False):\n    return 'other', 0",
    "uvicorn/_subprocess.py": "def get_subprocess(*arguments):\n    return arguments",
    "gunicorn/__init__.py": "",
    "gunicorn/workers/__init__.py": "",
    "gunicorn/workers/gasgi.py": """
import asyncio

class Settings(dict):
    asgi_loop = property(lambda self: self["asgi_loop"])
    set = dict.__setitem__

class ASGIWorker:
    def __init__(self, asgi_loop):
        self.cfg = Settings(asgi_loop=asgi_loop)

    def _setup_event_loop(self):
        self.loop = "other" if self.cfg.asgi_loop == "auto" else self.cfg.asgi_loop
""",
    "granian/__init__.py": "from granian._loops import loops",
    "granian/_loops.py": """
import asyncio

class Registry(dict):
    def register(self, name):
        return lambda build: self.setdefault(name, []).append(build) or build

    def get(self, name):
        return self[name][-1]()

loops = Registry()

@loops.register("asyncio")
def build_asyncio_loop():
    return "asyncio"

@loops.register("auto")
def build_auto_loop():
    return "other"
""",
    "uvloop.py": "",
}

#: What each host decides for.
CHOICES = """
def choices():
    from uvicorn.loops import auto
    from gunicorn.workers.gasgi import ASGIWorker
    from granian import loops
    found = {"uvicorn": auto.auto_loop_factory(use_subprocess=True)[0], "granian": loops.get("auto")}
    for name in ("auto", "asyncio", "uvloop"):
        worker = ASGIWorker(name)
        worker._setup_event_loop()
        found[f"gunicorn {name}"] = worker.loop
    return found

def expected(auto):
    return {
        "uvicorn": auto,
        "granian": auto,
        "gunicorn auto": auto,
        "gunicorn asyncio": "asyncio",
        "gunicorn uvloop": "uvloop",
    }
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program that finds the stand-ins; warnings are errors unless another filter is given."""
    for name, source in STAND_INS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    def run(program, *start, warnings="error"):
        command = [sys.executable, "-W", warnings, *start, "-c", CHOICES + program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.parametrize("level", ["loop", "full"])
@pytest.mark.parametrize("first", ["aioxide.install(LEVEL)", "choices()"], ids=["install-first", "host-first"])
def test_auto_is_asyncio_while_installed(run, level, first):
    """Whether the host was imported before or after, and as often as it changes; what is named is left alone."""
    program = f"""
import aioxide, sys
LEVEL = {level!r}
finders = list(sys.meta_path)
{first}
for _ in range(3):
    aioxide.install(LEVEL)
    assert choices() == expected("asyncio"), choices()
    assert aioxide.status().hosts == ("granian", "gunicorn", "uvicorn")
    assert "unless they are told: granian, gunicorn, uvicorn" in str(aioxide.status())
    aioxide.uninstall()
    assert choices() == expected("other"), choices()
    assert aioxide.status().hosts == ()
assert sys.meta_path == finders
"""
    run(program)


def test_import_changes_no_host(run):
    run('import aioxide; assert choices() == expected("other")')


def test_loader_of_a_host_is_its_own(run):
    """Whoever asks for the module's source or its loader finds what would be there without us."""
    program = """
import importlib, inspect, sys
import uvicorn.loops.asyncio as other
import aioxide
aioxide.install()
from uvicorn.loops import auto
assert type(auto.__loader__) is type(auto.__spec__.loader) is type(other.__loader__)
assert "return 'other'" in inspect.getsource(auto)
assert auto.auto_loop_factory.__name__ == "auto_loop_factory"
importlib.reload(auto)
assert choices() == expected("asyncio")
"""
    run(program)


def test_host_that_has_moved_is_left_alone(run, tmp_path):
    (tmp_path / "uvicorn/loops/auto.py").write_text("def elsewhere(): pass")
    program = """
import aioxide
aioxide.install()
from uvicorn.loops import auto
assert aioxide.status().hosts == ()
"""
    run(program)


def test_module_that_cannot_be_imported_is_not_hidden(run, tmp_path):
    (tmp_path / "uvicorn/loops/auto.py").write_text("raise ImportError('meant')")
    (tmp_path / "gunicorn/workers/gasgi.py").unlink()
    program = """
import aioxide
aioxide.install()
for name, message in (("uvicorn.loops.auto", "meant"), ("gunicorn.workers.gasgi", "No module named")):
    try:
        __import__(name)
    except ImportError as error:
        assert message in str(error), error
    else:
        raise AssertionError
"""
    run(program)


@pytest.mark.parametrize("first", ["import asyncio", "import aioxide", "import sys"])
def test_children_are_reached(run, first):
    """What `--children` starts decides in the same way, also if a host is the first to import asyncio."""
    program = f"""
import subprocess, sys
program = {CHOICES!r} + "{first}; assert choices() == expected('asyncio'), choices()"
subprocess.run([sys.executable, "-c", program], check=True)
"""
    run(program, "-m", "aioxide", "--children")


# What does not run on it is told.

START_WORKER = "from uvicorn import _subprocess; assert _subprocess.get_subprocess(1, 2) == (1, 2)"


def test_workers_that_are_not_reached_are_warned_of(run):
    said = run(START_WORKER, "-m", "aioxide", warnings="default").stderr
    assert "RuntimeWarning: uvicorn starts new Pythons" in said
    assert "--children" in said


def test_workers_that_are_reached_are_not_warned_of(run):
    assert run(START_WORKER, "-m", "aioxide", "--children").stderr == ""


def test_install_does_not_warn_of_workers(run):
    """They may import the program that has installed it."""
    assert run(f"import aioxide; aioxide.install(); {START_WORKER}").stderr == ""


MESSAGE = "aioxide: nothing ran on a native event loop here: the program has imported uvloop,"


def test_program_that_takes_another_loop_is_told(run):
    assert MESSAGE in run("import uvloop", "-m", "aioxide").stderr


@pytest.mark.parametrize(
    "program",
    ["import asyncio", "import asyncio, uvloop; asyncio.run(asyncio.sleep(0))", "import granian, uvloop"],
    ids=["no-other", "native", "granian-imports-all"],
)
def test_other_programs_are_told_nothing(run, program):
    assert run(program, "-m", "aioxide").stderr == ""
