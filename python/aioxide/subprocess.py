"""`asyncio.subprocess`: child processes with streams."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import *  # noqa: F403
    from asyncio.subprocess import DEVNULL as DEVNULL
    from asyncio.subprocess import PIPE as PIPE
    from asyncio.subprocess import STDOUT as STDOUT
    from asyncio.subprocess import Process as Process
    from asyncio.subprocess import SubprocessStreamProtocol as SubprocessStreamProtocol
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
