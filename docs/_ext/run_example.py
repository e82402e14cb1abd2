"""The directive ``run``: a program, and beneath it what it printed when these pages were built.

    ```{run}
    :expect: never awaited
    :options: -X dev
    import asyncio
    ...
    ```

The program runs under ``python -m aioxide`` in a process of its own. ``expect`` is a text that the output has to
hold, or the build fails; ``under: python`` runs it on the stdlib instead; ``exit`` is the exit status, 0 if left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import aioxide

SECONDS = 30
PACKAGE = Path(aioxide.__file__).parents[1]
"""The folder that the package is in."""


class Run(SphinxDirective):
    """Runs a program and shows it with its output."""

    has_content = True
    option_spec: ClassVar = {
        "expect": directives.unchanged,
        "options": directives.unchanged,
        "under": lambda value: directives.choice(value, ("aioxide", "python")),
        "exit": directives.nonnegative_int,
    }

    def run(self) -> list[nodes.Node]:
        source = "\n".join(self.content) + "\n"
        status, output = run_program(source, self.options.get("options", ""), self.options.get("under", "aioxide"))
        wanted = self.options.get("exit", 0)
        if status != wanted:
            raise self.error(f"the program ended with {status}, not {wanted}:\n{output}")
        for line in self.options.get("expect", "").splitlines():
            if line.strip() not in output:
                raise self.error(f"{line.strip()!r} is not in the output:\n{output}")
        program = nodes.literal_block(source, source, language="python")
        shown = nodes.literal_block(output, output, language="text", classes=["output"])
        self.set_source_info(program)
        self.set_source_info(shown)
        return [program, shown] if output else [program]


def run_program(source: str, options: str, under: str) -> tuple[int, str]:
    """Exit status, and both output streams in the order they were written, without the paths of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "app.py")
        path.write_text(source, encoding="utf-8")
        module = [] if under == "python" else ["-m", "aioxide"]
        command = [sys.executable, *options.split(), *module, "app.py"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, _without_machine(done.stdout, folder)


def _without_machine(output: str, folder: str) -> str:
    """The output with what differs from run to run and from machine to machine taken out."""
    output = output.replace(f"{folder}/", "")
    output = output.replace(f"{PACKAGE}/", ".../")
    output = re.sub(r"/[^\s\"']*/lib/python[\d.]+/", ".../", output)
    output = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", output)
    return output.rstrip("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tells Sphinx of the directive."""
    app.add_directive("run", Run)
    return {"parallel_read_safe": True}
