"""The loop that `run` and `Runner` make when they are given no factory.

asyncio's way is to ask `asyncio.new_event_loop`, which asks the event loop policy, so that whoever
has replaced one of them decides. But as long as both are the stdlib's own, a program that calls
``aioxide.run()`` means a native loop, whether `install()` was called or not.
"""

from asyncio import events
from typing import Any

from aioxide import _aioxide
from aioxide._bindings import namespace
from aioxide._install import source_of_loops


def new_event_loop() -> Any:
    """Return a new loop: a native one, unless somebody has provided for another kind."""
    if not _is_policy_patched() and source_of_loops() == "asyncio":
        return _aioxide.new_event_loop()
    return namespace(events)["new_event_loop"]()


def _is_policy_patched() -> bool:
    """Tell whether the policy object itself has been changed; its class is looked at elsewhere."""
    policy = getattr(events, "_event_loop_policy", None)
    return bool({"new_event_loop", "_loop_factory"} & set(getattr(policy, "__dict__", ())))
