"""The command line: ``python -m aioxide [run] [option] ... [file | -m mod | -c cmd | -] [arg] ...``, or ``doctor``."""

import atexit
import sys
from typing import NoReturn

from aioxide import _aioxide, _children, _hosts, _program
from aioxide._install import install
from aioxide._status import Level

#: Packages with loops of their own.
_OTHER_LOOPS = ("rloop", "rsloop", "uvloop", "winloop", "zuvloop")

_USAGE = """\
usage: python -m aioxide [run] [--loop-only] [--children] [file | -m mod | -c cmd | -] [arg] ...
       python -m aioxide doctor [--loop-only] [mod] ...
"""

_HELP = f"""\
{_USAGE}
Run a Python program with asyncio in Rust. The program needs no change; all else is as if python
itself had run it, but for servers that take uvloop while they are told no loop: they take asyncio's.
Or: import modules, and tell what in them would not be native, and why.

  run          does nothing, but what follows it is no command (a script of the name "doctor", say)
  doctor       tell what is native and what is not; the exit status is 1 if there is a problem

program:
  file         a script, or a directory or zip file with a __main__.py in it
  -m mod       a module or package
  -c cmd       a program passed in as a string
  -            a program read from standard input
  arg ...      what the program finds in sys.argv[1:]

options:
  --loop-only  only the event loop is native; locks, queues, gather and the like stay asyncio's
  --children   the Pythons that the program starts do the same: subprocesses, multiprocessing
  -h, --help   show this text and exit
  --version    show the version and exit
"""


def main() -> None:
    """Do what `sys.argv` says."""
    arguments = sys.argv[1:]
    command = arguments.pop(0) if arguments[:1] in (["run"], ["doctor"]) else "run"
    level: Level = "full"
    children = False
    while arguments and arguments[0] != "-" and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "--loop-only":
            level = "loop"
            continue
        if option == "--children" and command == "run":
            children = True
            continue
        if option in ("-h", "--help"):
            print(_HELP, end="")
        elif option == "--version":
            print(f"aioxide {_aioxide.__version__} (Python {sys.version.split()[0]})")
        elif option[:2] == "-m" and command == "run":
            what = _value(option, arguments)
            _install(level, children)
            _program.run_module(what, arguments)
        elif option[:2] == "-c" and command == "run":
            what = _value(option, arguments)
            _install(level, children)
            _program.run_command(what, arguments)
        else:
            _refuse(f"unknown option {option}\n{_USAGE}")
        return
    if command == "doctor":
        # Only now: it looks at more than a program should have to wait for.
        from aioxide._doctor import examine

        sys.exit(examine(arguments, level))
    if not arguments:
        _refuse(_HELP)
    path = arguments.pop(0)
    _install(level, children)
    run = _program.run_stdin if path == "-" else _program.run_path
    run(path, arguments)


def _install(level: Level, children: bool) -> None:
    """Install, and tell of what does not run on it all the same."""
    install(level, children=children)
    if _children.level() is None:
        _hosts.warn_of_workers()
    # Registered first, run last.
    atexit.register(_report)


def _report() -> None:
    """Tell of a program that has taken its loops elsewhere."""
    # Granian imports every loop it knows, whatever it takes then.
    others = [name for name in _OTHER_LOOPS if name in sys.modules and "granian" not in sys.modules]
    if others and not _aioxide._has_made_loops():
        names = " and ".join(others)
        sys.stderr.write(
            f"aioxide: nothing ran on a native event loop here: the program has imported {names}, and made no loop of "
            "aioxide's\n"
        )


def _value(option: str, arguments: list[str]) -> str:
    """Return what follows ``-m`` or ``-c``: in the same word, as python allows, or the next."""
    if option[2:]:
        return option[2:]
    if not arguments:
        _refuse(f"Argument expected for the {option} option\n{_USAGE}")
    return arguments.pop(0)


def _refuse(message: str) -> NoReturn:
    """Print a message and exit as python does for a command line it cannot use."""
    sys.stderr.write(message)
    sys.exit(2)
