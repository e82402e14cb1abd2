"""Native loops for ``await`` in IPython's terminal: ``%load_ext aioxide.contrib.ipython``.

IPython runs what is awaited at its prompt on a loop that it keeps. The extension gives it a native
one, and has `asyncio.run` and the like make native loops, until ``%unload_ext``. A Jupyter kernel
has started its loop before it can load an extension; start it by ``python -m aioxide`` instead.
"""

from collections.abc import Coroutine
from typing import Any

import aioxide


class _Runner:
    """Runs what is awaited at the prompt; IPython calls it."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.loop = aioxide.new_event_loop()
        self.installs = aioxide.status().level == "none"
        self.retired = False

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run_until_complete(coroutine)
        finally:
            if self.retired:
                self.loop.close()

    def __str__(self) -> str:
        return "aioxide"

    def retire(self) -> None:
        """Close the loop, as soon as the cell that asks for it has ended."""
        self.retired = True
        if not self.loop.is_running():
            self.loop.close()


def load_ipython_extension(shell: Any) -> None:
    """Let the prompt run on a native loop."""
    if hasattr(shell, "kernel"):
        raise RuntimeError(
            "the loop of this kernel runs already: have its kernel.json start it by "
            "'python -m aioxide -m ipykernel_launcher'"
        )
    if not isinstance(shell.loop_runner, _Runner):
        runner = shell.loop_runner = _Runner(shell.loop_runner)
        if runner.installs:
            aioxide.install("loop")


def unload_ipython_extension(shell: Any) -> None:
    """Let the prompt run on what it ran on before."""
    runner = shell.loop_runner
    if isinstance(runner, _Runner):
        shell.loop_runner = runner.before
        runner.retire()
        if runner.installs:
            aioxide.uninstall()
