"""What people test with: pytest-asyncio, pytest-aiohttp, anyio's plugin, unittest."""

import shutil
import sys

import pytest
from conftest import PROGRAMS

PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
CONFIGURATION = """
[pytest]
asyncio_default_fixture_loop_scope = function
"""
OPTIONS = {"stdlib": [], "loop": ["--aioxide=loop"], "full": ["--aioxide=full"]}
#: How many tests each suite has.
SUITES = {"asyncio": 4, "aiohttp": 2, "anyio": 2, "unittest": 3}


@pytest.fixture
def suite(tmp_path):
    """Puts a suite into a folder of its own, where no configuration of ours is in force."""

    def suite(name):
        (tmp_path / "pytest.ini").write_text(CONFIGURATION)
        for path in PROGRAMS.glob("suite_*.py"):
            shutil.copy(path, tmp_path)
        return [*(["-o", "asyncio_mode=auto"] if name == "aiohttp" else []), f"suite_{name}.py"]

    return suite


def passed(output, number):
    assert f"{number} passed" in output or f"{number - 1} passed, 1 xfailed" in output, output
    return output


@pytest.mark.parametrize("name", SUITES)
def test_plugin(run, suite, mode, name):
    """The plugin that comes with aioxide; only what it is asked for."""
    plugin = ["-p", "aioxide.contrib.pytest_plugin"] if not plugin_is_installed() else []
    output = run("stdlib", *PYTEST, *plugin, *OPTIONS[mode], *suite(name), RUNNING_ON=mode)
    passed(output, SUITES[name])


def test_setting(run, suite):
    plugin = ["-p", "aioxide.contrib.pytest_plugin"] if not plugin_is_installed() else []
    output = run("stdlib", *PYTEST, *plugin, "-o", "aioxide=full", *suite("asyncio"), RUNNING_ON="full")
    passed(output, SUITES["asyncio"])


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("started", ["loop", "full"])
def test_pytest_under_aioxide(run, suite, started, name):
    """Without the plugin: `python -m aioxide -m pytest`."""
    passed(run(started, *PYTEST, *suite(name)), SUITES[name])


def test_anyio_backend_constant(run, suite):
    passed(run("stdlib", *PYTEST, *suite("anyio_constant"), RUNNING_ON="loop"), 2)


def test_unittest(run, mode):
    run(mode, PROGRAMS / "suite_unittest.py")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="loop_factory of unittest is new in 3.13")
def test_unittest_loop_factory(run):
    run("stdlib", PROGRAMS / "suite_unittest.py", RUNNING_ON="loop", FACTORY="1")


def plugin_is_installed():
    from importlib.metadata import entry_points

    return any(point.value == "aioxide.contrib.pytest_plugin" for point in entry_points(group="pytest11"))
