"""The network rows: a process under test on one core, a native peer on the other, and this process to measure.

What is measured is the CPU time of the process under test, user and system, of all its threads, between two moments
at which nothing is under way. The peer (`crates/aioxide-load`) warms the server up, counts and compares what comes
back, and knows throughput and latency.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from rows import Failed, problem

SUBJECT = pathlib.Path(__file__).with_name("subject.py")
PEER = pathlib.Path(__file__).parent.parent / "target" / "load" / "release" / "aioxide-load"
"""The load generator; `make bench` builds it."""
FLOOR = "floor"
"""The column of the echo server without Python."""
TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class NetworkRow:
    """One line of the report."""

    name: str
    """What the report prints and `--only` matches."""
    service: str
    """What the process under test does; a name of `subject.py`."""
    kind: str
    """echo, bulk, accept, connect, memory or idle: how it is measured, and the peer's command."""
    connections: int = 1
    size: int = 1024
    """Bytes of a message, or of a write."""
    pipeline: int = 1
    """Messages that the peer writes at once."""
    network: str = "tcp"
    """tcp, unix or udp."""
    tls: str | None = None
    """full or resumed: what the handshakes are. None for no TLS."""
    unit: str = "ns"
    """ns for CPU time per operation, B for bytes per object, µs/s for CPU time of a second."""

    rounds: int | None = None
    """The most rounds, if few say enough."""

    @property
    def group(self) -> str:
        """network or tls."""
        return "tls" if self.tls else "network"

    @property
    def has_floor(self) -> bool:
        """Is there a server without Python for it?"""
        return self.kind == "echo" and not self.tls

    @property
    def operations(self) -> str:
        """What is counted."""
        return {"echo": "messages", "bulk": "MiB"}.get(self.kind, "connections")


ROWS = (
    NetworkRow("echo, 1 connection", "echo", "echo"),
    NetworkRow("echo, 64 connections", "echo", "echo", 64),
    NetworkRow("echo, 512 connections", "echo", "echo", 512),
    NetworkRow("echo of 100 KiB, 64 connections", "echo", "echo", 64, 100 << 10),
    NetworkRow("echo, BufferedProtocol", "buffered", "echo", 64),
    NetworkRow("echo, Unix socket", "echo", "echo", 64, network="unix"),
    NetworkRow("echo, readline", "readline", "echo", 64),
    NetworkRow("echo, readexactly", "readexactly", "echo", 64),
    NetworkRow("echo, read", "read", "echo", 64),
    NetworkRow("echo, 16 lines at once", "readline", "echo", 64, 64, 16),
    NetworkRow("echo, sock_recv + sock_sendall", "sock", "echo", 64),
    NetworkRow("echo, UDP", "datagrams", "echo", 64, network="udp"),
    NetworkRow("receive, protocol", "receive", "bulk", size=256 << 10),
    NetworkRow("receive, streams", "receive-streams", "bulk", size=256 << 10),
    NetworkRow("send, protocol", "send", "bulk", size=64 << 10),
    NetworkRow("send, streams", "send-streams", "bulk", size=64 << 10),
    NetworkRow("accept + close", "greet", "accept"),
    NetworkRow("create_connection + close", "connect", "connect"),
    NetworkRow("bytes per idle connection", "greet", "memory", 5000, unit="B"),
    NetworkRow("bytes per idle stream", "greet-streams", "memory", 5000, unit="B"),
    NetworkRow("loop with 5000 idle connections", "greet", "idle", 5000, unit="µs/s"),
    NetworkRow("TLS echo, 1 connection", "echo", "echo", tls="full"),
    NetworkRow("TLS echo, 64 connections", "echo", "echo", 64, tls="full"),
    NetworkRow("TLS echo, readline", "readline", "echo", 64, tls="full"),
    NetworkRow("TLS receive, protocol", "receive", "bulk", size=256 << 10, tls="full"),
    NetworkRow("TLS send, protocol", "send", "bulk", size=64 << 10, tls="full"),
    NetworkRow("TLS handshake + close", "greet", "accept", tls="full"),
    NetworkRow("TLS handshake + close, resumed", "greet", "accept", tls="resumed"),
    NetworkRow("bytes per idle TLS connection", "greet", "memory", 10_000, tls="full", unit="B", rounds=1),
)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much a cell does."""

    seconds: float
    """Of load."""
    share: float = 1.0
    """Of the connections of rows about idle ones."""


class Process:
    """A child that is spoken with by lines."""

    def __init__(self, command: list[str], core: int | None, errors: pathlib.Path) -> None:
        self.errors = errors
        self.lines = b""
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "error::RuntimeWarning"}
        with pinned(core), errors.open("wb") as stderr:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )
        self.pid = self.popen.pid

    def why(self) -> str:
        """The last line of what it said when it failed."""
        lines = [line for line in self.complaints().splitlines() if not line.startswith("==")]
        return lines[-1] if lines else f"exit status {self.popen.poll()}"

    def complaints(self) -> str:
        """What it wrote to standard error so far; valgrind does as well."""
        return self.errors.read_text(errors="replace").strip()

    def hear(self, timeout: float = TIMEOUT) -> str:
        """The next line that it says."""
        output = self.popen.stdout.fileno()
        end = time.monotonic() + timeout
        while b"\n" not in self.lines:
            if not select.select([output], [], [], max(0, end - time.monotonic()))[0]:
                raise Failed(f"nothing heard for {timeout:.0f} s")
            data = os.read(output, 4096)
            if not data:
                self.popen.wait()
                raise problem(self.why())
            self.lines += data
        line, _, self.lines = self.lines.partition(b"\n")
        return line.decode()

    def say(self, line: str) -> None:
        """Tells it to go on."""
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        """Says nothing more and waits; fails if it ends badly."""
        self.popen.stdin.close()
        if self.popen.wait(TIMEOUT):
            raise Failed(self.why())

    def kill(self) -> None:
        """Ends it however it does."""
        self.popen.terminate()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()


def without_certificate() -> str | None:
    """Why the rows of TLS cannot run here, if so."""
    return None if importlib.util.find_spec("trustme") else "trustme is not installed"


def write_certificate(path: pathlib.Path) -> None:
    """Makes a certificate and its key for a server on this machine."""
    trustme = importlib.import_module("trustme")
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(path)


def unavailable() -> str | None:
    """Why the rows cannot run here, if so."""
    if sys.platform != "linux":
        return "the load generator needs epoll"
    return None if PEER.exists() else "the load generator is not built: cargo build --release -p aioxide-load"


def cores() -> tuple[int | None, int | None]:
    """One core for the process under test and one for its peer, where there are two to choose."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started inside runs on this core alone."""
    if core is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def raise_limits() -> None:
    """As many descriptors as are allowed; children inherit that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, those that ended included; by its clock, to the nanosecond."""
    # The number that clock_getcpuclockid() makes of a process of Linux.
    return time.clock_gettime(~pid << 3 | 2)


def threads(pid: int) -> int:
    """How many threads a process has."""
    return sum(1 for _ in pathlib.Path(f"/proc/{pid}/task").iterdir())


def settled(pid: int) -> float:
    """CPU time of a process, once it has nothing to do any more."""
    before = cpu_seconds(pid)
    for _ in range(200):
        time.sleep(0.005)
        after = cpu_seconds(pid)
        if after - before < 0.00005:
            return after
        before = after
    return before


def private_bytes(pid: int) -> int:
    """Resident memory of a process that is backed by no file."""
    # The sum over its pages: the counters in /proc/PID/status lag behind.
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"\nAnonymous:\s*(\d+) kB", rollup)[1])


def sleeps(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    found = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", (thread / "status").read_text())[1])
    return found


def load_options(row: NetworkRow, amount: list[str], share: float = 1.0) -> list[str]:
    """What the peer is told; `amount` is how much load, `share` what part of the idle connections to open."""
    if row.kind in ("memory", "idle"):
        # Each takes a descriptor of either process, and so do the first ones, and either has a few others.
        allowed = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100) * 10 // 11
        many = max(10, min(round(row.connections * share), allowed))
        # The first ones fill what the start has left of the heap.
        return ["--warmup", str(many // 10), "--connections", str(many)]
    if row.kind == "echo":
        shape = {"--connections": row.connections, "--size": row.size, "--pipeline": row.pipeline}
        return amount + [str(word) for pair in shape.items() for word in pair]
    return amount


def peer_command(row: NetworkRow) -> str:
    """The peer's part."""
    if row.kind == "bulk":
        return "source" if row.service.startswith("receive") else "sink"
    return {"memory": "idle"}.get(row.kind, row.kind)


class Cell:
    """The processes of one row on one provider."""

    def __init__(self, row: NetworkRow, provider: str, stack: contextlib.ExitStack) -> None:
        self.row = row
        self.provider = provider
        self.stack = stack
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.subject_core, self.peer_core = cores()
        raise_limits()

    def start(self, name: str, command: list[str], core: int | None) -> Process:
        """Starts a child that ends with the cell."""
        process = Process(command, core, self.folder / f"{name}.txt")
        self.stack.callback(process.kill)
        return process

    def start_subject(self, address: str | None = None, prefix: tuple[str, ...] = ()) -> Process:
        """Starts the process under test."""
        if address is None:
            address = str(self.folder / "socket") if self.row.network == "unix" else "127.0.0.1:0"
        if self.provider == FLOOR:
            command = [*prefix, str(PEER), "floor", f"--{self.row.network}", address]
        else:
            arguments = [self.provider, self.row.service, address, str(self.row.size)]
            if self.row.tls:
                certificate = self.folder / "certificate.pem"
                write_certificate(certificate)
                arguments.append(str(certificate))
            command = [*prefix, sys.executable, str(SUBJECT), *arguments]
        return self.start("subject", command, self.subject_core)

    def start_peer(self, command: str, address: str, options: list[str]) -> Process:
        """Starts the native end."""
        if self.row.tls:
            options = [*options, "--tls", self.row.tls]
        return self.start("peer", [str(PEER), command, f"--{self.row.network}", address, *options], self.peer_core)


def check_end(subject: Process) -> None:
    """Fails if the process under test has ended, or complained."""
    if subject.popen.poll() is not None:
        raise Failed(subject.why())
    # It has yet to see that its clients have gone.
    settled(subject.pid)
    if "Traceback" in subject.complaints():
        raise Failed(f"it complained: {subject.why()}")


def measure(row: NetworkRow, provider: str, extent: Extent) -> dict[str, float]:
    """The figures of a cell: `value` is the row's, others are for the details."""
    try:
        with contextlib.ExitStack() as stack:
            cell = Cell(row, provider, stack)
            return measure_client(cell, extent) if row.kind == "connect" else measure_server(cell, extent)
    except OSError as error:
        # A pipe or a file in /proc of a process that has gone.
        raise Failed(str(error)) from error


def measure_server(cell: Cell, extent: Extent) -> dict[str, float]:
    """The process under test is the server."""
    row = cell.row
    subject = cell.start_subject()
    address = json.loads(subject.hear())["address"]
    options = load_options(row, ["--seconds", str(extent.seconds)], extent.share)
    peer = cell.start_peer(peer_command(row), address, options)
    with heard_from(peer, subject):
        peer.hear()
    before = settled(subject.pid)
    memory, helpers = private_bytes(subject.pid), threads(subject.pid)
    peer.say("go")
    with heard_from(peer, subject):
        report = json.loads(peer.hear())
    after = settled(subject.pid)
    operations = report["messages"]
    if row.kind == "memory":
        figures = {"value": (private_bytes(subject.pid) - memory) / operations}
        figures["threads"] = threads(subject.pid) - helpers
    elif row.kind == "idle":
        figures = idle(subject.pid, 4 * extent.seconds)
    else:
        figures = rates(after - before, report)
    peer.end()
    check_end(subject)
    return figures


@contextlib.contextmanager
def heard_from(peer: Process, subject: Process) -> Iterator[None]:
    """A peer that fails may do so because of the server, whose reason is the better one."""
    try:
        yield
    except Failed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subject.popen.wait(0.2)
        if subject.popen.poll() is not None or subject.complaints():
            raise Failed(f"{peer.why()}; the server: {subject.why()}") from None
        raise


def measure_client(cell: Cell, extent: Extent) -> dict[str, float]:
    """The process under test is the client, and opens connections to a server without Python."""
    peer = cell.start_peer("floor", "127.0.0.1:0", [])
    subject = cell.start_subject(json.loads(peer.hear())["address"])
    warm = json.loads(subject.hear())["warm"]
    # Each leaves a port in use for a second.
    count = max(10, round(4000 * extent.seconds))
    before = settled(subject.pid)
    subject.say(str(count))
    report = json.loads(subject.hear())
    figures = rates(settled(subject.pid) - before, report)
    check_end(subject)
    peer.popen.stdin.close()
    accepted = json.loads(peer.hear())["accepted"]
    if accepted != warm + count:
        raise Failed(f"{warm + count} connections were made, {accepted} arrived")
    return figures


def rates(cpu: float, report: dict[str, float]) -> dict[str, float]:
    """Figures from the CPU time of a load and what the peer says of it."""
    operations = report["messages"]
    if operations == 0:
        raise Failed("nothing came back in the time")
    latencies = {key: report[key] for key in ("p50", "p99") if key in report}
    return {"value": cpu / operations * 1e9, "rate": operations / report["seconds"], **latencies}


def idle(pid: int, seconds: float) -> dict[str, float]:
    """CPU time in a second of a process that has nothing to do, and how often it wakes up."""
    cpu, slept, start = cpu_seconds(pid), sleeps(pid), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    return {"value": (cpu_seconds(pid) - cpu) / elapsed * 1e6, "wakeups": (sleeps(pid) - slept) / elapsed}


def instructions(row: NetworkRow, provider: str, folder: pathlib.Path) -> float:
    """User-space instructions of the server for one operation; the profile is left in the folder.

    Counting is on between the two moments at which nothing is under way, so starting and connecting do not count.
    """
    if row.kind not in ("echo", "bulk", "accept", "connect"):
        raise Failed("instructions are counted under load only")
    together = row.connections * row.pipeline
    messages = {"echo": together * max(10, 4000 // together), "bulk": 64}.get(row.kind, 1000)
    profile = folder / f"{provider}.{re.sub(r'[^a-z0-9]+', '-', row.name.lower())}"
    tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={profile}")
    with contextlib.ExitStack() as stack:
        cell = Cell(row, provider, stack)
        if row.kind == "connect":
            floor = cell.start_peer("floor", "127.0.0.1:0", [])
            driver = subject = cell.start_subject(json.loads(floor.hear())["address"], tool)
            start = str(messages)
        else:
            subject = cell.start_subject(prefix=tool)
            address = json.loads(subject.hear())["address"]
            driver = cell.start_peer(peer_command(row), address, load_options(row, ["--messages", str(messages)]))
            start = "go"
        driver.hear()
        instrumentation(subject.pid, "on")
        driver.say(start)
        report = json.loads(driver.hear(TIMEOUT * 5))
        instrumentation(subject.pid, "off")
        if driver is not subject:
            driver.end()
        subject.kill()
        found = re.search(r"Collected : (\d+)", subject.complaints())
    if not found:
        raise Failed("valgrind gave no count")
    return int(found[1]) / report["messages"]


def instrumentation(pid: int, state: str) -> None:
    """Switches the counting of instructions on or off."""
    command = ["vgdb", "--wait=10", f"--pid={pid}", "instrumentation", state]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"valgrind does not switch its counting {state}") from None
    if result.returncode:
        raise Failed(f"vgdb: {result.stderr.strip().splitlines()[-1:]}")
