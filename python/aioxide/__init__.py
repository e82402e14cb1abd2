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

(For pytest, which would look for assertions in a package that brings a plugin: PYTEST_DONT_REWRITE.)
"""

from aioxide._aioxide import Loop as Loop
from aioxide._aioxide import __version__ as __version__
from aioxide._aioxide import new_event_loop as new_event_loop
from aioxide._install import install as install
from aioxide._install import status as status
from aioxide._install import uninstall as uninstall
from aioxide._namespace import fill_package as _fill
from aioxide._selector_event_loop import SelectorEventLoop

# For type checkers there is `__init__.pyi`.
EventLoop = SelectorEventLoop
#: For ``anyio.run(f, backend=..., backend_options=...)``, or as the value of a fixture `anyio_backend`.
anyio_backend = ("asyncio", {"loop_factory": new_event_loop})
__all__, __getattr__, __dir__ = _fill(
    globals(), "Loop", "anyio_backend", "install", "new_event_loop", "status", "uninstall"
)
