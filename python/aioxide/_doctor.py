"""``python -m aioxide doctor``: what a program would get, what would not be native, and what to do."""

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from aioxide import _aioxide, _children
from aioxide._install import install, status
from aioxide._status import Level, Status

#: What chooses its loop itself, whatever asyncio offers, and how to make it choose aioxide's.
_SWITCHES = {
    "uvicorn": "python -m aioxide --children or --loop aioxide:new_event_loop reaches its workers, new Pythons",
    "uvloop": "uvicorn, gunicorn and granian do not prefer it while aioxide is installed; other servers may",
    "nest_asyncio": "it and aioxide exclude each other: see that nothing calls nest_asyncio.apply()",
    "nest_asyncio2": "it and aioxide exclude each other: see that nothing calls nest_asyncio2.apply()",
}


def examine(modules: Sequence[str], level: Level) -> int:
    """Import modules as a program does, install aioxide, and print what then is. Return the exit status."""
    print(f"aioxide {_aioxide.__version__}: {_aioxide.__file__}")
    print(f"Python {sys.version.split()[0]} ({sys.implementation.name}, {sys.platform}): {sys.executable}")
    failed = [f"{name} could not be imported: {error}" for name, error in _import(modules)]
    problems = [*failed, *_install(level)]
    found = status()
    print(found)
    for name, advice in _SWITCHES.items():
        try:
            print(f"{name} {version(name)} is here: {advice}")
        except PackageNotFoundError:
            continue
    problems += _problems(found)
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("no problem found")
    return 1 if problems else 0


def _import(modules: Sequence[str]) -> Iterator[tuple[str, Exception]]:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield name, error


def _install(level: Level) -> Iterator[str]:
    try:
        install(level)
    except RuntimeError as error:
        yield str(error)


def _problems(found: Status) -> Iterator[str]:
    yield from found.advice
    if found.overridden:
        yield f"{', '.join(found.overridden)}: others have bound something else to it, which is used instead."
    if found.stale:
        modules = sorted({reference.module for reference in found.stale})
        yield (
            f"{', '.join(modules)}: imported names from asyncio before aioxide.install(). Install first, run the "
            "program with python -m aioxide, or call aioxide.install(rebind_importers=True)."
        )
    wanted = os.environ.get(_children.VARIABLE, "0")
    if wanted not in ("", "0") and found.children == "none":
        yield (
            f"{_children.VARIABLE}={wanted} has no effect unless PYTHONPATH begins with {_children.FOLDER}, where "
            "python -m aioxide --children puts it."
        )
    if asyncio.coroutines._is_debug_mode():  # type: ignore[attr-defined]
        yield "asyncio's debug mode is on, which makes everything slow: see PYTHONASYNCIODEBUG and -X dev."
