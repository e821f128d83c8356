"""mosquitto's clients: the lines README prints, and what a shell script would do."""

import queue
import shlex
import subprocess
import threading

import pytest

WAIT_S = 20
BOTH = pytest.mark.parametrize("version", ["311", "5"])

pytestmark = [pytest.mark.needs("mosquitto_pub"), pytest.mark.needs("mosquitto_sub")]


def run(line, text=None):
    """Runs a line, and returns what it wrote."""
    done = subprocess.run(
        shlex.split(line), input=text, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, f"{line}: {done.returncode} {done.stderr}"
    return done.stdout


def at(node):
    return f"-h {node.host} -p {node.port}"


@BOTH
def test_a_durable_session_gets_lines_published_while_it_was_away(cluster, topic, version):
    one, two, three = cluster.nodes
    reader = f"mosquitto_sub -V {version} -q 1 -c -i r-{topic} -t '{topic}/#' -W {WAIT_S}"
    if version == "5":
        reader += " -x 3600"
    run(f"{reader} {at(one)} -E")
    lines = [f"line {number}" for number in range(200)]
    run(f"mosquitto_pub -V {version} {at(two)} -q 1 -t {topic}/a -l", "\n".join(lines) + "\n")
    heard = run(f"{reader} {at(three)} -C {len(lines)}")
    assert heard.splitlines() == lines


@BOTH
def test_a_message_is_heard_on_every_node(cluster, topic, version):
    readers = []
    for node in cluster.nodes:
        # stdbuf: mosquitto_sub keeps what it says in a buffer when it writes to a pipe.
        line = f"stdbuf -oL mosquitto_sub -V {version} {at(node)} -q 1 -t {topic} -C 1 -W {WAIT_S} -d"
        readers.append(subprocess.Popen(shlex.split(line), stdout=subprocess.PIPE, text=True))
    for reader in readers:
        # -d says when the SUBACK came, so nothing has to be guessed.
        while not reader.stdout.readline().startswith("Subscribed"):
            assert reader.poll() is None
    run(f"mosquitto_pub -V {version} {at(cluster.nodes[1])} -q 1 -t {topic} -m hello")
    for reader in readers:
        heard, _ = reader.communicate(timeout=WAIT_S)
        assert "hello" in heard.splitlines()
        assert reader.returncode == 0


def listen(reader, heard):
    """Puts the lines that a reader prints where all are gathered."""
    for line in reader.stdout:
        if line.startswith("line "):
            heard.put((reader.pid, line.strip()))


@BOTH
def test_readers_of_a_share_divide_the_lines_among_them(cluster, topic, version):
    readers, lines = [], [f"line {number}" for number in range(60)]
    heard = queue.Queue()
    for node in cluster.nodes:
        line = (
            f"stdbuf -oL mosquitto_sub -V {version} {at(node)} -q 1 -t '$share/lines/{topic}'"
            f" -W {2 * WAIT_S} -d -F %p"
        )
        readers.append(subprocess.Popen(shlex.split(line), stdout=subprocess.PIPE, text=True))
    for reader in readers:
        while not reader.stdout.readline().startswith("Subscribed"):
            assert reader.poll() is None
        threading.Thread(target=listen, args=(reader, heard), daemon=True).start()
    run(f"mosquitto_pub -V {version} {at(cluster.nodes[1])} -q 1 -t {topic} -l", "\n".join(lines) + "\n")
    # How many each of them gets depends on who acknowledges first.
    took = [heard.get(timeout=WAIT_S) for _ in lines]
    for reader in readers:
        reader.terminate()
        reader.wait(WAIT_S)
    assert sorted(line for _, line in took) == sorted(lines)
    assert {reader for reader, _ in took} == {reader.pid for reader in readers}, "each has its part"
