"""The command line: ``python -m aioxide [option] ... [file | -m mod | -c cmd | -] [arg] ...``."""

import sys
from collections.abc import Callable
from typing import NoReturn

from aioxide import _aioxide, _program
from aioxide._install import install
from aioxide._status import Level

_USAGE = """\
usage: python -m aioxide [run] [--loop-only] [file | -m mod | -c cmd | -] [arg] ...
"""

_HELP = f"""\
{_USAGE}
Run a Python program with asyncio in Rust. The program needs no change; all else is as if python
itself had run it.

program:
  file         a script, or a directory or zip file with a __main__.py in it
  -m mod       a module or package
  -c cmd       a program passed in as a string
  -            a program read from standard input
  arg ...      what the program finds in sys.argv[1:]

options:
  --loop-only  only the event loop is native; locks, queues, gather and the like stay asyncio's
  -h, --help   show this text and exit
  --version    show the version and exit
"""


def main() -> None:
    """Do what `sys.argv` says."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"]:
        del arguments[0]
    level: Level = "full"
    while arguments and arguments[0] != "-" and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "--loop-only":
            level = "loop"
            continue
        if option in ("-h", "--help"):
            print(_HELP, end="")
        elif option == "--version":
            print(f"aioxide {_aioxide.__version__} (Python {sys.version.split()[0]})")
        elif option[:2] == "-m":
            _run(_program.run_module, level, _value(option, arguments), arguments)
        elif option[:2] == "-c":
            _run(_program.run_command, level, _value(option, arguments), arguments)
        else:
            _refuse(f"unknown option {option}\n{_USAGE}")
        return
    if not arguments:
        _refuse(_HELP)
    path = arguments.pop(0)
    run = _program.run_stdin if path == "-" else _program.run_path
    _run(run, level, path, arguments)


def _value(option: str, arguments: list[str]) -> str:
    """Return what follows ``-m`` or ``-c``: in the same word, as python allows, or the next."""
    if option[2:]:
        return option[2:]
    if not arguments:
        _refuse(f"Argument expected for the {option} option\n{_USAGE}")
    return arguments.pop(0)


def _run(program: Callable[[str, list[str]], None], level: Level, what: str, arguments: list[str]) -> None:
    install(level)
    program(what, arguments)


def _refuse(message: str) -> NoReturn:
    """Print a message and exit as python does for a command line it cannot use."""
    sys.stderr.write(message)
    sys.exit(2)
