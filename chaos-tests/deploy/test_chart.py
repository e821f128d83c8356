"""The Helm chart, rendered by Helm's own library: Kubernetes' schemas take it, and real nodes run with the files it writes."""

import json
import re
import ssl
import subprocess
import urllib.request

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from conftest import ROOT, wait_for

CHART = ROOT / "deploy/helm/moorline"
# The oldest that the chart takes, and the newest that there is a schema for.
VERSIONS = ["1.30.0", "1.37.0"]
# Loopback addresses of this test's own, one per pod.
HOST = "127.0.84.{}"
READY_S = 60
STOP_S = 20

NOTHING = {}
EVERYTHING = {
    "replicas": 5,
    "cluster": {"name": "acme", "tls": {"secret": "nodes", "domain": "acme"}},
    "nodes": {"1": {"id": 9, "token": "aa"}, "3": {"token": "4c0f"}, "4": {"id": 12}},
    "admin": {"podNetwork": True},
    "listeners": {"mqtts": {"port": 8883}, "https": {"port": 8443, "service": 443}, "moonlights": {"port": 8884}},
    "tls": {"secret": "front"},
    "security": {"keySecret": "key"},
    "config": "[log]\nlevel = \"info\"\n",
    "service": {"type": "LoadBalancer", "annotations": {"a/b": "c"}, "loadBalancerClass": "acme.example/lb"},
    "storage": {"class": "fast", "size": "1Ti"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True, "labels": {"grafana": "iot"}},
    "imagePullSecrets": [{"name": "pull"}],
    "podAnnotations": {"a/b": "c"},
    "podLabels": {"team": "iot"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "iot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}


def render(values, name="moorline"):
    """Every object of the release, by kind and name; and the notes."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace="iot", is_install=True)
    notes = files.pop("moorline/templates/NOTES.txt")
    found = [thing for text in files.values() for thing in yaml.safe_load_all(text) if thing]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in found}, notes


@pytest.mark.parametrize("values", [NOTHING, EVERYTHING, {"networkPolicy": {"enabled": False}, "preStopSeconds": 0}])
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_the_chart_renders(values, version):
    objects, _ = render(values)
    kinds = {kind for kind, _ in objects}
    assert {"Secret", "Service", "StatefulSet", "PodDisruptionBudget"} <= kinds
    for (kind, _), thing in objects.items():
        if thing["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # the operator's own: Kubernetes has no schema for it
        kubernetes_validate.validate(thing, version, strict=True)


def test_helm_finds_nothing_to_complain_about():
    found = helm.lint(CHART, strict=True)
    assert not found["errors"]
    assert {message["error"] for message in found["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize(
    "values, why",
    [
        ({"replica": 3}, "replica"),
        ({"replicas": 2}, "founders"),
        ({"nodes": {"3": {"token": "4c0f"}}, "replicas": 4}, "podNetwork"),
        ({"nodes": {"three": {"id": 4}}}, "three"),
        ({"listeners": {"amqp": {"port": 5672}}}, "amqp"),
        ({"listeners": {"https": {"port": 443}}}, "/listeners/https/port"),
        ({"cluster": {"copies": 2}}, "copies"),
        ({"preStopSeconds": -1}, "preStopSeconds"),
    ],
)
def test_wrong_values_are_refused_with_their_name(values, why):
    with pytest.raises(helm.HelmError) as refused:
        render(values)
    assert why in str(refused.value)


def test_a_pod_that_comes_restarts_no_other():
    def template(values):
        objects, _ = render(values)
        return objects["StatefulSet", "moorline"]["spec"]["template"]

    open_admin = {"admin": {"podNetwork": True}}
    assert template(open_admin) == template(
        {**open_admin, "replicas": 5, "nodes": {"3": {"token": "4c0f"}, "4": {"token": "77aa"}}}
    )
    assert template(open_admin) != template({**open_admin, "config": "[log]\nlevel = \"debug\"\n"})


def test_what_is_open_to_anybody_is_said():
    _, notes = render(NOTHING)
    assert "ANYBODY" in notes and "development CA" in notes
    _, notes = render(EVERYTHING)
    assert notes.count("WARNING") == notes.count("WARNING: admin.podNetwork") == 1
    assert "cluster init" in notes
    _, notes = render({key: EVERYTHING[key] for key in ("cluster", "tls", "security", "listeners")})
    assert "WARNING" not in notes
    _, notes = render({"networkPolicy": {"enabled": False}})
    assert "7400" in notes


def test_alerts_and_dashboards_come_along():
    objects, _ = render(EVERYTHING)
    for folder, kind, end in [("prometheus/rules", "PrometheusRule", ".yml"), ("grafana/dashboards", "ConfigMap", ".json")]:
        shipped = {path.name.removesuffix(end) for path in (ROOT / "deploy" / folder).glob(f"*{end}")}
        assert {name.removeprefix("moorline-") for found, name in objects if found == kind} == shipped
    for (kind, _), thing in objects.items():
        if kind == "PrometheusRule":
            assert thing["spec"]["groups"], thing
        if kind == "ConfigMap":
            assert all(json.loads(text)["panels"] for text in thing["data"].values())


def test_probes_and_ports_lead_somewhere():
    for values in [NOTHING, EVERYTHING]:
        objects, _ = render(values)
        stateful = objects["StatefulSet", "moorline"]["spec"]
        container = stateful["template"]["spec"]["containers"][0]
        ports = {port["name"] for port in container["ports"]}
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
            # Nothing that a stranger can reach, so that nobody is in the way.
            command = container[probe]["exec"]["command"]
            assert command[:3] == ["/usr/bin/moorline", "cluster", "health"]
            assert command[3] == ("ready" if probe == "readinessProbe" else "live")
        labels = stateful["template"]["metadata"]["labels"]
        services = [thing for (kind, _), thing in objects.items() if kind == "Service"]
        for service in services:
            assert service["spec"]["selector"].items() <= labels.items()
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert stateful["serviceName"] in {service["metadata"]["name"] for service in services}
        # Room to wait, hand over (3 s), let clients end (8 s) and write out.
        wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert stateful["template"]["spec"]["terminationGracePeriodSeconds"] >= wait + 20


class Pods:
    """Nodes that run with the rendered files; of those, only names, addresses and the volume are other ones."""

    def __init__(self, moorline, folder):
        self.moorline, self.folder, self.running = moorline, folder, {}

    def write(self, values, mounts=()):
        """The files of all pods; `mounts` are folders in place of those that Secrets would be."""
        objects, _ = render(values)
        files = objects["Secret", "moorline-config"]["stringData"]
        for name, text in files.items():
            pod = int(re.fullmatch(r"moorline-(\d+)\.toml", name)[1])
            text = re.sub(
                r"moorline-(\d+)\.moorline-nodes\.iot\.svc\.cluster\.local", lambda found: HOST.format(int(found[1]) + 1), text
            )
            text = text.replace("0.0.0.0", HOST.format(pod + 1)).replace("127.0.0.1", HOST.format(pod + 1))
            for there, here in mounts:
                text = text.replace(there, str(here))
            volume = self.folder / f"volume{pod}"
            volume.mkdir(exist_ok=True)
            (self.folder / name).write_text(text.replace("/var/lib/moorline", str(volume)))
        return [int(name.split("-")[1].split(".")[0]) for name in files]

    def start(self, pod):
        config = self.folder / f"moorline-{pod}.toml"
        subprocess.run([self.moorline, "config", "check", config], check=True)
        with open(self.folder / f"moorline-{pod}.log", "ab") as log:
            self.running[pod] = subprocess.Popen([self.moorline, "server", "--config", config], stdout=log, stderr=log)

    def stop(self, pod):
        process = self.running.pop(pod)
        process.terminate()
        return process.wait(STOP_S)

    def run(self, pod, *command):
        """`moorline COMMAND` on a pod."""
        environment = {"MOORLINE_ADMIN": f"{HOST.format(pod + 1)}:9400"}
        done = subprocess.run([self.moorline, *command], env=environment, capture_output=True, text=True, timeout=READY_S)
        return done.returncode, done.stdout

    def wait_ready(self, pod):
        def look():
            assert self.running[pod].poll() is None, (self.folder / f"moorline-{pod}.log").read_text()[-4000:]
            code, said = self.run(pod, "cluster", "status")
            return code == 0 and "ready\n" in said and "not ready" not in said

        wait_for(f"pod {pod} is ready", look, READY_S)


@pytest.fixture
def pods(moorline, tmp_path):
    pods = Pods(moorline, tmp_path)
    yield pods
    for process in pods.running.values():
        process.kill()
        process.wait()


def test_nodes_found_a_cluster_a_fourth_joins_and_a_lost_volume_is_replaced(pods):
    small = "[storage]\nlow-mib = 64\ncritical-mib = 32\n"
    values = {"cluster": {"shards": 3}, "admin": {"podNetwork": True}, "config": small}
    for pod in pods.write(values):
        pods.start(pod)
    wait_for("the nodes answer", lambda: all(pods.run(pod, "cluster", "status")[0] == 0 for pod in range(3)), READY_S)
    assert pods.run(0, "cluster", "init")[0] == 0
    for pod in range(3):
        pods.wait_ready(pod)

    # One more, with a token.
    code, token = pods.run(1, "cluster", "token")
    assert code == 0
    values |= {"replicas": 4, "nodes": {"3": {"token": token.split()[-1]}}}
    pods.write(values)
    pods.start(3)
    pods.wait_ready(3)

    # Its token is gone from the values: it starts again without one.
    values["nodes"] = {}
    pods.write(values)
    assert pods.stop(3) == 0
    pods.start(3)
    pods.wait_ready(3)

    # Pod 1 loses its volume. With its old id it would be refused; with a new one it takes its place.
    pods.stop(1)
    code, token = pods.run(0, "cluster", "token")
    assert code == 0
    values["nodes"] = {"1": {"id": 5, "token": token.split()[-1]}}
    pods.write(values)
    pods.start(1)
    pods.wait_ready(1)
    assert pods.run(0, "cluster", "remove", "2")[0] == 0

    # The others' new files name founders that are left; they take them at their next start.
    for pod in [0, 2]:
        assert pods.stop(pod) == 0
        pods.start(pod)
        pods.wait_ready(pod)
    code, members = pods.run(0, "cluster", "members")
    assert code == 0
    states = dict(re.findall(r"node (\d+) .*?(active|removed)", members))
    assert states == {"1": "active", "2": "removed", "3": "active", "4": "active", "5": "active"}, members


def test_nodes_with_certificates_and_a_key_of_their_own(pods, moorline, tmp_path):
    secrets = tmp_path / "secrets"

    def issue(*arguments):
        subprocess.run([moorline, "ca", *arguments, "--dir", secrets], check=True, capture_output=True)

    # As the page on Kubernetes says, and as cert-manager names its files.
    issue("init")
    for node in ["1", "2", "3"]:
        issue("issue", "moorline", "--node", node)
    issue("issue", "front", "--san", HOST.format(1))
    (secrets / "front.pem").rename(secrets / "tls.crt")
    (secrets / "front.key").rename(secrets / "tls.key")
    (secrets / "cluster.key").write_text("5a" * 32 + "\n")
    values = {
        "cluster": {"shards": 3, "tls": {"secret": "nodes"}},
        "tls": {"secret": "front"},
        "security": {"keySecret": "key"},
        "listeners": {"mqtts": {"port": 8883}, "https": {"port": 8443}, "moonlights": {"port": 8884}},
        "config": "[storage]\nlow-mib = 64\ncritical-mib = 32\n",
    }
    mounts = [(f"/etc/moorline-{name}/", f"{secrets}/") for name in ["cluster-tls", "tls", "key"]]
    for pod in pods.write(values, mounts):
        pods.start(pod)
    wait_for("the nodes answer", lambda: all(pods.run(pod, "cluster", "status")[0] == 0 for pod in range(3)), READY_S)
    assert pods.run(0, "cluster", "init")[0] == 0
    for pod in range(3):
        pods.wait_ready(pod)

    # What the probes ask, and the same by the certificate that the Secret has.
    for pod in range(3):
        for check in ["live", "ready"]:
            assert pods.run(pod, "cluster", "health", check)[0] == 0
    trust = ssl.create_default_context(cafile=secrets / "ca.pem")
    for path in ["/livez", "/readyz"]:
        with urllib.request.urlopen(f"https://{HOST.format(1)}:9443{path}", context=trust, timeout=STOP_S) as answer:
            assert answer.status == 200
    for pod in range(3):
        assert pods.stop(pod) == 0
