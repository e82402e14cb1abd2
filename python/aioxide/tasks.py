"""`asyncio.tasks`: tasks, and waiting for them in various ways."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.tasks import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
