"""Threads that wait for a child each, where no descriptor tells of its end.

They leave the status for the loop's thread to take, so that the child's number stays its own for
as long as the loop may send it signals. They are written in Python for the reason given in
`_resolver.py`.
"""

import itertools
import os
import threading
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_numbers = itertools.count()


def watch(loop: "AbstractEventLoop", pid: int, ended: Callable[..., Any]) -> None:
    """Have the loop call ``ended()`` when a child has ended: with its status if that had to be taken."""
    name = f"aioxide-waitpid-{next(_numbers)}"
    threading.Thread(target=_wait, name=name, args=(loop, pid, ended), daemon=True).start()


def _wait(loop: "AbstractEventLoop", pid: int, ended: Callable[..., Any]) -> None:
    """Wait for the child and tell the loop, or take its status if the loop is closed."""
    status = _wait_leaving(pid) if hasattr(os, "waitid") else (_take(pid),)
    try:
        loop.call_soon_threadsafe(ended, *status)
    except RuntimeError:
        if not status:
            _take(pid)
        logger.warning("Loop %r that handles pid %r is closed", loop, pid)


def _wait_leaving(pid: int) -> tuple[()]:
    """Wait for the child and leave its status where it is."""
    try:
        while (found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)) is not None:
            if found.si_code != os.CLD_STOPPED:
                break
            # macOS tells of children that are merely stopped, too: such a notice is to be taken.
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:
        pass  # Somebody else was faster.
    return ()


def _take(pid: int) -> int | None:
    """Wait for the child and take its status; `None` if somebody else was faster."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None
