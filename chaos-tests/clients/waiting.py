"""Waiting for what is to be, with a deadline: what all tests of clients share."""

import time
import urllib.request

# Everything is answered in milliseconds; a loaded machine takes longer.
ANSWER_S = 30
PAUSE_S = 0.05
HTTP_S = 5


def wait_for(what, condition, seconds=ANSWER_S):
    """Waits until `condition` answers something true, and returns it. What it waits for must stay true.

    `what`: how it is said that it did not come.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(PAUSE_S)
    raise AssertionError(f"{what} after {seconds} s")


def ready(node):
    """Whether a node says that it is."""
    try:
        with urllib.request.urlopen(f"http://{node.admin}/health/ready", timeout=HTTP_S) as answer:
            return answer.status == 200
    except OSError:
        return False
