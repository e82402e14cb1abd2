"""`asyncio.exceptions`: the stdlib's own, so that `except` clauses match."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.exceptions import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
