"""The registry of benchmark rows.

A row is a coroutine function `bench(n)` that does `n` operations, checks that they really happened and
returns nothing. It uses plain `import asyncio`, so that the provider decides what those names are.
"""

import dataclasses
import importlib
from collections.abc import Awaitable, Callable

MODULES = (
    "bench_tasks",
    "bench_combinators",
    "bench_sync",
    "bench_loop",
    "bench_memory",
    "bench_network",
    "bench_subprocess",
)

Figures = float | dict[str, float] | None
"""What a row found by itself: `value`, alone or among others."""

Bench = Callable[[int], Awaitable[Figures]]


class Missing(Exception):
    """The provider does not have what the row needs."""


class Failed(Exception):
    """The cell gave no figure."""


def problem(reason: str) -> Missing | Failed:
    """The exception for what a process said when it ended."""
    return Missing(reason) if reason.startswith("NotImplementedError") else Failed(reason)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    """What the report prints and `--only` matches."""
    group: str
    """task, combinator, primitive, loop, memory, network or subprocess; the first three make the geometric mean."""
    bench: Bench
    """Does `n` operations; a row whose unit is not ns returns its own figures."""
    quantum: int
    """`n` is always a multiple of this."""
    unit: str
    """ns for CPU time per operation, µs or ms by the clock, B for bytes per object, or turns of the loop."""
    operations: str = "calls"
    """What is counted."""
    rounds: int | None = None
    """The most rounds, if few say enough."""


MEAN_GROUPS = ("task", "combinator", "primitive")

_rows: list[Row] = []


def row(
    name: str, group: str, quantum: int = 1, unit: str = "ns", operations: str = "calls"
) -> Callable[[Bench], Bench]:
    """Registers the decorated coroutine function as a row."""

    def register(bench: Bench) -> Bench:
        _rows.append(Row(name, group, bench, quantum, unit, operations))
        return bench

    return register


def load() -> list[Row]:
    """Imports every bench module and returns all rows in order."""
    for module in MODULES:
        importlib.import_module(module)
    return list(_rows)


def expect(actual: object, wanted: object) -> None:
    """Fails the cell when a workload did not do what its figure claims."""
    if actual != wanted:
        raise AssertionError(f"workload is wrong: got {actual!r}, wanted {wanted!r}")
