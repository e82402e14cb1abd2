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
}
"""Example to what it prints, whatever the provider. The guide has tests of its own."""

OPTIONS = {"udp_ping": ["--timeout", "0.5"]}
"""What an example is given so that a busy machine does not show in its output."""

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
    assert "--serve PORT" in output
