"""Judges what happened to the tests of a file against the list, and counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from catalogue import Pattern
from supervisor import FileRun, Outcome


class Verdict(StrEnum):
    """How a test counts."""

    PASSED = "passed"
    FLAKY = "flaky"
    """Failed at first, then passed every time: counts as passed, but is named."""
    FAILED = "failed"
    UNEXPECTED_PASS = "unexpected pass"
    """Named in the list as not applicable, but passes: it must come off the list."""
    SKIPPED = "skipped"
    """Skipped by the test itself."""
    NOT_APPLICABLE = "not applicable"


BAD = frozenset({Verdict.FAILED, Verdict.UNEXPECTED_PASS})


@dataclass(frozen=True)
class Judgement:
    """A test's verdict, and what it rests on."""

    verdict: Verdict
    outcome: Outcome | None = None
    """None if the test was not run."""
    pattern: Pattern | None = None
    """The entry of the list that names the test."""


@dataclass
class Counts:
    """How many tests got which verdict."""

    run: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    skip_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> int:
        """Tests that passed, the flaky ones among them."""
        return self.verdicts[Verdict.PASSED] + self.verdicts[Verdict.FLAKY]

    @property
    def failed(self) -> int:
        """Tests that failed, and tests that passed against the list."""
        return sum(self.verdicts[verdict] for verdict in BAD)

    @property
    def skipped(self) -> int:
        """Tests that skipped themselves."""
        return self.verdicts[Verdict.SKIPPED]

    @property
    def not_applicable(self) -> int:
        """Tests that are on the list: not run, or run and failed."""
        return self.verdicts[Verdict.NOT_APPLICABLE]

    def add(self, other: Counts) -> None:
        """Adds another file's counts."""
        self.run += other.run
        self.verdicts += other.verdicts
        self.skip_reasons += other.skip_reasons


def find_pattern(test: str, patterns: Sequence[Pattern]) -> Pattern | None:
    """The first entry of the list that names a test."""
    return next((pattern for pattern in patterns if pattern.matches(test)), None)


def judge(run: FileRun, patterns: Sequence[Pattern], selected: Sequence[str], *, strict: bool) -> dict[str, Judgement]:
    """The verdict on each selected test, and on what else went wrong.

    With `strict`, a test of the list that is run has to fail; without, the list
    says only what is not run.
    """
    judgements = {}
    for test in selected:
        outcome = run.outcomes.get(test)
        pattern = find_pattern(test, patterns)
        if outcome is None:
            # Not even started: only entries of the list may do that.
            verdict = Verdict.NOT_APPLICABLE if pattern else Verdict.FAILED
        else:
            verdict = _judge_outcome(outcome, pattern if strict else None)
        judgements[test] = Judgement(verdict, outcome, pattern)
    for name, outcome in run.outcomes.items():
        if name not in run.tests:  # a fixture, or the process itself
            judgements[name] = Judgement(_judge_outcome(outcome, None), outcome)
    return judgements


def _judge_outcome(outcome: Outcome, pattern: Pattern | None) -> Verdict:
    if outcome.state == "passed":
        return Verdict.PASSED if pattern is None else Verdict.UNEXPECTED_PASS
    if pattern is not None:
        return Verdict.NOT_APPLICABLE
    if outcome.state == "skipped":
        return Verdict.SKIPPED
    return Verdict.FLAKY if outcome.flaky else Verdict.FAILED


def count(judgements: dict[str, Judgement]) -> Counts:
    """Counts the verdicts of a file."""
    counts = Counts()
    for judgement in judgements.values():
        counts.verdicts[judgement.verdict] += 1
        if judgement.outcome is not None:
            counts.run += 1
            if judgement.verdict is Verdict.SKIPPED:
                counts.skip_reasons[judgement.outcome.detail] += 1
    return counts
