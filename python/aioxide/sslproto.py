"""`asyncio.sslproto`: TLS between a transport and a protocol."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.sslproto import *  # noqa: F403
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
