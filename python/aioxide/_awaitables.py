"""What `ensure_future` makes of an awaitable that is no coroutine."""

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def _wrap_awaitable(awaitable: Awaitable[T]) -> T:
    return await awaitable
