"""What watches asyncio programs: Sentry, OpenTelemetry."""

import pytest
from conftest import PROGRAMS


@pytest.mark.parametrize("name", ["sentry", "opentelemetry"])
def test_instrumentation(run, mode, name):
    run(mode, PROGRAMS / f"use_{name}.py")
