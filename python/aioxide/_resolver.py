"""Threads that look up names for a loop, apart from its executor, whose jobs so never hold up a name.

Each calls Python's own function in `socket`, so that the results and errors are the very ones that
asyncio has, and a function that somebody has put in its place is called as well. The threads are
daemons: a server that never answers does not keep the interpreter from ending. They are written in
Python because the interpreter ends a daemon thread where it stands once it asks for the GIL again,
and a frame of Rust must not be ended from outside.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for more to do before it ends."""


class _Lookup(NamedTuple):
    """One call that a thread is to make."""

    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


class Resolver:
    """The threads of one loop: as many as an executor would have, made when there is work for them."""

    def __init__(self) -> None:
        self._size = min(32, (os.cpu_count() or 1) + 4)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Start without threads: at first, and in a forked child, which has none of its parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._lookups: SimpleQueue[_Lookup | None] = SimpleQueue()
        self._threads = 0
        # Threads without work, less the lookups that wait for one.
        self._spare = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a thread call ``function(*args)``."""
        if self._pid != os.getpid():
            self._begin()
        future: Future[Any] = Future()
        with self._lock:
            if self._spare <= 0 and self._threads < self._size:
                self._start_thread()
            self._spare -= 1
            self._lookups.put(_Lookup(future, function, args))
        return future

    def close(self) -> None:
        """Have the threads end. Nobody waits for them, nor for lookups that are still to come."""
        self._closed = True
        if self._pid == os.getpid():
            for _ in range(self._threads):
                self._lookups.put(None)

    def _start_thread(self) -> None:
        """Add a thread; without it the others have to do, if there are any."""
        # Counted first: if Ctrl-C interrupts the start, the thread is most likely there.
        self._threads += 1
        self._spare += 1
        try:
            threading.Thread(target=self._work, name="aioxide-resolver", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._threads -= 1
            self._spare -= 1
            if self._threads == 0:
                raise

    def _work(self) -> None:
        """Run lookups until there have been none for a while: the life of a thread."""
        while not self._closed:
            try:
                lookup = self._lookups.get(timeout=IDLE_SECONDS)
            except Empty:
                if self._retire():
                    return
                continue
            if lookup is None or self._closed:
                return
            self._run(*lookup)
            # While the thread waits for the next, it keeps nothing of this one.
            del lookup

    def _run(self, future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Make one call and give its outcome to the future."""
        if not future.set_running_or_notify_cancel():
            self._be_spare()
            return
        try:
            result = function(*args)
        except BaseException as error:
            # Before the outcome is out, or the next lookup would find no thread free.
            self._be_spare()
            future.set_exception(error)
            # The error's traceback shows this frame, which must not show the future that keeps the error.
            del future
        else:
            self._be_spare()
            future.set_result(result)

    def _be_spare(self) -> None:
        with self._lock:
            self._spare += 1

    def _retire(self) -> bool:
        """Count the calling thread out, unless work came in at the last moment."""
        with self._lock:
            if not self._lookups.empty():
                return False
            self._threads -= 1
            self._spare -= 1
            return True
