"""`asyncio.taskgroups`: tasks that end together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioxide._aioxide import TaskGroup as TaskGroup
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
