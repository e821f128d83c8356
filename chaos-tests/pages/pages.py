"""How each page of docs/ is followed."""

import re
import signal

KEY = '[security]\nkey-file = "/etc/moorline/key"\nanonymous = true\n'


def operations(walk):
    walk.tell("Three nodes, and a publish that a durable session waits for.")
    walk.cluster()
    walk.also("timeout 3 moorline sub -H 10.0.0.1 -t 'demo/#' -i reader --durable || true")
    walk.also("moorline pub -H 10.0.0.2 -t demo/hello -m before")
    walk.tell("## Add a node")
    token = walk.run("moorline cluster token")
    token = re.search(r"[0-9a-f]{32,}", token).group()
    walk.file(4, "four.toml", walk.config(4, join=True))
    walk.run(
        "moorline cluster join --token 4c0f… --member 10.0.0.1:9400 --config four.toml", on=4, also=[("4c0f…", token)]
    )
    walk.start(4, "four.toml", shown=True)
    walk.ready(4)
    walk.run("moorline cluster members")
    settled(walk, [1, 2, 3, 4])
    walk.run("moorline cluster status")
    walk.tell("## Take a node out for a while")
    walk.run("moorline cluster drain 1")
    settled(walk, [2, 3, 4])
    walk.run("moorline cluster status", on=2)
    walk.run("moorline cluster resume 1", also=[])
    settled(walk, [1, 2, 3, 4])
    walk.tell("## For good")
    walk.run("moorline cluster leave 1")
    walk.until("node 1 ended", lambda: walk.servers[1].poll() == 0)
    walk.servers.pop(1)
    walk.run("moorline cluster members", on=2)
    walk.tell("## Replace a node that is dead")
    walk.stop(3, signal.SIGKILL)
    token = re.search(r"[0-9a-f]{32,}", walk.run("moorline cluster token", on=2)).group()
    walk.file(5, "five.toml", walk.config(5, join=True))
    walk.also(f"moorline cluster join --token {token} --member 10.0.0.2:9400 --config five.toml", on=5)
    walk.start(5, "five.toml")
    walk.ready(5)
    walk.until("node 3 is not connected", lambda: "DOWN" in line(walk.quietly("moorline cluster status", on=2), "node 3"))
    walk.run("moorline cluster remove 3", on=2)
    settled(walk, [2, 4, 5])
    walk.run("moorline cluster status", on=2)
    walk.tell("The old machine comes back:")
    walk.start(3)
    walk.until("node 3 ended", lambda: walk.servers[3].poll() is not None)
    walk.servers.pop(3)
    walk.tell("> " + walk.log(3).strip().splitlines()[-1])
    replicas(walk)
    walk.tell("## Move a leader by hand")
    walk.run("moorline cluster transfer --group 2 --to 3", on=2, also=[("--to 3", "--to 5")])
    walk.tell("## Change settings")
    changed = walk.config(2, [1, 2, 3]) + "[mqtt]\nconnections-max = 5000\ninflight-max = 16\n"
    walk.file(2, "moorline.toml", changed)
    walk.run("moorline config check /etc/moorline/moorline.toml", on=2)
    walk.run("moorline config diff /etc/moorline/moorline.toml", on=2, ends_with=None)
    assert "connections-max" in walk.run("moorline config reload", on=2)
    walk.tell("What was published in the beginning waits for who subscribed in the beginning:")
    heard = walk.also("moorline sub -H 10.0.0.5 -t 'demo/#' -i reader --durable -n 1", on=5)
    assert "before" in heard, heard


def replicas(walk):
    """More and fewer copies, on the page of operations."""
    walk.tell("## More copies, for which there are not enough nodes yet")
    walk.run("moorline cluster replicas 5", on=2)
    walk.run("moorline cluster status", on=2)
    for machine in (6, 7):
        token = re.search(r"[0-9a-f]{32,}", walk.quietly("moorline cluster token", on=2)).group()
        walk.file(machine, "moorline.toml", walk.config(machine, join=True))
        walk.also(f"moorline cluster join --token {token} --member 10.0.0.2:9400 --config moorline.toml", on=machine)
        walk.start(machine)
        walk.ready(machine)
    copies(walk, [2, 4, 5, 6, 7], 5)
    walk.run("moorline cluster status", on=2)
    walk.tell("And fewer again:")
    walk.also("moorline cluster replicas 4", on=2, ends_with=None)
    walk.also("moorline cluster replicas 3", on=2)
    copies(walk, [2, 4, 5, 6, 7], 3)
    walk.run("moorline cluster status", on=2)


def backup(walk):
    walk.tell("Three nodes with a tenant, a device that has a secret and a mail, and a session for which something waits.")
    with_token(walk)
    walk.also("timeout 3 moorline sub -H 10.0.0.1 -t 'demo/#' -i reader --durable || true")
    walk.also("moorline pub -H 10.0.0.2 -t demo/hello -m before")
    walk.also("moorline mail send pump-7 open '{\"gate\":1}' --id 018f0000-0000-7000-8000-000000000001")
    walk.tell("## Make one, check it, make another")
    walk.run("moorline backup create --to /backup/moorline --admin 127.0.0.1:9400")
    walk.also("moorline pub -H 10.0.0.2 -t demo/hello -m between")
    # A backup is called after the second in which it began.
    seconds = walk.quietly("date +%s")
    walk.until("the next second", lambda: walk.quietly("date +%s") != seconds)
    walk.run("moorline backup create --to /backup/moorline && moorline backup verify /backup/moorline && moorline backup prune /backup/moorline --keep 14", on=2)
    walk.run("moorline backup prune /backup/moorline --keep 14")
    walk.run("moorline backup verify /backup/moorline")
    walk.also("find /backup/moorline -type f | sort | tail -n 6")
    walk.tell("A piece is damaged, and put right again:")
    piece = sorted((walk.work / "backup/moorline/pieces").rglob("*.rows"))[0]
    whole = piece.read_bytes()
    piece.chmod(0o600)
    piece.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    walk.run("moorline backup verify /backup/moorline", ends_with=1)
    piece.write_bytes(whole)
    walk.run("moorline backup verify /backup/moorline")
    for program in ("aws s3 sync /backup/moorline/pieces", "rclone copy --immutable"):
        if program in walk.flat():
            walk.excuse_all(program, "it speaks to a service that is not here")
    walk.tell("## Restore: the three machines are gone, and one of another cluster takes their place")
    name = sorted(file.stem for file in (walk.work / "backup/moorline").glob("*.json"))[-1]
    for machine in (1, 2, 3):
        walk.stop(machine, signal.SIGKILL)
    walk.file(4, "one.toml", walk.config(4, [4], name="again", more=KEY))
    given = ("2026-11-24T00-20-00Z", name)
    walk.run("moorline backup verify /backup/moorline --name 2026-11-24T00-20-00Z", on=4, also=[given])
    walk.run("moorline backup restore /backup/moorline --name 2026-11-24T00-20-00Z --config one.toml", on=4, also=[given])
    walk.start(4, "one.toml", shown=True)
    walk.ready(4)
    heard = walk.also("moorline sub -H 10.0.0.4 -t 'demo/#' -i reader --durable -n 2", on=4)
    assert "before" in heard and "between" in heard, heard
    assert "018f0000-0000-7000-8000-000000000001" in walk.also("moorline mail list pump-7", on=4)


def copies(walk, nodes, count):
    """Each shard has so many votes."""

    def look():
        shards = [g for node in nodes for g in walk.view(node)["groups"] if g["shard"]]
        return all(g["leader"] and len(g["voters"]) == count and not g["learners"] for g in shards)

    walk.until(f"{count} copies", look)


def upgrades(walk):
    """One after the other of three nodes is stopped and started while somebody publishes."""
    for command in ("moorline-chaos upgrade", "MOORLINE_PREVIOUS="):
        walk.excuse_all(command, "`scripts/verify upgrade` is a stage of its own")
    previous = walk.previous()
    walk.tell("Their program is the previous one; each machine gets the new one." if previous else "The same program again.")
    walk.cluster(program=previous)
    walk.run("moorline cluster status")
    walk.also("timeout 3 moorline sub -H 10.0.0.1 -t 'demo/#' -i reader --durable || true")
    for machine in (1, 2, 3):
        other = machine % 3 + 1
        walk.stop(machine)
        walk.also(f"moorline pub -H 10.0.0.{other} -t demo/hello -m 'while {machine} is down'", on=other)
        walk.exchange(machine, walk.program)
        walk.start(machine)
        walk.ready(machine)
        walk.run("moorline cluster status", on=machine)
    # A cluster that this program made is at its highest level from the beginning.
    walk.run("moorline cluster upgrade", ends_with=0 if previous else None)
    walk.run("moorline cluster status")
    view = walk.view()
    assert view["level"] > 1 and view["next_level"] is None, view
    heard = walk.also("moorline sub -H 10.0.0.2 -t 'demo/#' -i reader --durable -n 3", on=2)
    assert all(f"while {machine} is down" in heard for machine in (1, 2, 3)), heard


def explain(walk):
    with_token(walk)
    secret = walk.secret
    walk.also("mosquitto_pub -h 10.0.0.2 -i pump-7 -u pump-7@acme -P wrong -t pump-7/temperature -q 1 -m 21.5", on=2, ends_with=None)
    walk.also(f"mosquitto_pub -h 10.0.0.2 -V 5 -i pump-7 -u pump-7@acme -P {secret} -t pump-7/temperature -q 1 -m 21.5", on=2)
    told = walk.run("moorline explain device pump-7 --tenant acme --since 1h")
    assert "wrong_credentials" in told, told
    message = re.search(r"message ([0-9a-f]{16})", told).group(1)
    told = walk.run("moorline explain message 3f0e2a9c5d71b846 --tenant acme", also=[("3f0e2a9c5d71b846", message)])
    assert "pump-7/temperature" in told, told


def doctor(walk):
    walk.cluster()
    walk.also("moorline doctor", ends_with=None)
    walk.tell("A node dies:")
    walk.stop(3, signal.SIGKILL)
    told = walk.run("moorline doctor --config /etc/moorline/moorline.toml", ends_with=1)
    assert "node 3" in told, told
    walk.tell("And another:")
    walk.stop(2, signal.SIGKILL)
    walk.until("it is noticed", lambda: "no majority" in walk.quietly("moorline doctor", ends_with=None))
    walk.also("moorline doctor", ends_with=2)
    walk.tell("One comes back:")
    walk.start(2)
    walk.ready(1, 2)
    walk.also("moorline doctor", ends_with=1)


def with_token(walk):
    """A cluster with a key, a tenant with a device, and a token for its API in the environment of each machine."""
    for machine in range(1, 7):
        walk.file(machine, "key", "5f" * 32)
        (walk.work / f"m{machine}/etc/key").chmod(0o600)
    walk.cluster(more=KEY)
    token = walk.also("moorline token create root --only token").strip().splitlines()[-1]
    for machine in range(1, 7):
        walk.more[machine] = {"MOORLINE_TOKEN": token, "MOORLINE_TENANT": "acme"}
    walk.also("moorline tenant create acme --plaintext")
    walk.also("moorline device create pump-7 --type pump")
    walk.secret = walk.also("moorline cred create pump-7 --only secret").strip().splitlines()[-1]


def line(text, begin):
    return next((each for each in text.splitlines() if each.strip().startswith(begin)), "")


def settled(walk, nodes):
    """Each shard has its votes at these nodes, each of which has some, and a leader."""

    def look():
        shards = [[g for g in walk.view(node)["groups"] if g["shard"]] for node in nodes]
        placed = all(g["leader"] and set(g["voters"]) <= set(nodes) and not g["learners"] for each in shards for g in each)
        return placed and all(any(node in g["voters"] for g in each) for node, each in zip(nodes, shards))

    walk.until(f"votes are at {nodes}", look)


PAGES = {"operations": operations, "upgrades": upgrades, "backup": backup, "explain": explain, "doctor": doctor}

