"""`asyncio.runners`: `run` and `Runner`, which give a program its loop."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioxide._aioxide import Runner as Runner
    from aioxide._aioxide import run as run
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
