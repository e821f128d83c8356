"""Alerts, their sections in the runbook and their tests belong together.

No node is needed here. What alerts name, `test_watch.py` looks for; their tests are run by promtool (`scripts/verify deploy`).
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules"
TESTS = ROOT / "deploy/prometheus/tests"
RUNBOOK = ROOT / "docs/runbook.md"

SEVERITIES = {"critical", "warning"}
# What a section of the runbook answers, in this order.
QUESTIONS = ["What it means", "What clients feel", "What to look at", "What to do", "When it is over"]


def groups(folder=RULES):
    return [group for path in sorted(folder.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]


def alerts():
    """Every alert that we ship."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def sections(runbook):
    """The runbook's sections by their headings."""
    parts = re.split(r"^## (.*)$", runbook, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def runbook_complaints(names, runbook):
    """Alerts without a section, sections without an alert, and those that leave a question open."""
    found = sections(runbook)
    wrong = [f"{name} has no section" for name in names if name not in found]
    wrong += [f"{name} is no alert" for name in found if name not in names]
    for name, text in found.items():
        asked = re.findall(r"^\*\*(.*?)(?:\*\* \(|\.\*\*)", text, re.MULTILINE)
        if asked != QUESTIONS:
            wrong.append(f"{name} answers {asked}")
    links = set(re.findall(r"\]\(#([a-z0-9]+)\)", runbook))
    return wrong + [f"nothing is at #{link}" for link in links if link not in {name.lower() for name in found}]


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert():
    assert runbook_complaints([alert["alert"] for alert in alerts()], RUNBOOK.read_text()) == []


def test_a_gap_between_alerts_and_runbook_is_seen():
    def section(name, questions=QUESTIONS):
        first, *others = questions
        return f"\n## {name}\n\n**{first}** (warning). …\n" + "".join(f"\n**{question}.** …\n" for question in others)

    assert runbook_complaints(["A", "B"], section("A") + section("B")) == []
    assert runbook_complaints(["A", "B"], section("A")) == ["B has no section"]
    assert runbook_complaints(["A"], section("A") + section("B")) == ["B is no alert"]
    assert runbook_complaints(["A"], section("A", QUESTIONS[:-1])) == [f"A answers {QUESTIONS[:-1]}"]
    assert runbook_complaints(["A"], section("A") + "[b](#b)") == ["nothing is at #b"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_what_was_measured_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in SEVERITIES
    notes = alert["annotations"]
    assert notes["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert notes["summary"] and "{{" not in notes["summary"], "a summary is the same each time"
    assert "$value" in notes["description"]
    text = sections(RUNBOOK.read_text())[alert["alert"]]
    assert f"**What it means** ({alert['labels']['severity']})." in text


def expectations():
    """For each alert what its tests expect: that it fires (`True`), that it does not."""
    expected = {}
    for path in TESTS.glob("*.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    return expected


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not():
    assert expectations() == {alert["alert"]: {True, False} for alert in alerts()}


def test_names_are_there_once_and_a_record_is_named_after_what_it_is_of():
    rules = [rule for group in groups() for rule in group["rules"]]
    names = [rule.get("alert") or rule["record"] for rule in rules]
    assert len(names) == len(set(names))
    for record in (rule["record"] for rule in rules if "record" in rule):
        assert re.fullmatch(r"[a-z_]+:moorline_[a-z_]+:[a-z0-9_]+", record), record
