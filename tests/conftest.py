"""What holds for every test: it leaves no error report of asyncio behind. And what most tests start from."""

import asyncio
import gc
import logging
import socket
from collections.abc import Iterator

import pytest
from conformance.child import reset_signals

import aioxide


def pytest_configure() -> None:
    """Heeds Ctrl-C and hang-ups: what runs in the background or under nohup ignores them, and so do its children."""
    reset_signals()


class _Reports(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def no_error_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which a task was lost or an exception was never retrieved.

    Event loops log these when the object dies, so the garbage is collected while the
    test still answers for it. A test that provokes such reports is marked
    `logs_errors`. Unraisable exceptions and warnings are errors by pytest's settings.
    """
    reports = _Reports()
    logger = logging.getLogger("asyncio")
    logger.addHandler(reports)
    try:
        yield
        gc.collect()
        # What is left is the runner's own: the next collections need not look at it again.
        gc.freeze()
    finally:
        logger.removeHandler(reports)
    if reports.records and request.node.get_closest_marker("logs_errors") is None:
        pytest.fail("\n".join(record.getMessage() for record in reports.records), pytrace=False)


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def loop(aio, request):
    """A loop of the namespace."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    loop.set_debug(request.param)
    yield loop
    loop.close()


@pytest.fixture
def plain_loop(aio):
    """A loop of the namespace, not in debug mode."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def native_loop(request):
    """A loop of aioxide's."""
    loop = aioxide.new_event_loop()
    loop.set_debug(request.param)
    yield loop
    loop.close()


@pytest.fixture
def own():
    """A native loop whose executor ends with the test."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def no_descriptors():
    """Calls: let the process have no more descriptors, and let it have them again."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def forbid():
        with socket.socket() as sock:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno(), limits[1]))

    def allow():
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    yield forbid, allow
    allow()
