"""Three nodes that stand where the platform stood: its names, its ports, and certificates for its names."""

import os
import shutil
import signal
import socket
import subprocess

from waiting import ready, wait_for

BROKER, API = "broker.losant.com", "api.losant.com"
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
ADMIN_PORT, CLUSTER_PORT = 9400, 7400
# Nodes start in seconds; a loaded machine takes longer.
READY_S = 90
STOP_S = 30


def is_private():
    """Whether the platform's names lead here, and nowhere else: such tests shall never ask the platform itself."""
    try:
        found = {address[4][0] for name in (BROKER, API) for address in socket.getaddrinfo(name, 443)}
    except OSError:
        return False
    return found == set(ADDRESSES)


def certificates(folder):
    """An authority, and a certificate of it for the platform's names: its file, and the authority's."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=tests")
    openssl("req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", f"/CN={BROKER}")
    (folder / "names").write_text(f"subjectAltName=DNS:{BROKER},DNS:{API}\nbasicConstraints=critical,CA:FALSE\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl("x509", "-req", "-in", "node.csr", *signed, "-out", "node.pem")
    return str(folder / "node.pem"), str(folder / "ca.pem")


class Node:
    """One of them."""

    def __init__(self, binary, folder, number, cert):
        self.binary, self.address = binary, ADDRESSES[number - 1]
        self.admin, self.log = f"{self.address}:{ADMIN_PORT}", folder / f"node{number}.log"
        self.config, self.process = folder / f"node{number}.toml", None
        peers = ", ".join(f'{{ id = {at + 1}, address = "{peer}:{CLUSTER_PORT}" }}' for at, peer in enumerate(ADDRESSES))
        self.config.write_text(
            f"""
            [node]
            id = {number}
            data-dir = "{folder}/data{number}"
            [listen]
            mqtt = "{self.address}:1883"
            mqtts = "{self.address}:8883"
            http = "{self.address}:80"
            https = "{self.address}:443"
            admin = "{self.admin}"
            cluster = "{self.address}:{CLUSTER_PORT}"
            [mqtt]
            unauthenticated-per-address-max = 0
            connects-per-client-s = 0
            connects-per-tenant-s = 0
            [tls]
            cert = "{cert}"
            key = "{folder}/node.key"
            [security]
            key-file = "{folder}/cluster.key"
            [cluster]
            shards = 3
            peers = [{peers}]
            """
        )

    def start(self):
        with open(self.log, "ab") as log:
            arguments = [self.binary, "server", "--config", self.config]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def ready(self):
        assert self.process.poll() is None, self.log.read_text()
        return ready(self)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Nodes:
    """All three."""

    def __init__(self, folder):
        binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
        assert binary, "MOORLINE_BINARY does not say which program to test"
        cert, self.ca = certificates(folder)
        (folder / "cluster.key").write_text("5a" * 32)
        (folder / "cluster.key").chmod(0o600)
        self.all = [Node(binary, folder, number, cert) for number in (1, 2, 3)]
        for node in self.all:
            node.start()
        self.admin = self.all[0].admin

        def started():
            init = [binary, "cluster", "init", "--admin", self.admin]
            subprocess.run(init, capture_output=True, check=False)
            return all(node.ready() for node in self.all)

        wait_for("no cluster is ready", started, READY_S)

    def at(self, address):
        """The node that has an address."""
        return next(node for node in self.all if node.address == address)

    def stop(self):
        for node in self.all:
            node.process.terminate()
        for node in self.all:
            node.process.wait(STOP_S)
