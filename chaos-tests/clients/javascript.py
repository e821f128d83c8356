"""What runs with Node: a script of ours beside the packages that it needs."""

import json
import os
import subprocess


def run(folder, script, *arguments, seconds, **environment):
    """Runs a script in the folder of its packages; it says by its exit what came of it, and prints why. What is no text is said as JSON."""
    said = [one if isinstance(one, str) else json.dumps(one) for one in arguments]
    done = subprocess.run(
        ["node", script, *said],
        cwd=folder,
        env=os.environ | environment,
        timeout=seconds,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
