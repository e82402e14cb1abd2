"""The event loops under comparison, and how a program would switch to each."""

import asyncio
import importlib
import importlib.metadata
from collections.abc import Callable

PROVIDERS = ("stdlib", "uvloop", "rloop", "rsloop", "zuvloop", "aiofastnet", "aioxide-loop", "aioxide")
"""All that a run knows, in the order of the table's columns."""

TLS_ONLY = ("aiofastnet",)
"""No loops, but transports on one (here uvloop's): they have a place in the rows of TLS alone."""

OURS = ("aioxide", "aioxide-loop")
"""aioxide: every asyncio name native, as under `python -m aioxide`; aioxide-loop: only the loop."""


def activate(provider: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Switches this process to the provider and returns its loop factory.

    Has to be called before a bench module is imported, because those read the names of asyncio.
    """
    if provider == "stdlib":
        return asyncio.SelectorEventLoop
    if provider in OURS:
        module = importlib.import_module("aioxide")
        if provider == "aioxide":
            module.install(level="full")
    else:
        module = importlib.import_module(provider)
    if provider == "aiofastnet":
        return module.loop_factory(importlib.import_module("uvloop").new_event_loop)
    return module.new_event_loop


def version(provider: str) -> str:
    """The provider's release, for the report's head."""
    if provider == "stdlib":
        return ""
    try:
        return importlib.metadata.version(provider.removesuffix("-loop"))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def check(provider: str, loop: asyncio.AbstractEventLoop) -> None:
    """Fails when the running loop is not the provider's own, so that no column bears a wrong name."""
    if provider == "aiofastnet":
        # It gives the loop other methods, and leaves it as it is.
        if not loop.create_server.func.__module__.startswith(provider):
            raise AssertionError(f"{provider}: the loop has its own create_server()")
        provider = "uvloop"
    wanted = {"stdlib": "asyncio"}.get(provider, provider.removesuffix("-loop"))
    found = {cls.__module__.split(".")[0].strip("_") for cls in type(loop).__mro__}
    if wanted not in found:
        raise AssertionError(f"{provider}: the loop is a {type(loop).__module__}.{type(loop).__qualname__}")
    if provider == "stdlib" and found - {"asyncio", "builtins"}:
        raise AssertionError(f"stdlib: the loop is a {type(loop).__module__}.{type(loop).__qualname__}")
