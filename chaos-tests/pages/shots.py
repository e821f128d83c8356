"""Takes pictures of Prometheus while it watches three nodes under load of which one dies: `scripts/shots DIRECTORY`.

Needs what `walk.py` needs, Prometheus and Chromium. A picture that shows no data is an error: what is looked at is asked of
Prometheus first.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import walk as walking
import yaml
from walk import ROOT, Walk

PROMETHEUS = "http://10.0.0.254:9090"
# Debian's Prometheus has the pages of old only.
PAGES = f"{PROMETHEUS}/classic"
MACHINES = (1, 2, 3)
WATCHED_S = 60
ALERT_S = 180
PICTURE_S = 60
SIZE = "1400,1600"
# What is asked, and how the picture is called.
GRAPHS = {
    "messages": ["sum by (instance) (rate(moorline_messages_received_total[30s]))", "sum by (instance) (rate(moorline_messages_delivered_total[30s]))"],
    "acknowledgements": ["histogram_quantile(0.99, sum by (le) (rate(moorline_publish_ack_seconds_bucket[30s])))", "moorline_guarantee_survivable_nodes"],
    "raft": ['count_values by (instance) ("leader", moorline_raft_leader)', "sum by (instance) (rate(moorline_wal_fsync_seconds_count[30s]))"],
    "accounts": ["moorline_accounting_imbalance", "sum(moorline_messages_queued)"],
}


def config(folder):
    read = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    read["global"]["scrape_interval"] = "2s"
    read["global"]["scrape_timeout"] = "2s"
    read["global"]["evaluation_interval"] = "2s"
    # Pages show where they are: seen from here.
    shutil.copytree(ROOT / "deploy/prometheus/rules", folder / "rules")
    read["rule_files"] = ["rules/*.yml"]
    read["scrape_configs"][0]["static_configs"] = [{"targets": [f"10.0.0.{m}:9400" for m in MACHINES]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(read))
    return file


def ask(query):
    url = f"{PROMETHEUS}/api/v1/query?query={urllib.parse.quote(query)}"
    done = subprocess.run(["curl", "--silent", "--fail", "--max-time", "10", url], capture_output=True, text=True)
    return json.loads(done.stdout)["data"]["result"] if done.returncode == 0 else []


def graph(queries):
    # What is 0 all the time is no line: a table says it.
    parts = [f"g{n}.expr={urllib.parse.quote(q)}&g{n}.tab={int(q.endswith('imbalance'))}&g{n}.range_input=3m" for n, q in enumerate(queries)]
    return f"{PAGES}/graph?{'&'.join(parts)}"


def picture(url, file):
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}",
         "--virtual-time-budget=15000", f"--screenshot={file}", url],
        check=True, capture_output=True, timeout=PICTURE_S,
    )
    assert file.stat().st_size > 20_000, f"{file} is nearly empty"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    made = walking.enter()
    walk = Walk("metrics", walking.fresh(asked.work / "shots"))
    children = []
    try:
        walk.cluster(MACHINES)
        command = ["prometheus", f"--config.file={config(walk.work).name}", f"--storage.tsdb.path={walk.work}/tsdb", "--web.listen-address=10.0.0.254:9090"]
        log = open(walk.work / "prometheus.log", "wb")
        children.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=walk.work))
        children.append(subprocess.Popen(["moorline", "sub", "-H", "10.0.0.2", "-t", "load/#", "-i", "reader", "--durable"],
                                         executable=walk.program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        children.append(subprocess.Popen(["bash", "-c", f"while sleep 0.01; do echo x; done | {walk.program} pub -H 10.0.0.3 -t load/a"],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))
        walk.until("three targets are up", lambda: sum(float(r["value"][1]) for r in ask("up")) == len(MACHINES))
        began = time.monotonic()
        walk.until("a minute of load", lambda: time.monotonic() - began > WATCHED_S)
        picture(f"{PAGES}/targets", asked.folder / "targets.png")
        for name, queries in GRAPHS.items():
            for query in queries:
                assert ask(query), f"no data: {query}"
            picture(graph(queries), asked.folder / f"{name}.png")
        down = 'ALERTS{alertstate="firing", alertname="MoorlineNodeDown"}'
        assert not ask(down), "no node is down yet"
        walk.stop(1, signal.SIGKILL)
        walk.until("an alert fires", lambda: ask(down), within=ALERT_S)
        picture(f"{PAGES}/alerts", asked.folder / "alerts.png")
        picture(graph(GRAPHS["messages"]), asked.folder / "node-down.png")
    finally:
        for child in children:
            child.kill()
        walk.end()
        walking.leave(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
