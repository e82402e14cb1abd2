"""The order of modules in ARCHITECTURE.md is the order of the code: a module uses only what stands above it."""

import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
CRATES = ("aioxide-engine", "aioxide-load", "aioxide-python")

EXCEPTIONS = {
    ("aioxide-python", "ffi", "names"): (
        "`ffi/sending.rs` looks up the method `throw` by its interned name; `names` in turn is made of `ffi`'s "
        "interned strings and uses nothing else of it"
    ),
    ("aioxide-python", "events", "base_events"): (
        "the class `EventLoop` is declared low, and the collector's finaliser of a class belongs to its declaration; "
        "what it does for a loop that was never closed is a method of the loop, and those stand high"
    ),
}
"""Crate, module and the later module that it uses all the same, with the reason."""

# What may hide a word from, or show a false one to, a search: comments, strings, characters.
NO_CODE = re.compile(
    r"""
      //[^\n]*
    | /\*.*?\*/
    | \b[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)
    | \b[bc]?"(?:\\.|[^"\\])*"
    | "(?:\\.|[^"\\])*"
    | '(?:\\[^']+|[^'\\\n])'
    """,
    re.DOTALL | re.VERBOSE,
)
TEST_ITEM = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]")
PATH = re.compile(r"(?<![\w$])crate\s*::\s*(\w+|\{)")


def without_comments(text: str) -> str:
    """The code of a file; strings and comments become blanks."""
    return NO_CODE.sub(" ", text)


def without_tests(code: str) -> str:
    """Code without the items that exist in tests only."""
    while match := TEST_ITEM.search(code):
        # An item ends with a semicolon, or with the brace that closes its body.
        depth = 0
        for end in range(match.end(), len(code)):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            if depth == 0 and code[end] in ";}":
                break
        code = code[: match.start()] + code[end + 1 :]
    return code


def group(code: str, start: int) -> Iterator[str]:
    """The first names of what stands between the braces of `crate::{...}`, whose inside starts at `start`."""
    depth, expected = 1, True
    for token in re.compile(r"\w+|[{},]").finditer(code, start):
        text = token[0]
        if text == "{":
            depth += 1
        elif text == "}":
            depth -= 1
            if depth == 0:
                return
        elif depth == 1 and text == ",":
            expected = True
        elif depth == 1 and expected:
            expected = False
            yield text


def uses(code: str) -> Iterator[str]:
    """The first name of each path that starts at the crate."""
    for match in PATH.finditer(code):
        if match[1] == "{":
            yield from group(code, match.end())
        else:
            yield match[1]


def files(crate: str) -> dict[pathlib.PurePosixPath, pathlib.Path]:
    """The files of a crate's modules, tests left out, by their path below `src`."""
    source = ROOT / "crates" / crate / "src"
    return {
        pathlib.PurePosixPath(path.relative_to(source).as_posix()): path
        for path in sorted(source.rglob("*.rs"))
        if path.name != "tests.rs"
    }


def module_of(file: pathlib.PurePosixPath) -> str:
    """The module of the crate that a file belongs to: `ffi/object.rs` is part of `ffi`."""
    return file.parts[0].removesuffix(".rs")


def layers(crate: str) -> dict[str, list[str]]:
    """The modules of a crate in the documented order, each with its parts.

    Below the heading of its crate stand the layers, with semicolons between them: each a module, perhaps a colon and
    its parts, perhaps two dashes and a remark.
    """
    section = re.search(
        rf"^#+ Modules of `{crate}`$\n\n(?P<list>.*?)\n\n",
        ARCHITECTURE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert section, f"ARCHITECTURE.md has no heading 'Modules of `{crate}`'"
    found = {}
    for layer in section["list"].split(";"):
        name, *parts = re.findall(r"`([\w/]+)`", re.split(r"\s--\s", layer)[0])
        found[name] = parts
    return found


@pytest.mark.parametrize("crate", CRATES)
def test_every_module_stands_in_the_list(crate):
    documented = [
        f"{module}/{part}" if part else module for module, parts in layers(crate).items() for part in ["", *parts]
    ]
    present = [path.with_suffix("").as_posix().removesuffix("/mod") for path in files(crate)]
    assert sorted(documented) == sorted(present)


@pytest.mark.parametrize("crate", CRATES)
def test_modules_use_only_what_stands_above_them(crate):
    order = list(layers(crate))
    exceptions = {(user, used) for where, user, used in EXCEPTIONS if where == crate}
    broken = []
    for file, path in files(crate).items():
        module = module_of(file)
        for name in uses(without_tests(without_comments(path.read_text(encoding="utf-8")))):
            assert name in order, f"{file}: `crate::{name}` is no module; write where the name comes from"
            if order.index(name) > order.index(module) and (module, name) not in exceptions:
                broken.append(f"{file} uses {name}, which stands below {module}")
    assert not broken


@pytest.mark.parametrize("crate", CRATES)
def test_every_exception_is_needed(crate):
    """An exception that the code has outgrown goes."""
    order = list(layers(crate))
    found = {
        (module_of(file), name)
        for file, path in files(crate).items()
        for name in uses(without_tests(without_comments(path.read_text(encoding="utf-8"))))
        if order.index(name) > order.index(module_of(file))
    }
    assert found == {(user, used) for where, user, used in EXCEPTIONS if where == crate}


def test_unsafe_code_is_in_ffi_and_sys_alone():
    homes = {("aioxide-engine", "sys"), ("aioxide-python", "ffi")}
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "crates").rglob("*.rs"))
        if re.search(r"\bunsafe\b", without_comments(path.read_text(encoding="utf-8")))
    ]
    outside = [path for path in found if (path.split("/")[1], path.split("/")[3].removesuffix(".rs")) not in homes]
    assert found
    assert not outside


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("use crate::events::{running_loop, EventLoop};", ["events"]),
        ("use crate::{\n    names,\n    timers::{A, b::{C, D}},\n    wait::Wait,\n};", ["names", "timers", "wait"]),
        ("fn f() { crate::ffi::ident() }", ["ffi"]),
        ('// crate::a\n/* crate::b */ let text = "crate::c \\" crate::d"; r#"crate::e"#; \'"\'; crate::f::g()', ["f"]),
        ("fn f<'a>(x: &'a str) -> char { crate::g::h('\\'') }", ["g"]),
        ("#[cfg(test)]\nmod tests;\nuse crate::a::B;\n#[cfg(test)]\nimpl A {\n  fn f() { crate::z::y() }\n}\n", ["a"]),
        ("macro_rules! m { () => { $crate::a::b() } }", []),
    ],
)
def test_what_counts_as_a_use(code, found):
    assert list(uses(without_tests(without_comments(code)))) == found
