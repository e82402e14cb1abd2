"""How Pythons that this process starts get to install aioxide: by their environment.

`AIOXIDE_INSTALL` holds the level. Python itself runs a module named `sitecustomize` when it starts;
the folder ``_bootstrap``, put first on ``PYTHONPATH``, has one that looks at the variable and then
runs the `sitecustomize` that would have run without it. So nothing that is installed makes every
Python on the machine look at aioxide, as a ``.pth`` file would.
"""

import os
from pathlib import Path
from typing import cast, get_args

from aioxide._status import Level

#: Holds the level.
VARIABLE = "AIOXIDE_INSTALL"

#: The folder with the `sitecustomize`.
FOLDER = str(Path(__file__).parent / "_bootstrap")

_PATH = "PYTHONPATH"


def level() -> Level | None:
    """Return what children install as the environment is now, None for nothing."""
    value = os.environ.get(VARIABLE)
    return cast("Level", value) if value in get_args(Level) and FOLDER in _folders() else None


def reach(level: Level) -> None:
    """Let the Pythons that are started from now on install aioxide."""
    os.environ[VARIABLE] = level
    # An empty part would stand for the current folder: there must be none.
    os.environ[_PATH] = os.pathsep.join([FOLDER, *(folder for folder in _folders() if folder != FOLDER)])


def leave() -> None:
    """Take that back; whatever else is in the environment stays."""
    if level() is None:
        return
    del os.environ[VARIABLE]
    if others := [folder for folder in _folders() if folder != FOLDER]:
        os.environ[_PATH] = os.pathsep.join(others)
    else:
        del os.environ[_PATH]


def _folders() -> list[str]:
    value = os.environ.get(_PATH)
    return value.split(os.pathsep) if value else []
