"""The Debian package in a small Debian whose first process is systemd: installed, run, hung, killed, upgraded, removed, purged.

Wants to be root, in a network of its own, with a Docker engine, lintian and cargo-deb, and that Debian in a tar file that MOORLINE_DEBIAN names:
`scripts/verify package`.
"""

import os
import re
import subprocess

import pytest
from conftest import BUILD_S, DEPLOY, READY_S, wait_for

# Enough for systemd, which is root there. Not --privileged: not every machine has all that to give.
CAPABILITIES = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"]
UNCONFINED = ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
CGROUPS = ["--cgroupns", "host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
# Of the drop-in, so that a hung node is noticed soon.
WATCHDOG_S = 9
CONFIG = """
[node]
id = 1
data-dir = "/var/lib/moorline/node1"
[listen]
mqtt = "127.0.0.1:1883"
[cluster]
shards = 3
peers = [{ id = 1, address = "127.0.0.1:7400" }]
"""


class Machine:
    """The small Debian."""

    def __init__(self, engine):
        self.engine = engine

    def run(self, command, ok=True):
        """A line of a root shell."""
        done = subprocess.run(
            ["docker", "exec", "machine", "sh", "-c", command],
            env=self.engine.environment, capture_output=True, text=True, timeout=READY_S,
        )
        assert not ok or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.log()}"
        return done.stdout.strip()

    def log(self):
        done = subprocess.run(
            ["docker", "exec", "machine", "journalctl", "-u", "moorline", "-n", "30", "--no-pager"],
            env=self.engine.environment, capture_output=True, text=True,
        )
        return done.stdout

    def write(self, path, text):
        subprocess.run(
            ["docker", "exec", "-i", "machine", "sh", "-c", f"cat > {path}"],
            env=self.engine.environment, input=text, text=True, check=True, timeout=READY_S,
        )

    def property(self, name):
        return self.run(f"systemctl show --value -p {name} moorline")

    def waits_for(self, name, value):
        try:
            wait_for(f"{name} is {value}", lambda: re.search(value, self.property(name)), READY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.property(name)!r}\n{self.log()}") from None

    def serves(self):
        self.waits_for("StatusText", "^serves clients$")
        assert self.run("systemctl is-active moorline") == "active"


@pytest.fixture(scope="module")
def package(engine, moorline, tmp_path_factory):
    package = tmp_path_factory.mktemp("package") / "moorline.deb"
    engine.environment["MOORLINE_PROGRAM"] = str(moorline)
    engine.run(DEPLOY / "package", package, within=BUILD_S)
    return package


@pytest.fixture(scope="module")
def machine(engine, package):
    engine.docker("import", os.environ["MOORLINE_DEBIAN"], "debian:test", within=BUILD_S)
    mounts = [word for folder in ["/run", "/run/lock", "/tmp"] for word in ["--tmpfs", folder]]
    engine.docker(
        "run", "-d", "--name", "machine", "-e", "container=docker", *CAPABILITIES, *UNCONFINED, *CGROUPS, *mounts, "debian:test", "/sbin/init"
    )
    machine = Machine(engine)
    wait_for("systemd runs", lambda: machine.run("systemctl is-system-running", ok=False) == "running", READY_S)
    engine.docker("cp", package, "machine:/root/moorline.deb")
    yield machine
    engine.docker("rm", "--force", "machine")


def test_lintian_has_nothing_to_say(package):
    said = subprocess.run(["lintian", package], capture_output=True, text=True, timeout=BUILD_S)
    assert said.stdout == "", said.stdout


def test_the_package_from_installation_to_purge(machine):
    # It brings user, unit and configuration, and starts nothing.
    machine.run("dpkg --install /root/moorline.deb")
    assert machine.run("systemctl is-active moorline", ok=False) == "inactive"
    assert machine.run("systemctl is-enabled moorline", ok=False) == "disabled"
    assert machine.run("stat -c '%U %G %a' /etc/moorline /etc/moorline/moorline.toml").split("\n") == ["root moorline 750", "root moorline 640"]
    assert machine.run("systemd-analyze verify moorline.service 2>&1") == ""

    # Started, as the node itself says, and what it waits for.
    machine.write("/etc/moorline/moorline.toml", CONFIG)
    drop_in = "/etc/systemd/system/moorline.service.d"
    machine.run(f"mkdir {drop_in}")
    machine.write(f"{drop_in}/test.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    machine.run("systemctl daemon-reload && systemctl enable --now moorline")
    machine.waits_for("StatusText", "^not ready: not made yet")
    machine.run("moorline cluster init")
    machine.serves()
    assert machine.run("stat -c '%U %a' /var/lib/moorline") == "moorline 700"

    # It hangs: the watchdog kills it, systemd starts it again. It is killed: the same.
    for restarts, blow in enumerate(["STOP", "KILL"], start=1):
        machine.run(f"kill -{blow} {machine.property('MainPID')}")
        machine.waits_for("NRestarts", f"^{restarts}$")
        machine.serves()

    # An upgrade leaves the process alone; a reload and a restart are asked for.
    before = machine.property("MainPID")
    machine.run("dpkg --install /root/moorline.deb")
    machine.run("systemctl reload moorline")
    assert machine.property("MainPID") == before
    machine.run("systemctl restart moorline")
    machine.serves()
    assert machine.property("MainPID") != before

    # A wrong configuration is not tried again.
    machine.write("/etc/moorline/moorline.toml", CONFIG + "wrong = 1\n")
    machine.run("systemctl restart moorline", ok=False)
    machine.waits_for("ActiveState", "^failed$")
    assert machine.property("ExecMainStatus") == "2" and machine.property("NRestarts") == "0"
    machine.write("/etc/moorline/moorline.toml", CONFIG)
    machine.run("systemctl start moorline")
    machine.serves()

    # Removed it stops; purged, its configuration is gone and its data is not.
    machine.run("dpkg --remove moorline")
    assert machine.run("systemctl is-active moorline", ok=False) == "inactive"
    assert machine.run("ls /etc/moorline") == "moorline.toml"
    machine.run("dpkg --purge moorline")
    assert machine.run("ls -d /etc/moorline", ok=False) == ""
    assert machine.run("ls /var/lib/moorline") == "node1" and machine.run("id -un moorline") == "moorline"
