"""ASGI servers: uvicorn, gunicorn, hypercorn, granian, and what is built on them."""

import json
import os
import signal
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PROGRAMS, PYTHON, free_port
from running_on import expected
from websockets.sync.client import connect
from websockets.sync.client import unix_connect as connect_unix

#: What servers say when they have been told to stop.
STOPPING = "Shutting down|Handling signal: term"

LISTENING = r"https?://127\.0\.0\.1:(\d+)"


def get(server, path="/", body=None):
    """What the application says about itself; nothing of its loop if it answers from a thread."""
    with urllib.request.urlopen(server.url + path, data=body, timeout=60) as response:
        assert response.status == 200
        return json.load(response)


def assert_serves(server, mode):
    """HTTP and websockets work, on what the mode promises."""
    port = server.port = int(server.wait_for(LISTENING)[1])
    server.wait_until_accepting(port)
    server.url = f"http://127.0.0.1:{port}"
    body = bytes(1 << 20)
    facts = get(server, "/", body)
    assert facts.pop("received") == len(body)
    assert expected(mode).items() <= facts.items()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: get(server)["loop"] in (facts["loop"], None), range(50)))
    with connect(server.url.replace("http", "ws")) as websocket:
        for text in ("one", "two", "x" * 100_000):
            websocket.send(text)
            assert websocket.recv(timeout=60) == text.upper()
    return facts


def assert_graceful(server, shutdowns=1, statuses=(0,), but="(?!)", stopping=STOPPING):
    """SIGTERM lets a request finish that is under way, and the application shut down."""
    server.wait_for(r"lifespan\.startup in", shutdowns)
    os.mkfifo(server.folder / "release")
    # Open at both ends, so that what is written is there whenever the application looks.
    with open(server.folder / "release", "r+b", buffering=0) as pipe, ThreadPoolExecutor(1) as pool:
        request = pool.submit(get, server, "/slow")
        server.wait_for("slow request has come")
        server.process.terminate()
        if stopping is None:
            server.wait_until_accepting(server.port, accepting=False)
        else:
            server.wait_for(stopping)
        # The server goes down, and only now the request is let go.
        pipe.write(b"x")
        assert request.result()["received"] == 0
    assert server.wait() in statuses, server.output
    server.wait_for(r"lifespan\.shutdown in", shutdowns)
    server.assert_quiet(but)


#: Everything native here and in the Pythons that are started from here.
CHILDREN = [*PYTHON["full"], "--children"]

#: The three modes, by uvicorn's own switch where there is one.
UVICORN = {
    "stdlib": [sys.executable, "-m", "uvicorn", "asgi:app", "--loop", "asyncio"],
    "loop": [sys.executable, "-m", "uvicorn", "asgi:app", "--loop", "aioxide:new_event_loop"],
    "full": [*PYTHON["full"], "-m", "uvicorn", "asgi:app"],
}


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_uvicorn(serve, mode, http, ws):
    server = serve(mode, *UVICORN[mode], "--port", 0, "--http", http, "--ws", ws)
    assert_serves(server, mode)
    # uvicorn ends itself by the signal that it got.
    assert_graceful(server, statuses=(0, -15))


def test_uvicorn_workers(serve, mode):
    command = UVICORN[mode]
    if mode == "full":
        # The workers are new interpreters: each installs for itself.
        command = [*UVICORN["loop"][:-1], "aioxide.contrib.uvicorn:full_event_loop"]
    server = serve(mode, *command, "--port", 0, "--workers", 2)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, mode)
    # The parent leaves the socket that it has bound for its children to the garbage collector.
    assert_graceful(server, shutdowns=2, but=".*ResourceWarning.*")


def test_uvicorn_workers_as_children(serve):
    """`--children` reaches the workers."""
    server = serve("full", *CHILDREN, "-m", "uvicorn", "asgi:app", "--port", 0, "--workers", 2)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, "full")
    assert_graceful(server, shutdowns=2, but=".*ResourceWarning.*")


@pytest.mark.parametrize("children", [True, False])
def test_uvicorn_reloads(serve, tmp_path, children):
    """The server is a new interpreter, and another one after each change; if it is not reached, that is said."""
    (tmp_path / "changing.py").write_text("from asgi import app")
    start = CHILDREN if children else PYTHON["full"]
    server = serve("full", *start, "-m", "uvicorn", "changing:app", "--port", 0, "--reload")
    server.wait_for(r"lifespan\.startup in")
    facts = assert_serves(server, "full" if children else "stdlib")
    # Its watcher looks at the time of the last change, whose grain may be coarse.
    (tmp_path / "changing.py").write_text("from asgi import app  # changed")
    os.utime(tmp_path / "changing.py", (4e9, 4e9))
    server.wait_for(r"lifespan\.startup in", 2)
    assert assert_serves(server, "full" if children else "stdlib")["pid"] != facts["pid"]
    warning = ".*RuntimeWarning: uvicorn starts new Pythons.*"
    if children:
        assert server.stop() in (0, -15)
        server.assert_quiet(but=".*ResourceWarning.*")
    else:
        server.wait_for(warning)


def test_uvicorn_with_a_loop_that_is_named(serve):
    """Who asks for uvloop gets it, and is told at the end."""
    pytest.importorskip("uvloop")
    server = serve("stdlib", *UVICORN["full"], "--port", 0, "--loop", "uvloop")
    server.wait_for(LISTENING)
    server.stop(signal.SIGINT)
    server.wait_for("nothing ran on a native event loop here: the program has imported uvloop")


def test_uvicorn_on_a_unix_socket(serve, mode, tmp_path):
    server = serve(mode, *UVICORN[mode], "--uds", "socket")
    server.wait_for("running on unix socket")
    with connect_unix(tmp_path / "socket") as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=60) == "X"
    assert server.stop() in (0, -15), server.output
    server.assert_quiet()


PROGRAM = """
import uvicorn
import aioxide.contrib.uvicorn

aioxide.contrib.uvicorn.register()
uvicorn.run("asgi:app", port=0)
"""


def test_uvicorn_by_default(serve):
    """`register` puts native loops in the place of what uvicorn prefers."""
    server = serve("loop", sys.executable, "-c", PROGRAM)
    assert_serves(server, "loop")
    assert_graceful(server, statuses=(0, -15))


GUNICORN = [sys.executable, "-m", "gunicorn", "asgi:app", "--bind", "127.0.0.1:0", "--workers", "2"]


@pytest.mark.parametrize(
    ("mode", "start", "worker"),
    [
        ("stdlib", PYTHON["stdlib"], "asgi"),
        ("loop", PYTHON["stdlib"], "aioxide.contrib.gunicorn.ASGIWorker"),
        ("loop", PYTHON["loop"], "asgi"),
        ("full", PYTHON["full"], "asgi"),
        ("stdlib", PYTHON["stdlib"], "uvicorn_worker.UvicornH11Worker"),
        ("loop", PYTHON["stdlib"], "aioxide.contrib.gunicorn.UvicornWorker"),
        ("full", PYTHON["full"], "aioxide.contrib.gunicorn.UvicornWorker"),
        ("full", PYTHON["full"], "uvicorn_worker.UvicornWorker"),
    ],
)
def test_gunicorn(serve, mode, start, worker):
    """Its workers are forked: what the master has installed they have, too."""
    asyncio_loop = ["--asgi-loop", "asyncio"] if (mode, worker) == ("stdlib", "asgi") else []
    server = serve(mode, *start, *GUNICORN[1:], *asyncio_loop, "-k", worker)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, mode)
    assert_graceful(server, shutdowns=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_hypercorn(serve, mode, workers):
    # Workers are new interpreters, which import the application before they make a loop.
    app = "installing:app" if workers else "asgi:app"
    command = ["-m", "hypercorn", app, "--bind", "127.0.0.1:0", "--workers", workers]
    server = serve(mode, *PYTHON[mode], *command)
    server.wait_for(r"lifespan\.startup in", max(1, workers))
    assert_serves(server, mode)
    if workers == 0:
        # It says nothing when it is told to stop.
        assert_graceful(server, stopping=None)
    else:
        # A worker of hypercorn's that is told to stop waits for no request, whatever the loop. As soon as one has
        # ended, the others are killed, who may not have come to their shutdown by then.
        assert server.stop() == 0
        server.wait_for(r"lifespan\.shutdown in")
        server.assert_quiet()


@pytest.mark.parametrize("level", ["loop", "full"])
def test_hypercorn_workers_as_children(serve, level):
    command = [*PYTHON[level], "--children", "-m", "hypercorn", "asgi:app", "--bind", "127.0.0.1:0", "--workers", 2]
    server = serve(level, *command)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, level)
    assert server.stop() == 0


def test_granian_workers_as_children(serve):
    port = free_port()
    server = serve("full", *CHILDREN, "-m", "granian", *GRANIAN, port)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, "full")
    assert_graceful(server, shutdowns=2)


HYPERCORN = """
import asyncio, sys
import aioxide
from asgi import app
from hypercorn.asyncio import serve
from hypercorn.config import Config

config = Config()
config.bind = ["127.0.0.1:0"]
with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
    runner.run(serve(app, config))
"""


def test_hypercorn_under_a_runner(serve):
    server = serve("loop", sys.executable, "-c", HYPERCORN)
    assert_serves(server, "loop")


GRANIAN = ["asgi:app", "--interface", "asgi", "--workers", 2, "--port"]


def test_granian(serve, mode, tmp_path):
    port = free_port()
    if mode == "full":
        (tmp_path / "main.py").write_text(GRANIAN_PROGRAM)
        command = [sys.executable, "main.py", port]
    elif mode == "loop":
        command = [sys.executable, "-m", "aioxide.contrib.granian", *GRANIAN, port]
    else:
        command = [sys.executable, "-m", "granian", *GRANIAN, port, "--loop", "asyncio"]
    server = serve(mode, *command)
    server.wait_for(r"lifespan\.startup in", 2)
    assert_serves(server, mode)
    assert_graceful(server, shutdowns=2)


#: Its workers import this file, so that `install` reaches them.
GRANIAN_PROGRAM = """
import sys
import aioxide
aioxide.install()
from granian import Granian

if __name__ == "__main__":
    Granian("asgi:app", interface="asgi", port=int(sys.argv[1]), workers=2).serve()
"""


@pytest.mark.parametrize("level", ["loop", "full"])
def test_fastapi_run(serve, level):
    """It has no option for the loop."""
    port = free_port()
    command = ["-m", "fastapi", "run", PROGRAMS / "fast.py", "--host", "127.0.0.1", "--port", port]
    server = serve(level, *PYTHON[level], *command)
    assert_serves(server, level)
    assert_graceful(server, statuses=(0, -15))


def test_fastapi(serve, mode):
    command = [argument if argument != "asgi:app" else "fast:app" for argument in UVICORN[mode]]
    server = serve(mode, *command, "--port", 0)
    assert_serves(server, mode)
    assert_graceful(server, statuses=(0, -15))
