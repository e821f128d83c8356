"""How each page of docs/ is followed."""

import re
import signal


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
    walk.tell("## Move a leader by hand")
    walk.run("moorline cluster transfer --group 2 --to 3", on=2, also=[("--to 3", "--to 5")])
    walk.tell("What was published in the beginning waits for who subscribed in the beginning:")
    heard = walk.also("moorline sub -H 10.0.0.5 -t 'demo/#' -i reader --durable -n 1", on=5)
    assert "before" in heard, heard


def line(text, begin):
    return next((each for each in text.splitlines() if each.strip().startswith(begin)), "")


def settled(walk, nodes):
    """Each shard has its votes at these nodes, each of which has some, and a leader."""

    def look():
        shards = [[g for g in walk.view(node)["groups"] if g["shard"]] for node in nodes]
        placed = all(g["leader"] and set(g["voters"]) <= set(nodes) and not g["learners"] for each in shards for g in each)
        return placed and all(any(node in g["voters"] for g in each) for node, each in zip(nodes, shards))

    walk.until(f"votes are at {nodes}", look)


PAGES = {"operations": operations}

