"""Runs when a Python starts with this folder on its ``PYTHONPATH``; see `aioxide._children`.

It lets the first import of asyncio (or of aioxide) be followed by `aioxide.install()`, so that a
program without asyncio pays nothing; servers that `install()` changes are imported after it. Then it
makes way for the `sitecustomize` that this one hides.

Any Python may find itself here, also one that has no aioxide, or that is too old for it: then
nothing happens. So the code has to be understood by all of them.
"""

import os
import sys

#: Before they are imported `aioxide.install()` has to be there: they import asyncio in the midst of their own.
_HOSTS = ("granian", "gunicorn", "uvicorn")

#: After one of these is imported, `aioxide.install()` is called.
_FIRST = ("asyncio", "aioxide")


class _Finder(object):  # noqa: UP004
    """Finds the first of two modules as usual, with a loader that installs aioxide afterwards."""

    def __init__(self, level):
        self.level = level

    def find_spec(self, name, path=None, target=None):
        if name not in _FIRST and name not in _HOSTS:
            return None
        try:
            sys.meta_path.remove(self)
        except ValueError:
            # Another thread came first.
            return None
        from importlib.util import find_spec

        if name in _HOSTS:
            self.install()
            return find_spec(name)
        spec = find_spec(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = Loader(spec.loader, self.install)
        return spec

    def install(self, module=None):
        try:
            import aioxide
        except ImportError:
            # Another Python than that which set the environment, or a second interpreter.
            return
        aioxide.install(self.level, children=True)


class Loader(object):  # noqa: UP004
    """Loads a module as `real` does, and hands it to a function when that is done."""

    def __init__(self, real, then):
        self.real = real
        self.then = then

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        # Whoever looks at the module finds it loaded by its own loader.
        module.__spec__.loader = module.__loader__ = self.real
        self.real.exec_module(module)
        self.then(module)

    def __getattr__(self, name):
        return getattr(self.real, name)


def _prepare():
    level = os.environ.get("AIOXIDE_INSTALL", "")
    if level in ("", "0") or sys.version_info < (3, 11):
        return
    if level == "1":
        level = "full"
    if level in ("full", "loop"):
        sys.meta_path.insert(0, _Finder(level))
    else:
        sys.stderr.write("aioxide: AIOXIDE_INSTALL must be 'full', 'loop' or '0', not %r\n" % level)  # noqa: UP031


def _make_way():
    """Run the `sitecustomize` behind this one, and leave the program a path without this folder."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    this = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError as error:
        if getattr(error, "name", None) != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, this)


if __name__ == "sitecustomize":
    _prepare()
    _make_way()
