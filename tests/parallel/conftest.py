"""Two processes for the tests of a module, which says what each does."""

from typing import Any

import pytest

from tests.processes import in_two_processes


@pytest.fixture(scope="module")
def ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the module's `run_rank` found in each of two processes, rank by rank."""
    return in_two_processes(request.module.run_rank, tmp_path_factory.mktemp("ranks"))
