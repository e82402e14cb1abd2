"""Runs `memory_program.py` under valgrind and fails on errors in which the extension has a part.

CPython itself is not free of complaints (3.11 reads a few ints that valgrind takes for unset while it starts), so an
error counts only if a function of the extension stands in one of its stacks: where it happened, or where the memory
in question was allocated or freed.
"""

import collections
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

PROGRAM = pathlib.Path(__file__).with_name("memory_program.py")
EXTENSION = "_aioxide"

# Of two conditions that must both hold the compiler may test first the one that means nothing without the other: here
# the capacity of a Unix socket's name before whether the address is one.
HARMLESS = ("UninitCondition", "drop_in_place<core::option::Option<aioxide_engine::socket::Address>>")


def run(valgrind, report):
    """Runs the program; the errors go to a file, in XML."""
    command = [valgrind, "--tool=memcheck", "--leak-check=no", "--num-callers=40", "--xml=yes", f"--xml-file={report}"]
    # A child would write into the same file.
    command += ["--child-silent-after-fork=yes"]
    command += [sys.executable, "-W", "ignore", str(PROGRAM)]
    # CPython's own allocator hands out parts of blocks, of which valgrind knows nothing.
    environment = os.environ | {"PYTHONMALLOC": "malloc"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def stands_in(error):
    """Has a function of the extension a part in this error?"""
    # What lives until the process ends is reported too, and is no error.
    kind = error.findtext("kind") or ""
    if kind.startswith("Leak_"):
        return False
    if (kind, error.findtext("stack/frame/fn")) == HARMLESS:
        return False
    # One of those ints of 3.11, in a slot of a class written in Python: the collector ran somewhere below us.
    if kind == "UninitValue" and any(frame.findtext("fn") == "traverse_slots" for frame in error.iter("frame")):
        return False
    return any(EXTENSION in (frame.findtext("obj") or "") for frame in error.iter("frame"))


def describe(error):
    """The error with its stacks, as text."""
    lines = [error.findtext("what") or error.findtext("xwhat/text") or "?"]
    for part in error:
        if part.tag == "auxwhat":
            lines.append(f"  {part.text}")
        elif part.tag == "stack":
            for frame in list(part.iter("frame"))[:20]:
                place = frame.findtext("file") or pathlib.Path(frame.findtext("obj") or "?").name
                lines.append(f"    {frame.findtext('fn') or '?'} ({place}:{frame.findtext('line') or '?'})")
    return "\n".join(lines)


def main():
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not here: install the package of that name", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "errors.xml")
        result = run(valgrind, report)
        if result.returncode != 0 or "has ended well" not in result.stdout:
            print(result.stdout, result.stderr, "the program has failed", sep="\n", file=sys.stderr)
            return 1
        errors = ET.parse(report).findall("error")
    ours = [error for error in errors if stands_in(error)]
    kinds = [error.findtext("kind") or "?" for error in errors if not stands_in(error)]
    others = collections.Counter(kind for kind in kinds if not kind.startswith("Leak_"))
    for error in ours:
        print(describe(error), end="\n\n")
    print(f"{len(ours)} errors in the extension; in CPython alone: {dict(others) or 'none'}")
    return int(bool(ours))


if __name__ == "__main__":
    sys.exit(main())
