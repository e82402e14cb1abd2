"""`asyncio.queues`: queues between tasks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.queues import QueueEmpty as QueueEmpty
    from asyncio.queues import QueueFull as QueueFull

    from aioxide._aioxide import LifoQueue as LifoQueue
    from aioxide._aioxide import PriorityQueue as PriorityQueue
    from aioxide._aioxide import Queue as Queue
    from aioxide._aioxide import QueueShutDown as QueueShutDown
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
