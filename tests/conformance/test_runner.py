"""The conformance runner, on a package of tests made for it."""

from pathlib import Path
from textwrap import dedent

import pytest

from catalogue import ListError, Pattern, load_list, version_matches
from supervisor import FileRun, Outcome, Settings, retry_failures, run_file, void_skips
from verdicts import Verdict, count, judge

pytestmark = pytest.mark.slow

COMMON = """
    import faulthandler, os, signal, sys, time, unittest
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "samples").mkdir()
    return Settings("stdlib", file_timeout=30, test_timeout=1, package="samples", path=(str(tmp_path),))


@pytest.fixture
def run(settings):
    def run(source, **options):
        folder = Path(settings.path[0]) / "samples"
        (folder / "test_x.py").write_text(dedent(COMMON) + dedent(source))
        return run_file("test_x", settings, **options)

    return run


def states(run: FileRun) -> dict[str, str]:
    return {test.removeprefix("test_x."): it.state for test, it in run.outcomes.items()}


def test_every_kind_of_outcome(run):
    result = run("""
        class T(unittest.TestCase):
            def test_error(self): 1 / 0
            def test_expected(self): self.fail()
            test_expected = unittest.expectedFailure(test_expected)
            def test_failure(self): self.fail("so it is")
            def test_pass(self): pass
            def test_skip(self): self.skipTest("no reason")
            def test_subtests(self):
                for n in range(3):
                    with self.subTest(n=n):
                        self.assertNotEqual(n, 1)
            @unittest.expectedFailure
            def test_unexpected(self): pass
    """)
    assert states(result) == {
        "T.test_error": "failed",
        "T.test_expected": "passed",
        "T.test_failure": "failed",
        "T.test_pass": "passed",
        "T.test_skip": "skipped",
        "T.test_subtests": "failed",
        "T.test_unexpected": "failed",
    }
    assert "so it is" in result.outcomes["test_x.T.test_failure"].detail
    assert "(n=1)" in result.outcomes["test_x.T.test_subtests"].detail


def test_the_rest_of_a_file_runs_after_a_crash_or_a_hang(run):
    result = run("""
        class T(unittest.TestCase):
            def test_1(self): pass
            def test_2_aborts(self): os.abort()
            def test_3(self): pass
            def test_4_hangs(self): time.sleep(1000)
            def test_5_exits(self): os._exit(0)
            def test_6_raises(self): raise KeyboardInterrupt
            def test_7(self): pass
    """)
    assert states(result) == {
        "T.test_1": "passed",
        "T.test_2_aborts": "crashed",
        "T.test_3": "passed",
        "T.test_4_hangs": "hung",
        "T.test_5_exits": "crashed",
        "T.test_6_raises": "crashed",
        "T.test_7": "passed",
    }
    assert "SIGABRT" in result.outcomes["test_x.T.test_2_aborts"].detail
    assert "in test_4_hangs" in result.outcomes["test_x.T.test_4_hangs"].detail


def test_a_fixture_answers_for_its_tests(run):
    result = run("""
        class Skipped(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise unittest.SkipTest("not today")
            def test(self): pass
        class SetUp(unittest.TestCase):
            @classmethod
            def setUpClass(cls): 1 / 0
            def test(self): pass
        class TearDown(unittest.TestCase):
            @classmethod
            def tearDownClass(cls): 1 / 0
            def test(self): pass
    """)
    assert states(result) == {
        "SetUp.test": "failed",
        "Skipped.test": "skipped",
        "TearDown.test": "passed",
        "TearDown.tearDownClass": "failed",
    }


def test_a_file_that_does_not_import(run):
    assert states(run("1 / 0")) == {"import": "crashed"}


def test_a_file_that_skips_itself(run):
    assert states(run("raise unittest.SkipTest('not here')")) == {"setUpModule": "skipped"}


def test_a_crash_at_exit(run):
    result = run("""
        import atexit
        atexit.register(os.abort)
        class T(unittest.TestCase):
            def test(self): pass
    """)
    assert states(result) == {"T.test": "passed", "exit": "crashed"}


def test_a_test_may_not_touch_the_report_from_a_fork(run):
    result = run("""
        class T(unittest.TestCase):
            def test(self):
                if not (pid := os.fork()):
                    return  # the child goes on as if it were the test process
                os.waitpid(pid, 0)
                self.fail("in the parent")
    """)
    assert states(result) == {"T.test": "failed"}


def test_signals_are_as_in_a_foreground_job(run):
    result = run("""
        class T(unittest.TestCase):
            def test(self):
                self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)
                self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), set())
                self.assertEqual(os.getsid(0), os.getpid())
                self.assertEqual(os.listdir(), [])
                self.assertEqual(sys.stdin.read(), "")
    """)
    assert states(result) == {"T.test": "passed"}


def test_patterns_select_and_exclude(run):
    result = run(
        """
        class T(unittest.TestCase):
            def test_a1(self): pass
            def test_a2(self): pass
            def test_b(self): pass
        """,
        select=["*.test_a*"],
        exclude=["test_x.T.test_a2"],
    )
    assert states(result) == {"T.test_a1": "passed"}
    assert len(result.tests) == 3


def test_only_a_test_that_passes_twice_is_flaky(run, settings, tmp_path):
    result = run(f"""
        class T(unittest.TestCase):
            def flaky(self, *failing):
                name = {str(tmp_path)!r} + "/" + self.id()
                with open(name, "a+") as f:
                    f.write("x")
                if os.path.getsize(name) in failing:
                    self.fail()
            def test_first(self): self.flaky(1)
            def test_first_and_third(self): self.flaky(1, 3)
    """)
    retry_failures(result, settings, ["test_x.T.test_first", "test_x.T.test_first_and_third"])
    assert [it.flaky for it in result.outcomes.values()] == [True, False]


def test_a_skip_that_the_stdlib_does_not_make_is_a_failure(run, settings):
    result = run("""
        class T(unittest.TestCase):
            def test_both(self): self.skipTest("everywhere")
            def test_one(self): pass
    """)
    result.outcomes["test_x.T.test_one"] = Outcome("skipped", "no _CTask")
    void_skips(result, settings, result.tests)
    assert states(result) == {"T.test_both": "skipped", "T.test_one": "failed"}


def test_a_listed_test_has_to_fail():
    run = FileRun(
        "test_x",
        ["test_x.T.fails", "test_x.T.passes", "test_x.T.left_out", "test_x.T.lost"],
        {"test_x.T.fails": Outcome("hung"), "test_x.T.passes": Outcome("passed")},
    )
    patterns = [
        Pattern("test_x.T.[fp]*", "internal", "because", run=True),
        Pattern("test_x.T.left_*", "internal", "because", run=False),
    ]
    judgements = judge(run, patterns, run.tests, strict=True)
    assert {test[9:]: it.verdict for test, it in judgements.items()} == {
        "fails": Verdict.NOT_APPLICABLE,
        "passes": Verdict.UNEXPECTED_PASS,
        "left_out": Verdict.NOT_APPLICABLE,
        "lost": Verdict.FAILED,
    }
    counts = count(judgements)
    assert (counts.run, counts.passed, counts.failed, counts.not_applicable) == (2, 0, 2, 2)


@pytest.mark.parametrize(
    ("spec", "holds"),
    [
        (">=3.12", True),
        (">=3.12.4", False),
        ("<3.13", True),
        (">=3.11,<3.12", False),
    ],
)
def test_version_specification(spec, holds):
    assert version_matches(spec, (3, 12, 1)) is holds


@pytest.mark.parametrize(
    "entry",
    [
        'tests = ["test_tasks.T.t"]\nkind = "internal"',
        'tests = ["test_tasks.T.t"]\nkind = "lazy"\nreason = "none to speak of"',
        'tests = ["test_tasks.T"]\nkind = "later"\nreason = "none to speak of"',
        'tests = ["test_tasks.T.t"]\nkind = "later"\nreason = "none to speak of"\nversions = "3"',
        'tests = ["test_tasks.T.t"]\nkind = "later"\nreason = "none to speak of"\nfoo = 1',
    ],
)
def test_malformed_list_is_refused(entry, tmp_path):
    path = tmp_path / "list.toml"
    path.write_text(f"[[entry]]\n{entry}\n")
    with pytest.raises(ListError):
        load_list(path)


@pytest.mark.parametrize("minor", range(11, 16))
def test_the_list_is_well_formed(minor):
    assert load_list(version=(3, minor, 0))
