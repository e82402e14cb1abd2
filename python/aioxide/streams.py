"""`asyncio.streams`: reading and writing by coroutines."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.streams import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
