"""HTTP and websockets without an ASGI server: aiohttp, httpx, websockets, and Starlette's test client."""

import json
import sys
import urllib.request

import pytest
from conftest import PROGRAMS, PYTHON, free_port
from running_on import expected


@pytest.mark.parametrize("host", ["aiohttp", "httpx", "websockets"])
def test_client_and_server(run, mode, host):
    run(mode, PROGRAMS / f"use_{host}.py")


def test_starlette_test_client(run, mode):
    run(mode, PROGRAMS / "fast.py")


def test_starlette_test_client_with_the_constant(run):
    run("stdlib", PROGRAMS / "fast.py", "--constant", RUNNING_ON="loop")


def facts(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
        return json.load(response)


def test_aiohttp_run_app(serve, mode):
    """`python -m aiohttp.web` calls `web.run_app`, which makes its loop by `asyncio.new_event_loop`."""
    port = free_port()
    server = serve(mode, *PYTHON[mode], "-m", "aiohttp.web", "aiohttp_app:app", "-P", port)
    server.wait_for("Running on")
    assert expected(mode).items() <= facts(port).items()
    assert server.stop() == 0
    server.assert_quiet()


RUN_APP = """
import sys
import aioxide
from aiohttp import web
from aiohttp_app import app

web.run_app(app(), host="127.0.0.1", port=int(sys.argv[1]), loop=aioxide.new_event_loop())
"""


def test_aiohttp_run_app_with_a_loop(serve):
    port = free_port()
    server = serve("loop", sys.executable, "-c", RUN_APP, port)
    server.wait_for("Running on")
    assert expected("loop").items() <= facts(port).items()
    assert server.stop() == 0
    server.assert_quiet()


def test_aiohttp_under_gunicorn(serve, mode):
    """Aiohttp's worker makes its loop by `asyncio.new_event_loop` in the forked child."""
    command = ["-m", "gunicorn", "aiohttp_app:factory", "-b", "127.0.0.1:0", "-k", "aiohttp.GunicornWebWorker"]
    server = serve(mode, *PYTHON[mode], *command)
    port = server.wait_for(r"http://127\.0\.0\.1:(\d+)")[1]
    server.wait_until_accepting(int(port))
    assert expected(mode).items() <= facts(port).items()
    assert server.stop() == 0
    server.assert_quiet()
