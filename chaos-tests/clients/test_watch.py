"""Rules and dashboards name what there is: metrics, labels and their values, as a real Prometheus scrapes them from three nodes.

A name that is misspelled, or that a later version does not serve any more, gives no error anywhere but an empty panel, and an
alert that never fires. What is looked for is every selector of every expression, with the values that it names. The commands that
the runbook says are asked for, too.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import DEPLOY
from connection import traffic
from test_rules import RUNBOOK, groups
from waiting import wait_for

DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
SCRAPED_S = 60
# What Prometheus makes itself, and only while an alert fires.
SOMETIMES = {"ALERTS"}
# Alerts that the machine of the tests may be to blame for.
OF_THE_MACHINE = {"MoorlineDiskRefusesMessages"}

STRING = r'"(?:[^"\\]|\\.)*"'
SELECTOR = re.compile(rf"{STRING}|([a-zA-Z_:][\w:]*)\s*(\{{(?:[^{{}}\"]|{STRING})*\}})?(\s*\()?")
MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({STRING})")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
# What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "1m", '"$job"': '"moorline"', '"$instance"': '".*"'}


def selectors(expr):
    """Each metric that an expression selects, with its matchers: (name, [(label, operator, value)])."""
    plain = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", GROUPING.sub(" ", expr))
    found = []
    for name, matchers, call in SELECTOR.findall(plain):
        if name and not call and name.lower() not in WORDS:
            found.append((name, [(label, how, json.loads(value)) for label, how, value in MATCHER.findall(matchers)]))
    return found


def wanted(expr):
    """Selectors that must find something, each value that an expression names by itself."""
    for name, matchers in selectors(expr):
        yield name
        for label, how, value in matchers:
            is_list = how in ("=~", "!~") and re.fullmatch(r"[\w-]+(\|[\w-]+)*", value)
            for one in value.split("|") if is_list else [value]:
                yield f"{name}{{{label}{'=' if is_list else how.replace('!', '=').replace('==', '=')}{json.dumps(one)}}}"


def missing(prometheus, exprs):
    """What expressions select and nobody serves."""
    asked = {selector for expr in exprs for selector in wanted(expr)}
    asked = {selector for selector in asked if selector.partition("{")[0] not in SOMETIMES}
    return {selector for selector in asked if not (prometheus("/api/v1/query", query=f"count({selector})") or {}).get("result")}


def expand(expr):
    """An expression of a dashboard, as Grafana sends it."""
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


def panels(path):
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def targets():
    """(dashboard, panel, legend, expression) of every query."""
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["legendFormat"], expand(target["expr"])


def rules():
    return [rule for group in groups() for rule in group["rules"]]


@pytest.fixture
def scraped(cluster, prometheus, topic):
    """Prometheus, when it has scraped what there is."""
    traffic(cluster, topic)

    def is_there():
        found = prometheus("/api/v1/query", query="count by (job) (moorline_connections_closed_total)")
        return found and found["result"]

    wait_for("nothing is scraped", is_there, SCRAPED_S)
    return prometheus


@pytest.mark.needs("prometheus")
def test_whatever_rules_and_dashboards_select_is_served_by_a_running_node(scraped):
    exprs = [rule["expr"] for rule in rules()] + [expr for *_, expr in targets()]
    assert len(exprs) > len(rules()), "there are dashboards"
    try:
        wait_for("selected and not served", lambda: not missing(scraped, exprs), SCRAPED_S / 2)
    except AssertionError as error:
        raise AssertionError(f"selected, and served by nobody: {sorted(missing(scraped, exprs))}") from error


@pytest.mark.needs("prometheus")
def test_a_misspelled_metric_label_or_value_is_seen(scraped):
    planted = {
        "sum(rate(moorline_mesages_received_total[5m]))": "moorline_mesages_received_total",
        'moorline_messages_dropped_total{reason="queue_full"} > 1': 'moorline_messages_dropped_total{reason="queue_full"}',
        'moorline_sessions{stat!="away"}': 'moorline_sessions{stat="away"}',
        'moorline_router_outcomes_total{outcome=~"busy|unanswerd"}': 'moorline_router_outcomes_total{outcome="unanswerd"}',
        "job:moorline_nodes_ready:summ == 0": "job:moorline_nodes_ready:summ",
    }
    assert missing(scraped, planted) == set(planted.values())


def test_selectors_are_found_wherever_they_stand():
    table = {
        "up": ["up"],
        'sum by (job, reason) (rate(a_total{x="(b)"}[5m])) > 1': ["a_total"],
        "a - on (job, shard) group_right () b offset 1h": ["a", "b"],
        'count_values by (job) ("node", max by (job) (c{d=~"$e"}))': ["c"],
        "(a:b:c > 0) - time() < 14 * 86400": ["a:b:c"],
        "count(d == 0) or vector(0) unless on (job) e": ["d", "e"],
    }
    for expr, names in table.items():
        assert [name for name, _ in selectors(expr)] == names, expr


@pytest.mark.needs("prometheus")
def test_every_query_of_a_dashboard_is_understood_and_has_the_labels_of_its_legend(scraped):
    wrong = []
    for dashboard, panel, legend, expr in targets():
        answer = scraped("/api/v1/query", query=expr)
        for row in answer["result"]:
            absent = [label for label in re.findall(r"{{(\w+)}}", legend) if label not in row["metric"]]
            wrong += [f"{dashboard}, {panel}: no {label} in {row['metric']}" for label in absent]
    assert wrong == []


@pytest.mark.needs("prometheus")
def test_every_rule_is_evaluated_and_a_healthy_cluster_wakes_nobody(scraped):
    def answered():
        found = scraped("/api/v1/rules")["groups"]
        flat = [rule for group in found for rule in group["rules"]]
        return flat if all(rule["health"] != "unknown" for rule in flat) else None

    evaluated = wait_for("not every rule is evaluated", answered, SCRAPED_S)
    assert len(evaluated) == len(rules())
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []

    def awake():
        active = scraped("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in active if alert["labels"]["severity"] == "critical"} - OF_THE_MACHINE

    wait_for(f"somebody is woken: {awake()}", lambda: not awake(), SCRAPED_S / 2)


def test_the_dashboards_are_what_their_script_writes(tmp_path):
    subprocess.run([sys.executable, "-B", DEPLOY / "grafana/make.py", tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    shipped = {path.name: path.read_text() for path in DASHBOARDS}
    assert written.keys() == shipped.keys()
    changed = [name for name in written if written[name] != shipped[name]]
    assert changed == [], "run deploy/grafana/make.py"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_panel_says_what_it_shows_and_stands_where_no_other_does(path):
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == f"moorline-{path.stem}"
    assert {"datasource", "job", "instance"} == {variable["name"] for variable in dashboard["templating"]["list"]}
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        columns, lines = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in columns for y in lines}
        assert not cells & taken and max(columns) < 24, panel["title"]
        taken |= cells
    for panel in panels(path):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["targets"], panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def commands():
    """Every `moorline …` that the runbook says, as far as its verbs go."""
    text = RUNBOOK.read_text()
    shown = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]*)`", text)
    return sorted(set(re.findall(r"\bmoorline((?: [a-z]+)+)", "\n".join(shown))))


def test_the_runbook_says_commands_that_there_are():
    binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
    found = commands()
    assert found
    for said in found:
        ran = subprocess.run([binary, *said.split(), "--help"], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"moorline{said}: {ran.stderr}"
