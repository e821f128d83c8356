"""What the tests of deploy/ share: the program, and waiting with a deadline."""

import os
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.2


@pytest.fixture(scope="session")
def moorline():
    """The program under test."""
    program = Path(os.environ["MOORLINE_BINARY"])
    assert program.exists(), f"{program} is not there: scripts/verify build"
    return program


def wait_for(what, look, within_s):
    """Looks until there is something, and returns it."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(PAUSE_S)
