"""Run a program as python itself would: a script, a module, a string or standard input.

The program gets the interpreter's own `__main__` module, emptied, not one made for it: pickle,
multiprocessing and `import __main__` find what they would find without us. `sys.argv`,
`sys.path[0]` and the names python puts into `__main__` are the same, too.

An exception that the program does not handle, SystemExit and KeyboardInterrupt included, leaves
through here and through runpy into the interpreter, which does what it always does: run
`sys.excepthook`, wait for threads, run atexit functions, choose the exit code, die of SIGINT. Only
the frames that led to the program are taken off the traceback before the hook sees it. For a
module or a directory python has runpy run it, and shows two frames of that; so do we.
"""

import builtins
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from io import BytesIO, open_code
from types import CodeType, TracebackType
from typing import Any, cast

# The function by which python itself runs a module.
_run_module_as_main: Callable[..., Any] = runpy._run_module_as_main  # type: ignore[attr-defined]


def run_path(path: str, arguments: list[str]) -> None:
    """Run a script, or what is in a directory or zip file."""
    sys.argv = [path, *arguments]
    # As python does it: "./x.py" becomes "/where/ever/./x.py".
    absolute = os.path.join(os.getcwd(), path)
    if pkgutil.get_importer(absolute) is not None:
        # `-P` keeps scripts' directories off the path, but not this.
        sys.path[: not sys.flags.safe_path] = [absolute]
        _run(lambda: _run_module_as_main("__main__", alter_argv=False))
    else:
        # Where the script really is, should the path be a symbolic link.
        _set_first_path(os.path.dirname(os.path.realpath(absolute)))
        _run(lambda: _run_script(absolute))


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module or package, ``python -m``."""
    # "-m" stands there while the module is being located.
    sys.argv = ["-m", *arguments]
    _run(lambda: _run_module_as_main(name))


def run_command(command: str, arguments: list[str]) -> None:
    """Run a string, ``python -c``."""
    sys.argv = ["-c", *arguments]
    _set_first_path("")
    _run(lambda: _run_command(command))


def run_stdin(path: str, arguments: list[str]) -> None:
    """Run what standard input holds, ``python -``."""
    sys.argv = [path, *arguments]
    _set_first_path("")
    _run(lambda: _run_source(sys.stdin.buffer.read(), "<stdin>"))


def _set_first_path(directory: str) -> None:
    """Replace the current directory, which ``python -m`` has put first on the path."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _run_script(path: str) -> None:
    try:
        with open_code(path) as file:
            content = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {path!r}: {reason}\n")
        sys.exit(2)
    if code := pkgutil.read_code(BytesIO(content)):
        _execute(code, __file__=path, __loader__=SourcelessFileLoader("__main__", path))
    else:
        _run_source(content, path)


def _run_source(source: bytes, name: str) -> None:
    loader = SourceFileLoader("__main__", name)
    _execute(_compile(source, name), __file__=name, __loader__=loader)


def _run_command(command: str) -> None:
    if sys.version_info >= (3, 14):
        command = textwrap.dedent(command)
    code = _compile(command, "<string>")
    # Tracebacks of such a program have shown its lines since 3.13.
    if register := getattr(linecache, "_register_code", None):
        register(code if sys.version_info >= (3, 14) else "<string>", command, "<string>")
    _execute(code, __loader__=BuiltinImporter)


def _compile(source: bytes | str, name: str) -> CodeType:
    # From 3.15 on, filters for warnings of the compiler go by the module's name.
    options: dict[str, Any] = {"module": "__main__"} if sys.version_info >= (3, 15) else {}
    code = compile(source, name, "exec", dont_inherit=True, **options)
    return cast("CodeType", code)


def _execute(code: CodeType, **names: object) -> None:
    """Execute code in `__main__`, with `names` in it."""
    main = vars(sys.modules["__main__"])
    main.update(__doc__=None, __package__=None, __spec__=None, __builtins__=builtins)
    if "__file__" not in names:
        main.pop("__file__", None)
        main.pop("__cached__", None)
    elif "__cached__" in main:
        main["__cached__"] = None
    main.update(names)
    exec(code, main)


def _run(program: Callable[[], object]) -> None:
    """Empty `__main__` and call `program`; let its exceptions pass as if nobody had called it."""
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    try:
        program()
    except SystemExit:
        raise
    except BaseException as error:
        _hide_callers(error)
        raise


def _hide_callers(error: BaseException) -> None:
    """Arrange that `sys.excepthook` does not see the frames between python and the program."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    hook = getattr(sys, "excepthook", sys.__excepthook__)

    def excepthook(kind: type[BaseException], value: BaseException, _: TracebackType) -> None:
        # The frames on the way from here to the interpreter have been added by now.
        sys.excepthook = hook
        sys.last_traceback = value.__traceback__ = traceback
        hook(kind, value, traceback)

    sys.excepthook = cast("Any", excepthook)
