"""anyio's fixture with aioxide's constant as its value."""

import pytest
from suite_anyio import streams, test_cancelled, test_streams  # noqa: F401

import aioxide

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[pytest.param(aioxide.anyio_backend, id="aioxide")])
def anyio_backend(request):
    return request.param
