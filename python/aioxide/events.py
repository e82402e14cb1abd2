"""`asyncio.events`: handles, and the running loop of a thread."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.events import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
