"""What the tests of deploy/ share: the program, a Docker engine of their own, waiting with a deadline."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAUSE_S = 0.2
ENGINE_S = 60
BUILD_S = 300
READY_S = 90
# What compose.yaml asks for. Not every machine lets root raise it.
FILES = 524288


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


class Engine:
    """A Docker engine, and the Compose project."""

    def __init__(self, folder, host):
        self.environment = {
            **os.environ,
            "DOCKER_HOST": host,
            "DOCKER_BUILDKIT": "0",
            "MOORLINE_IMAGE": "moorline:test",
            "PROMETHEUS_IMAGE": "prometheus:test",
            "MOORLINE_NOFILE": str(min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        }
        self.folder = folder
        plugin = subprocess.run(["docker", "compose", "version"], env=self.environment, capture_output=True).returncode == 0
        self.program = ["docker", "compose"] if plugin else ["docker-compose"]

    def run(self, *command, within=READY_S):
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=within)
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout

    def docker(self, *command, **how):
        return self.run("docker", *command, **how)

    def compose(self, *command, **how):
        return self.run(*self.program, "-f", str(DEPLOY / "compose.yaml"), *command, **how)

    def container(self, service):
        return self.compose("ps", "-q", service).strip()

    def inspect(self, service):
        return json.loads(self.docker("inspect", self.container(service)))[0]


@pytest.fixture(scope="session")
def engine():
    work = Path(os.environ["MOORLINE_WORK"]) / "docker"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # Names of sockets have to be short.
    runtime = Path(tempfile.mkdtemp(prefix="moorline-docker-"))
    host = f"unix://{runtime}/sock"
    with open(work / "dockerd.log", "wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--data-root", work / "data", "--exec-root", runtime / "exec", "-H", host, "--pidfile", runtime / "pid"],
            stdout=log,
            stderr=log,
        )
    engine = Engine(work, host)

    def answers():
        assert daemon.poll() is None, (work / "dockerd.log").read_text()[-4000:]
        return subprocess.run(["docker", "info"], env=engine.environment, capture_output=True).returncode == 0

    try:
        wait_for("dockerd answers", answers, ENGINE_S)
        yield engine
    finally:
        if daemon.poll() is None:
            subprocess.run(
                [*engine.program, "-f", DEPLOY / "compose.yaml", "down", "-v", "-t", "1"], env=engine.environment, capture_output=True
            )
        daemon.terminate()
        daemon.wait(ENGINE_S)
        shutil.rmtree(runtime, ignore_errors=True)
        shutil.rmtree(work / "data", ignore_errors=True)
