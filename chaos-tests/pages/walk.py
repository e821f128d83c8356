"""Follows pages of docs/ as their reader would, and writes down what was said and heard.

    scripts/walk                     all pages, in a network and a mount view of their own; needs root
    scripts/walk operations backup   only these

What it keeps true: a command that the page shows is run as the page shows it, but for the values named in `also`; a command
that is not on the page is marked in the transcript; a command of the page that was not run, and is not excused with a reason,
is an error; and so is an exit code that was not expected. Machines are 10.0.0.1 to 10.0.0.7: each node has its own
/var/lib/moorline and /etc/moorline, as on a machine of its own, and asks its own admin API.

Transcripts: docs/transcripts/PAGE.md, written with --write, otherwise to the work directory.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAM = Path(os.environ["MOORLINE_BINARY"])
MACHINES = 7
COMMAND_S = 120
SETTLED_S = 120
PAUSE_S = 0.2
# Where each machine's own directories are seen.
PLACES = {"lib": Path("/var/lib/moorline"), "etc": Path("/etc/moorline")}
# What changes from one walk to the next and says nothing, and what is nobody's business even of clusters that are gone.
VOLATILE = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b(mlt_\d+_\w+_)?[A-Za-z0-9]{43}\b"), r"\1…"),
    (re.compile(r"\b[0-9a-f]{4}[0-9a-f]{28}\b"), "4c0f…"),
]
LINES_MAX = 60


def is_whole_in(command, done, commands):
    """Whether what was done has this command as a whole: a shorter one is no part of a longer one's words."""
    for begin in (match.start() for match in re.finditer(re.escape(command), done)):
        before, after = done[:begin].rstrip(), done[begin + len(command) :].lstrip()
        begins = not before or before.endswith(("&&", ";", "|", "(", "do", "then")) or any(before.endswith(c) for c in commands)
        ends = not after or after.startswith(("&&", ";", "|", ")", "#")) or any(after.startswith(c) for c in commands)
        if begins and ends:
            return True
    return False


class Walk:
    """One page, and the machines on which it is followed."""

    def __init__(self, page, work, program=PROGRAM):
        self.page = page
        self.text = (DOCS / f"{page}.md").read_text()
        self.work = work
        self.program = program
        self.ran = []
        self.said = []
        self.servers = {}
        self.excused = {}
        self.programs = {}
        self.more = {}
        (work / "backup").mkdir(parents=True)
        for machine in range(1, MACHINES + 1):
            for place in PLACES:
                (work / f"m{machine}" / place).mkdir(parents=True)

    # What is said.

    def tell(self, text):
        self.said.append(f"\n{text}\n")

    def run(self, command, on=1, ends_with=0, also=(), shown=True, within=COMMAND_S):
        """Runs a command of the page on a machine. `also`: (what the page shows, what is typed)."""
        if shown:
            assert " ".join(command.split()) in self.flat(), f"{self.page}.md does not show: {command}"
            self.ran.append(" ".join(command.split()))
        typed = command
        for there, here in also:
            assert there in typed, f"{there!r} is not in {typed!r}"
            typed = typed.replace(there, here)
        done = subprocess.run(self.inside(on, typed), capture_output=True, text=True, timeout=within, env=self.environment(on))
        output = done.stdout + done.stderr
        self.write(on, typed, output, "" if shown else "   # not on the page")
        assert ends_with in (None, done.returncode), f"{self.page}: `{typed}` ended with {done.returncode}, not {ends_with}:\n{output[-4000:]}"
        return output

    def also(self, command, **how):
        """Runs a command that the page does not show."""
        return self.run(command, shown=False, **how)

    def quietly(self, command, on=1, ends_with=0):
        """Asks, and writes nothing down: what a reader looks at again and again."""
        done = subprocess.run(self.inside(on, command), capture_output=True, text=True, timeout=COMMAND_S, env=self.environment(on))
        assert ends_with is None or done.returncode == ends_with, f"`{command}`: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, on, typed, output, remark):
        for pattern, instead in VOLATILE:
            typed, output = pattern.sub(instead, typed), pattern.sub(instead, output)
        lines = output.rstrip().split("\n") if output.strip() else []
        if len(lines) > LINES_MAX:
            lines = [*lines[: LINES_MAX // 2], f"… {len(lines) - LINES_MAX} lines", *lines[-LINES_MAX // 2 :]]
        self.said.append("\n".join(["```console", f"m{on}$ {typed}{remark}", *lines, "```"]))

    def excuse(self, command, why):
        """The page shows it, and it can't be run here."""
        assert " ".join(command.split()) in self.flat(), f"{self.page}.md does not show: {command}"
        self.excused[" ".join(command.split())] = why

    def excuse_all(self, begin, why):
        """The same of every command of the page that begins so."""
        for command in self.commands():
            if command.startswith(begin):
                self.excused[command] = why

    def previous(self):
        """The program of before, if there is one: MOORLINE_PREVIOUS."""
        program = os.environ.get("MOORLINE_PREVIOUS")
        return Path(program) if program else None

    def flat(self):
        return " ".join(self.text.split())

    # Machines.

    def environment(self, on):
        return {
            **os.environ,
            "PATH": f"{self.work}/m{on}/bin:{os.environ['PATH']}",
            "HOME": str(self.work / f"m{on}"),
            "NO_COLOR": "1",
            **self.more.get(on, {}),
        }

    def inside(self, on, command):
        binary = self.work / f"m{on}/bin/moorline"
        if not binary.exists():
            binary.parent.mkdir(exist_ok=True)
            binary.symlink_to(self.programs.get(on, self.program))
        binds = [f"mount --bind {self.work}/m{on}/{place} {path}" for place, path in PLACES.items()]
        binds.append(f"mount --bind {self.work}/backup /backup")
        return ["ip", "netns", "exec", f"walk{on}", "unshare", "--mount", "bash", "-c", " && ".join([*binds, "cd /etc/moorline", f"exec bash -c '{quote(command)}'"])]

    def exchange(self, on, program):
        """The machine has another program from now on."""
        binary = self.work / f"m{on}/bin/moorline"
        binary.unlink(missing_ok=True)
        self.programs[on] = program

    def file(self, on, name, text):
        (self.work / f"m{on}/etc/{name}").write_text(text)

    def config(self, machine, peers=(), join=False, name="moorline", more=""):
        listed = ", ".join(f'{{ id = {peer}, address = "10.0.0.{peer}:7400" }}' for peer in peers)
        address = f'address = "10.0.0.{machine}:7400"\n' if join else ""
        peers = f"peers = [{listed}]\n" if peers else ""
        return (
            f'[node]\nid = {machine}\ndata-dir = "/var/lib/moorline"\n'
            f'[listen]\ncluster = "10.0.0.{machine}:7400"\nadmin = "0.0.0.0:9400"\nmqtt = "0.0.0.0:1883"\n'
            f'[cluster]\nname = "{name}"\n{address}{peers}{more}'
        )

    def start(self, machine, file="moorline.toml", shown=False):
        """`moorline server` on a machine, as a unit would."""
        command = f"moorline server --config {file}"
        if shown:
            assert command in self.flat(), f"{self.page}.md does not show: {command}"
            self.ran.append(command)
        log = open(self.work / f"m{machine}/log", "ab")
        self.servers[machine] = subprocess.Popen(
            self.inside(machine, command), stdout=log, stderr=log, env=self.environment(machine), start_new_session=True
        )
        self.said.append(f"```console\nm{machine}$ {command} &{'' if shown else '   # not on the page'}\n```")

    def stop(self, machine, how=signal.SIGTERM):
        """Ends a server; SIGKILL is a machine that dies."""
        server = self.servers.pop(machine)
        os.killpg(server.pid, how)
        server.wait(COMMAND_S)
        self.said.append(f"```console\nm{machine}$ kill -{how.name.removeprefix('SIG')} …   # moorline server\n```")

    def cluster(self, machines=(1, 2, 3), program=None, **how):
        """A cluster that the page takes for granted."""
        for machine in machines:
            if program:
                self.exchange(machine, program)
            self.file(machine, "moorline.toml", self.config(machine, machines, **how))
            self.start(machine)
        self.until("the nodes answer", lambda: all(self.asks(m, "/livez") for m in machines))
        self.also("moorline cluster init", on=machines[0])
        self.ready(*machines)

    def asks(self, machine, path):
        done = subprocess.run(
            ["curl", "--silent", "--fail", "--max-time", "5", f"http://10.0.0.{machine}:9400{path}"], capture_output=True, text=True
        )
        return done.stdout if done.returncode == 0 else None

    def ready(self, *machines):
        self.until(f"ready: {machines}", lambda: all(self.asks(m, "/readyz") for m in machines))

    def view(self, on=1):
        return json.loads(self.quietly("moorline cluster status --json", on=on))

    def until(self, what, look, within=SETTLED_S):
        deadline = time.monotonic() + within
        while True:
            found = look()
            if found:
                return found
            for machine, server in self.servers.items():
                code = server.poll()
                assert code is None or code == 0, f"m{machine} ended with {code}: {self.log(machine)}"
            assert time.monotonic() < deadline, f"{self.page}: not within {within} s: {what}"
            time.sleep(PAUSE_S)

    def log(self, machine):
        return (self.work / f"m{machine}/log").read_text()[-4000:]

    # The end.

    def end(self):
        for machine in list(self.servers):
            os.killpg(self.servers[machine].pid, signal.SIGKILL)
            self.servers.pop(machine).wait(COMMAND_S)

    def commands(self):
        """Of the page's shell blocks."""
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", self.text, re.S | re.M):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                command = " ".join(re.sub(r"\s#\s.*", "", f"{line} ").split())
                if command and not command.startswith("#"):
                    yield command

    def left(self):
        """Commands of the page's shell blocks that were neither run nor excused."""
        all_of_page = list(self.commands())
        return [c for c in all_of_page if not any(is_whole_in(c, done, all_of_page) for done in [*self.ran, *self.excused])]

    def transcript(self):
        version = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        head = (
            f"# {self.page}.md, followed\n\nWhat `scripts/walk {self.page}` typed and heard, with {version}. "
            "`m1$` is the first machine, 10.0.0.1.\n"
        )
        excused = [f"- `{command}`: {why}" for command, why in self.excused.items()]
        tail = ["\nOn the page and not run here:\n", *excused] if excused else []
        return "\n".join([head, *self.said, *tail, ""])


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def enter():
    """Makes the machines, and the places at which each sees its own; returns what is to be taken away again."""
    made = [path for path in [*PLACES.values(), Path("/backup")] if not path.exists()]
    for path in made:
        path.mkdir(parents=True)
    machines()
    return made


def leave(made):
    for machine in range(1, MACHINES + 1):
        subprocess.run(["ip", "netns", "del", f"walk{machine}"], stderr=subprocess.DEVNULL)
    for path in made:
        path.rmdir()


def machines():
    """Machines with a network of their own each, and this one between them."""

    def ip(*command):
        subprocess.run(["ip", *command], check=True)

    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    ip("address", "add", "10.0.0.254/32", "dev", "lo")
    for machine in range(1, MACHINES + 1):
        name = f"walk{machine}"
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
        ip("netns", "add", name)
        ip("link", "add", f"at{machine}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"at{machine}", "up")
        ip("route", "add", f"10.0.0.{machine}/32", "dev", f"at{machine}")
        for command in (
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
            ["address", "add", f"10.0.0.{machine}/32", "dev", "eth0"],
            ["route", "add", "10.0.0.254/32", "dev", "eth0"],
            ["route", "add", "default", "via", "10.0.0.254"],
        ):
            ip("-n", name, *command)


def quote(command):
    return command.replace("'", "'\\''")


def main():
    from pages import PAGES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", choices=[[], *PAGES], metavar="PAGE")
    parser.add_argument("--write", action="store_true", help="into docs/transcripts")
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    made = enter()
    failed = []
    try:
        for page in asked.pages or PAGES:
            folder = fresh(asked.work / page)
            walk = Walk(page, folder)
            began = time.monotonic()
            try:
                PAGES[page](walk)
                assert not walk.left(), f"{page}.md shows what was not run: {walk.left()}"
                print(f"{page}: {len(walk.ran)} commands of the page, {time.monotonic() - began:.0f} s", flush=True)
            except Exception as problem:  # noqa: BLE001: the next page is followed all the same
                print(f"{page}: {problem!r}", file=sys.stderr, flush=True)
                failed.append(page)
            finally:
                walk.end()
            target = DOCS / "transcripts" if asked.write and page not in failed else folder
            target.mkdir(exist_ok=True)
            (target / f"{page.replace('/', '-')}.md").write_text(walk.transcript())
    finally:
        leave(made)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
