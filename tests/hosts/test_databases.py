"""Drivers of databases: asyncpg, psycopg, redis-py against real servers, and aiosqlite."""

import glob
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from conftest import PATIENCE, PROGRAMS, Server, free_port

#: PostgreSQL does not run as root.
UNPRIVILEGED = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def found(*names):
    """Where the first of these programs is, also in the folders where Debian keeps PostgreSQL."""
    path = os.pathsep.join([os.environ["PATH"], *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


@pytest.fixture(scope="module")
def folder():
    """A folder that belongs to an unprivileged user."""
    with tempfile.TemporaryDirectory(prefix="aioxide-hosts-") as folder:
        if UNPRIVILEGED:
            shutil.chown(folder, UNPRIVILEGED["user"], UNPRIVILEGED["group"])
        yield pathlib.Path(folder)


@pytest.fixture(scope="module")
def postgresql(folder):
    """The port of a PostgreSQL on the loopback interface."""
    initdb, postgres = found("initdb"), found("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    data = folder / "postgresql"
    command = [initdb, "--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "--encoding=UTF8", data]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PATIENCE, **UNPRIVILEGED)
    port = free_port()
    options = ["-c", "fsync=off", "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
    server = Server([postgres, "-D", data, "-p", port, *options], "stdlib", folder, {}, **UNPRIVILEGED)
    try:
        server.wait_for("ready to accept connections")
        yield port
    finally:
        server.kill()


@pytest.fixture(scope="module")
def redis(folder):
    """The port and the Unix socket of a Redis."""
    program = found("redis-server", "valkey-server")
    if program is None:
        pytest.skip("Redis is not here: apt-get install redis-server")
    port, path = free_port(), folder / "redis.socket"
    options = ["--port", port, "--bind", "127.0.0.1", "--unixsocket", path, "--save", "", "--dir", folder]
    server = Server([program, *options], "stdlib", folder, {}, **UNPRIVILEGED)
    try:
        server.wait_for("Ready to accept connections|is now ready")
        yield port, path
    finally:
        server.kill()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_postgresql(run, mode, driver, postgresql):
    run(mode, PROGRAMS / f"use_{driver}.py", PORT=str(postgresql))


def test_redis(run, mode, redis):
    port, path = redis
    run(mode, PROGRAMS / "use_redis.py", PORT=str(port), SOCKET=str(path))


def test_aiosqlite(run, mode):
    run(mode, PROGRAMS / "use_aiosqlite.py")
