"""The examples, each in a process of its own: on the stdlib and under `python -m aioxide`, with the same output."""

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"

OUTPUT = {
    "echo_protocol": """\
echo: hello from client 0
echo: hello from client 1
echo: hello from client 2
echo: hello from client 3
echo: hello from client 4
echo: 1000000 bytes in one message
all came back unchanged: True
""",
    "chat": """\
Alice hears  * Alice came in
Alice hears  * Bob came in
  Bob hears  * Bob came in
Alice hears  * Carol came in
  Bob hears  * Carol came in
Carol hears  * Carol came in
Alice hears  Alice: Hello, everybody!
  Bob hears  Alice: Hello, everybody!
Carol hears  Alice: Hello, everybody!
Alice hears  Bob: Good evening.
  Bob hears  Bob: Good evening.
Carol hears  Bob: Good evening.
Alice hears  Carol: Is this native?
  Bob hears  Carol: Is this native?
Carol hears  Carol: Is this native?
Alice hears  * Bob went away
Carol hears  * Bob went away
Alice hears  * this name will not do
the room is closed
""",
    "udp_ping": """\
pong 1
pong 2
pong 3, at try 2
pong 4
pong 5, at try 2
pong 6
pong 7, at try 2
pong 8
pong 9, at try 2
pong 10
10 pings were answered, 4 were lost
""",
    "static_files": """\
index.html: 14 bytes, right for 3 of 3 clients
with space & ünicode.txt: 28 bytes, right for 3 of 3 clients
empty.txt: 0 bytes, right for 3 of 3 clients
big.bin: 10000000 bytes, right for 3 of 3 clients
nothing.txt: not found, right for 3 of 3 clients
../../etc/passwd: not found, right for 3 of 3 clients
""",
    "build_runner": """\
configure | checking for a compiler
configure | checking for a linker
  compile | compiling lexer
  compile | compiling parser
  compile | compiling printer
     test ! 17 of 18 tests passed
   upload | waiting for a server that never answers
    clean | nothing to do

configure: ok, 2 lines
  compile: ok, 3 lines
     test: failed (3), 1 line
   upload: stopped after 2 s, 1 line
    clean: ok, 1 line
3 of 5 succeeded
""",
}
"""Example to what it prints, whatever the provider. The guide has tests of its own."""

OPTIONS = {"udp_ping": ["--timeout", "0.5"], "build_runner": ["--jobs", "1", "--timeout", "2"]}
"""What an example is given so that a busy machine, or the order of lines, does not show in its output."""

SERVERS = OUTPUT.keys() - {"build_runner"}
"""The examples that can serve."""

WAYS = {
    "stdlib": [sys.executable, "-X", "utf8", "-W", "error"],
    "aioxide": [sys.executable, "-X", "utf8", "-W", "error", "-m", "aioxide"],
}
"""The ways to run a program. A warning would end it, and an unraisable one shows in its error output."""


def run(way, name, *args):
    """Runs an example to its end; returns its exit status, output and error output."""
    command = [*WAYS[way], str(EXAMPLES / f"{name}.py"), *args]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"guide", *OUTPUT}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OUTPUT)
def test_example(name, way):
    assert run(way, name, *OPTIONS.get(name, [])) == (0, OUTPUT[name], "")


@pytest.mark.parametrize("name", OUTPUT)
def test_example_explains_its_options(name):
    status, output, errors = run("stdlib", name, "--help")
    assert (status, errors) == (0, "")
    assert f"usage: {name}.py [-h]" in output
    assert ("--serve PORT" in output) == (name in SERVERS)


@pytest.mark.parametrize("way", WAYS)
def test_build_runner_runs_what_it_is_given(way):
    commands = ["echo spam", "exit 3", "echo eggs >&2"]
    status, output, errors = run(way, "build_runner", "--jobs", "3", *commands)
    assert (status, errors) == (1, "")
    live, _, summary = output.partition("\n\n")
    assert sorted(live.split("\n")) == ["    echo spam | spam", "echo eggs >&2 ! eggs"]
    assert (
        summary
        == """\
    echo spam: ok, 1 line
       exit 3: failed (3), 0 lines
echo eggs >&2: ok, 1 line
2 of 3 succeeded
"""
    )
    assert run(way, "build_runner", "exit 0")[0] == 0
