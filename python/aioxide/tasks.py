"""`asyncio.tasks`: tasks, and waiting for them in various ways."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.tasks import _enter_task as _enter_task
    from asyncio.tasks import _leave_task as _leave_task
    from asyncio.tasks import _register_task as _register_task
    from asyncio.tasks import _unregister_task as _unregister_task
    from asyncio.tasks import all_tasks as all_tasks
    from asyncio.tasks import current_task as current_task

    from aioxide._aioxide import ALL_COMPLETED as ALL_COMPLETED
    from aioxide._aioxide import FIRST_COMPLETED as FIRST_COMPLETED
    from aioxide._aioxide import FIRST_EXCEPTION as FIRST_EXCEPTION
    from aioxide._aioxide import Task as Task
    from aioxide._aioxide import as_completed as as_completed
    from aioxide._aioxide import create_eager_task_factory as create_eager_task_factory
    from aioxide._aioxide import create_task as create_task
    from aioxide._aioxide import eager_task_factory as eager_task_factory
    from aioxide._aioxide import ensure_future as ensure_future
    from aioxide._aioxide import gather as gather
    from aioxide._aioxide import run_coroutine_threadsafe as run_coroutine_threadsafe
    from aioxide._aioxide import shield as shield
    from aioxide._aioxide import sleep as sleep
    from aioxide._aioxide import wait as wait
    from aioxide._aioxide import wait_for as wait_for
else:
    from aioxide._namespace import fill_submodule as _fill

    __all__, __getattr__, __dir__ = _fill(globals())
