"""The upstream suites: which release, what else it needs, how it is run, what is left out and why."""

from dataclasses import dataclass, field


@dataclass
class Suite:
    """A test-suite as the source distribution of its project carries it."""

    name: str
    version: str
    requirements: list[str] = field(default_factory=list)
    """What the tests need beside the project and pytest."""
    arguments: list[str] = field(default_factory=list)
    """Arguments of pytest, the tests among them."""
    package: str = ""
    """The folder with the package, which is taken out of the way: the tests import what is installed."""
    deselected: dict[str, str] = field(default_factory=dict)
    """Patterns of tests that are not run on anything, each with its reason."""
    alone: bool = False
    """Whether two runs at a time disturb each other: the tests use a port of a fixed number."""
    freeze: bool = False
    """Whether the garbage collector leaves alone what was there before the first test: it is run after each."""
    left_out: str = ""
    """Why the suite cannot be run at all."""
    notes: str = ""
    """What a reader of the page should know."""

    @property
    def folder(self):
        """What the source distribution is called, and the folder in it."""
        return f"{self.name.replace('-', '_')}-{self.version}"


#: In order of value.
SUITES = [
    Suite(
        "anyio",
        "4.16.0",
        requirements=[
            "blockbuster>=1.5.29",
            "hypothesis>=4.18.2",
            "psutil>=5.9",
            "pytest-mock>=3.14",
            "trustme>=1",
            "truststore>=0.9.1",
            "trio",
        ],
        arguments=["-m", "not network", "tests"],
        notes="uvloop is not installed, so the tests on it are skipped.",
    ),
    Suite(
        "aiohttp",
        "3.14.5",
        requirements=[
            "aiohttp[speedups]",
            "blockbuster",
            "coverage",
            "freezegun",
            "pkgconfig",
            "proxy.py>=2.4.4rc5",
            "pytest-cov",
            "pytest-mock",
            "pytest_codspeed",
            "re-assert",
            "setuptools-git",
            "trustme",
            "zlib_ng",
        ],
        arguments=[
            "-o",
            "addopts=",
            "--strict-markers",
            "-m",
            "not dev_mode and not autobahn and not internal",
            "--ignore-glob=*/test_benchmarks_*",
            "--ignore-glob=*/autobahn/*",
            "tests",
        ],
        package="aiohttp",
        freeze=True,
        deselected={"tests/test_circular_imports.py*": "imports each module in a process of its own, without asyncio"},
        notes="Without benchmarks and the Autobahn suite, which needs Docker. As root, who may read all files,\n"
        "three tests of permissions fail on everything.",
    ),
    Suite(
        "uvicorn",
        "0.54.0",
        requirements=[
            "a2wsgi==1.10.10",
            "cryptography",
            "httptools",
            "httpx2",
            "pytest-mock",
            "python-dotenv",
            "PyYAML",
            "trustme",
            "watchfiles",
            "websockets",
            "wsproto==1.3.2",
            "zttp>=0.0.34",
        ],
        arguments=["-o", "addopts=", "--ignore=tests/benchmarks", "tests"],
        package="uvicorn",
        alone=True,
        deselected={
            "tests/test_auto_detection.py::test_loop_auto": "asserts that the class of the loop is one of the stdlib's",
            "tests/test_config.py::test_get_loop_factory?asyncio-*": "has the stdlib's loop class in its name",
        },
        notes="uvloop is not installed, so the tests on it are skipped.",
    ),
    Suite(
        "websockets",
        "17.4",
        left_out="its source distribution has no tests in it",
    ),
    Suite(
        "starlette",
        "1.10.0",
        requirements=[
            "blockbuster>=1.5.23",
            "httpx2[zstd]>=2",
            "httpx<0.29",
            "importlib-metadata",
            "itsdangerous",
            "jinja2",
            "opentelemetry-sdk",
            "pytest-codspeed",
            "python-multipart",
            "pyyaml",
            "trio",
        ],
        arguments=["-o", "addopts=", "tests"],
        package="starlette",
    ),
    Suite(
        "httpx",
        "0.28.1",
        requirements=[
            "httpx[brotli,cli,http2,socks,zstd]",
            "chardet",
            "cryptography",
            "trio",
            "trio-typing",
            "trustme",
            "uvicorn",
        ],
        arguments=["-o", "addopts=", "-m", "not network", "tests"],
        package="httpx",
        alone=True,
    ),
    Suite(
        "tornado",
        "6.6.1",
        requirements=["hypothesis", "twisted"],
        arguments=["-c", "/dev/null", "--rootdir=.", "--log-disable=tornado.access", "tornado/test"],
    ),
    Suite(
        "pytest-asyncio",
        "1.5.0",
        requirements=["coverage", "hypothesis"],
        arguments=["tests"],
        package="pytest_asyncio",
    ),
    Suite(
        "hypercorn",
        "0.18.0",
        requirements=["hypercorn[h3]", "httpx", "pytest-asyncio", "pytest-trio", "trio"],
        arguments=["-o", "addopts=", "tests"],
        package="src",
    ),
    Suite(
        "janus",
        "2.0.0",
        requirements=["pytest-asyncio", "pytest-codspeed"],
        arguments=["-o", "addopts=", "tests"],
        package="janus",
    ),
    Suite(
        "asgiref",
        "3.13.0",
        requirements=["pytest-asyncio"],
        arguments=["tests"],
        package="asgiref",
    ),
    Suite(
        "aiofiles",
        "25.1.0",
        requirements=["pytest-asyncio"],
        arguments=["tests"],
        package="src",
    ),
    Suite(
        "uvloop",
        "0.23.0",
        requirements=["aiohttp", "psutil", "pyOpenSSL", "setuptools"],
        arguments=["-k", "AIO", "tests"],
        package="uvloop",
        deselected={
            "tests/test_base.py::*::test_set_task_name": "asks whether the loop's class comes from a module of asyncio",
        },
        notes="Only the half that tests asyncio's own loop: uvloop runs most of its tests on both.",
    ),
]
