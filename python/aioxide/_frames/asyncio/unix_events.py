"""Answers what the files of UNIX sockets are looked after under in asyncio's file of this name."""

import os
from typing import Any


def create_unix_server(function: str, path: Any) -> Any:
    """Call a function of `os` for a server's file before it is bound, and after."""
    return getattr(os, function)(path)


def _stop_serving(function: str, path: Any) -> Any:
    """Call a function of `os` for the file of a server that is closed."""
    return getattr(os, function)(path)
