"""What `aioxide.status()` returns: what is native right now, what is not, and why."""

import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

#: How much of asyncio `install()` takes over.
Level = Literal["full", "loop"]


@dataclass(frozen=True, slots=True)
class StaleReference:
    """A name in some module that still is the stdlib's object: it was imported too early."""

    #: The module that holds the reference, and its name there.
    module: str
    name: str
    #: What it refers to, such as ``asyncio.tasks.sleep``.
    refers_to: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name} is still the stdlib's {self.refers_to}"


@dataclass(frozen=True, slots=True)
class Status:
    """What `install()` has done. `print()` it to read it."""

    #: The version of aioxide.
    version: str
    level: Literal["none", "loop", "full"]
    #: What makes the loops of `asyncio.run()` and `asyncio.new_event_loop()`: ``"aioxide"``,
    #: ``"asyncio"`` or the name of an event loop policy that somebody has set.
    loops: str
    #: Names whose every use through asyncio is native, such as ``asyncio.tasks.sleep``.
    native: tuple[str, ...]
    #: How many bindings within asyncio hold a native object; 0 after `uninstall()`.
    bindings: int
    #: Names of a later Python's asyncio that have been added to this one's.
    added: tuple[str, ...]
    #: Names aioxide has a native version of, but to which others have bound something else.
    overridden: tuple[str, ...]
    #: References elsewhere that were made before `install()`; see its `rebind_importers`.
    #: Copies that are no module attribute (closures, class attributes, defaults) are not seen.
    stale: tuple[StaleReference, ...]
    #: Public names of asyncio that are the stdlib's own, with the reason.
    stdlib: Mapping[str, str]
    #: Classes that derive from the stdlib's event loop. What they make is theirs, not native.
    foreign_loops: tuple[str, ...]
    #: Hosts, imported so far, whose ``auto`` is asyncio's loop now instead of uvloop's or rloop's.
    hosts: tuple[str, ...]
    #: What Pythons started from here install by themselves: see `children` of `install()`.
    children: Literal["none", "loop", "full"]
    #: What stands in the way, and what to do about it.
    advice: tuple[str, ...]

    def __str__(self) -> str:
        where = f"aioxide {self.version} on Python {sys.version.split()[0]}"
        state = "not installed" if self.level == "none" else f"installed, level {self.level!r}"
        lines = [f"{where}: {state}", f"new loops come from: {self.loops}"]
        if self.native or self.bindings:
            lines.append(f"native ({len(self.native)} names, {self.bindings} bindings):")
            lines.append(_indented(self.native))
        if self.added:
            lines.append("of a later Python's asyncio, added to this one's:")
            lines.append(_indented(self.added))
        if self.overridden:
            lines.append("bound to something else by others:")
            lines.append(_indented(self.overridden))
        if self.stale:
            lines.append("made before install(), so not native:")
            lines.extend(f"  {reference}" for reference in self.stale)
        for reason in dict.fromkeys(self.stdlib.values()):
            lines.append(f"the stdlib's own, {reason}:")
            lines.append(_indented(name for name, why in self.stdlib.items() if why == reason))
        if self.foreign_loops:
            lines.append("classes of others that derive from the stdlib's loop and stay what they are:")
            lines.append(_indented(self.foreign_loops))
        if self.hosts:
            lines.append(f"take asyncio's loop, not uvloop's or rloop's, unless they are told: {', '.join(self.hosts)}")
        if self.children != "none":
            lines.append(f"Pythons started from here install aioxide, level {self.children!r}")
        lines.extend(f"advice: {text}" for text in self.advice)
        return "\n".join(lines)


def _indented(names: Iterable[str]) -> str:
    return textwrap.fill(
        ", ".join(names),
        100,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
