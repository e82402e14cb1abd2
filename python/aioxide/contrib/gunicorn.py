"""Worker classes for gunicorn that run on native loops.

For its own ASGI worker, and for that of the package uvicorn-worker::

    gunicorn -k aioxide.contrib.gunicorn.ASGIWorker app:app
    gunicorn -k aioxide.contrib.gunicorn.UvicornWorker app:app
"""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import aioxide

if TYPE_CHECKING:
    from gunicorn.workers.gasgi import ASGIWorker as ASGIWorker
    from uvicorn_worker import UvicornWorker as UvicornWorker


def _asgi_worker() -> type:
    from gunicorn.workers import gasgi

    class ASGIWorker(gasgi.ASGIWorker):  # type: ignore[misc]
        """Gunicorn's ASGI worker on a native loop, whatever ``--asgi-loop`` says."""

        def _setup_event_loop(self) -> None:
            self.loop = aioxide.new_event_loop()
            asyncio.set_event_loop(self.loop)

    return ASGIWorker


def _uvicorn_worker() -> type:
    import uvicorn_worker

    class UvicornWorker(uvicorn_worker.UvicornWorker):  # type: ignore[misc]
        """Uvicorn as a worker of gunicorn, on a native loop."""

        CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
            **uvicorn_worker.UvicornWorker.CONFIG_KWARGS,
            "loop": "aioxide:new_event_loop",
        }

    return UvicornWorker


_CLASSES = {"ASGIWorker": _asgi_worker, "UvicornWorker": _uvicorn_worker}


def __getattr__(name: str) -> Any:
    # Made when they are asked for: not everybody has both packages, or a gunicorn with an ASGI worker.
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _CLASSES[name]()
    made.__module__, made.__qualname__ = __name__, name
    globals()[name] = made
    return made
