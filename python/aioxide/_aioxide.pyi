# What the package itself uses of the extension module.

import asyncio
from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

__version__: str

#: The names this build offers, by the asyncio module that has them.
NAMES: Mapping[str, tuple[str, ...]]

# Its methods are not listed yet; for type checkers they are AbstractEventLoop's.
class Loop(asyncio.AbstractEventLoop, metaclass=ABCMeta): ...

def new_event_loop() -> Loop: ...
def _tls_direct(allowed: bool | None = None) -> bool: ...
def _native_tasks() -> list[asyncio.Task[Any]]: ...
def __getattr__(name: str) -> Any: ...
