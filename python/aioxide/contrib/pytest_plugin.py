"""A pytest plugin: asynchronous tests on native loops, when asked for.

It does nothing unless a run asks for it, by the option ``--aioxide=loop`` or the setting ``aioxide``
in pytest's configuration::

    [pytest]
    aioxide = loop

``loop`` lets pytest-asyncio (and with it pytest-aiohttp), anyio's
plugin and `unittest.IsolatedAsyncioTestCase` run tests on native loops. ``full`` replaces all
asyncio names with native ones, too. What a test itself chooses is left alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

import aioxide
from aioxide._status import Level


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    text = "run asynchronous tests on aioxide: 'loop' for the event loop alone, 'full' for all asyncio names"
    group = parser.getgroup("aioxide")
    group.addoption("--aioxide", choices=["loop", "full", "no"], help=text)
    parser.addini("aioxide", text, default="no")


def level(config: pytest.Config) -> str:
    """Return what a run has asked for: ``loop``, ``full`` or ``no``."""
    asked = config.getoption("--aioxide", None) or config.getini("aioxide")
    if asked not in ("loop", "full", "no"):
        raise pytest.UsageError(f"aioxide must be 'loop', 'full' or 'no', not {asked!r}")
    return cast("str", asked)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Install what was asked for, until the run ends; let pytest-asyncio know."""
    asked = level(config)
    if asked != "no":
        aioxide.install(cast("Level", asked))
        config.add_cleanup(aioxide.uninstall)
        # Not before it is asked for: with the hook comes a parameter in the name of each test.
        config.pluginmanager.register(_LoopFactories(), "aioxide-loop-factories")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say at the head of the report what the tests run on."""
    asked = level(config)
    return None if asked == "no" else f"aioxide: {aioxide.__version__} ({asked})"


class _LoopFactories:
    """What pytest-asyncio asks its plugins."""

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_asyncio_loop_factories(self, config: pytest.Config, item: Any) -> Mapping[str, Callable[[], Any]]:
        """Offer native loops, unless the project has factories of its own."""
        return {"aioxide": aioxide.new_event_loop}
