"""asyncio, written in Rust.

An existing program runs on it as it is::

    python -m aioxide app.py

or takes it in from the inside::

    import aioxide
    aioxide.install()

``import aioxide as asyncio`` gives the asyncio namespace without changing anything in asyncio:
native where aioxide has a version of a name, the running Python's own everywhere else.
`new_event_loop` is a loop factory for `asyncio.Runner`, for `asyncio.run` from 3.12 on, and for
whatever else takes one. `status()` says what is native.
"""

from typing import TYPE_CHECKING

from aioxide._aioxide import Loop as Loop
from aioxide._aioxide import __version__ as __version__
from aioxide._install import install as install
from aioxide._install import status as status
from aioxide._install import uninstall as uninstall

if TYPE_CHECKING:
    # Until there are stubs of our own, the stdlib's say what the names are.
    from asyncio import *  # noqa: F403
else:
    from aioxide._aioxide import new_event_loop as new_event_loop
    from aioxide._namespace import fill_package as _fill
    from aioxide._selector_event_loop import SelectorEventLoop

    EventLoop = SelectorEventLoop
    __all__, __getattr__, __dir__ = _fill(globals(), "Loop", "install", "new_event_loop", "status", "uninstall")
