"""Answers what a subprocess is started under in asyncio's file of this name."""

import subprocess
from typing import Any


def subprocess_exec(args: Any, options: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """Start a child; blocks until it is known whether the program could be executed."""
    return subprocess.Popen(args, **options)
