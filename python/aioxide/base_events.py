"""`asyncio.base_events`: what every event loop shares, the server included."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.base_events import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
