"""Granian's command line with native loops: ``python -m aioxide.contrib.granian app:app``.

Granian's ``--loop`` takes none but the loops it knows; a program that starts it from within may
register others, in every process. Importing this module does that: what granian calls ``auto``
is a native loop then. Its worker processes import the main module of the process that starts
them, so that a program needs no more than this import at its top.
"""

import asyncio

from granian import loops
from granian.cli import entrypoint

import aioxide


def build_loop() -> asyncio.AbstractEventLoop:
    """Make a worker's loop and its current one, as granian expects."""
    loop = aioxide.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def register() -> None:
    """Let granian's default, ``auto``, be native loops. Done when this module is imported."""
    loops.register("auto")(build_loop)


register()

if __name__ == "__main__":
    entrypoint()
