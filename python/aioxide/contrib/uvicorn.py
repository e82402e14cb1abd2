"""Native loops for programs that start uvicorn without saying which loop.

On the command line nothing of this is needed: ``uvicorn app:app --loop aioxide:new_event_loop``.
A program that calls ``uvicorn.run(app)``, or a tool that does and has no option for the loop
(``fastapi run``), gets what uvicorn means by ``auto``, which is uvloop where that is installed.
`register()` changes the meaning; so do `aioxide.install()` and ``python -m aioxide``.

Worker processes (``--workers``) are new interpreters, which know nothing of what was installed in
the first. ``--loop aioxide.contrib.uvicorn:full_event_loop`` installs all native names in each.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable

from uvicorn import config

import aioxide

_HERE = f"{__name__}:loop_factory"


def loop_factory(use_subprocess: bool = False) -> Callable[[], AbstractEventLoop]:
    """Return the loop factory, in the way uvicorn asks its own entries for one."""
    return aioxide.new_event_loop


def register() -> None:
    """Let uvicorn's default, ``auto``, be native loops, and ``aioxide`` a name for them."""
    config.LOOP_FACTORIES["auto"] = config.LOOP_FACTORIES["aioxide"] = _HERE


def full_event_loop() -> AbstractEventLoop:
    """Replace all asyncio names by native ones in this process, and make a loop."""
    aioxide.install()
    return aioxide.new_event_loop()
