"""``asyncio.SelectorEventLoop`` as `install()` leaves it: a class that makes native loops.

The name has three uses, and all of them have to go on working:

* *called*, it gives a new loop: a native one, unless it is handed a selector of somebody's own
  (a GUI toolkit's, say): only the stdlib's loop can turn that;
* as a *base class*, it stands for the stdlib's class: a subclass derives from the stdlib's loop
  itself, its metaclass included, and nothing of aioxide is in it;
* in *isinstance and issubclass*, it means the stdlib's loop or a native one.
"""

import selectors
from abc import ABCMeta
from asyncio.unix_events import _UnixSelectorEventLoop
from types import new_class
from typing import Any

from aioxide import _aioxide

#: The stdlib's own class, whatever the public names are bound to.
StdlibLoop = _UnixSelectorEventLoop


def _is_foreign(selector: object) -> bool:
    """Tell whether a native loop must not take the place of this selector.

    The stdlib's own selectors say no more than "use epoll" or "use poll". Classes from elsewhere
    do work of their own in `select()`, and one that has files registered is shared with somebody.
    """
    return (
        not isinstance(selector, selectors.BaseSelector)
        or type(selector).__module__ != selectors.__name__
        or bool(selector.get_map())
    )


# From ABCMeta, so that a class may derive from an ABC and from SelectorEventLoop: a metaclass
# unrelated to ABCMeta would be a conflict there.
class _SelectorEventLoopType(ABCMeta):
    """The class of `SelectorEventLoop`."""

    def __new__(mcls, name: str, bases: tuple[type, ...], body: dict[str, Any], /, **keywords: Any) -> Any:
        if not any(isinstance(base, mcls) for base in bases):
            return super().__new__(mcls, name, bases, body, **keywords)
        real = tuple(StdlibLoop if isinstance(base, mcls) else base for base in bases)
        return new_class(name, real, keywords, lambda namespace: namespace.update(body))

    def __call__(cls, selector: Any = None) -> Any:
        if selector is not None:
            if _is_foreign(selector):
                return StdlibLoop(selector)
            # A loop owns its selector and closes it. A native loop has no use for it, and nobody
            # else would give its descriptor back.
            selector.close()
        return _aioxide.new_event_loop()

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (StdlibLoop, _aioxide.Loop))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, (StdlibLoop, _aioxide.Loop))


class SelectorEventLoop(StdlibLoop, metaclass=_SelectorEventLoopType):
    """Make a native event loop, or the stdlib's for a selector that is not the stdlib's."""

    # Where pickle and readers find it while installed.
    __module__ = "asyncio.unix_events"
