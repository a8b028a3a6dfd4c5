# SPDX-License-Identifier: Apache-2.0
"""Debian's etcd for tests: one server on an address and ports of its own."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any


def free_port(address: str) -> int:
    """A port of the address that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


class EtcdServer:
    """An etcd. `start`, `stop` (its data stay), `put` and the like as an administrator."""

    def __init__(self, directory: pathlib.Path, address: str = "127.0.0.1", *options: str) -> None:
        self.directory = directory
        self.address = address
        self.options = options
        self.scheme = "https" if any("cert-file" in option for option in options) else "http"
        self.port, self.peer_port = free_port(address), free_port(address)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `--etcd-endpoints` gets."""
        return f"{self.scheme}://{self.address}:{self.port}"

    def start(self) -> EtcdServer:
        """Start it, and wait until it answers."""
        peer = f"http://{self.address}:{self.peer_port}"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["etcd", "--name", "n1", "--data-dir", self.directory / "data",
                 "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                 "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", f"n1={peer}", "--unsafe-no-fsync", *self.options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection((self.address, self.port), 1):
                    pass
                if self.scheme == "https" or self.call("maintenance/status", {}).get("leader"):
                    return self
            except OSError:
                pass
            assert time.monotonic() < deadline, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_data(self) -> None:
        """Of a server that is stopped: as if it had never run."""
        shutil.rmtree(self.directory / "data")

    def call(self, method: str, document: dict[str, Any], token: str = "") -> dict[str, Any]:
        """A request to the gateway. Raises OSError."""
        request = urllib.request.Request(
            f"{self.url}/v3/{method}",
            json.dumps(document).encode(),
            {"Authorization": token} if token else {},
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            found: dict[str, Any] = json.loads(response.readline())
        return found

    def put(self, key: str, value: str, ttl: int = 0) -> None:
        """etcdctl put, with a lease of `ttl` seconds if given."""
        document: dict[str, Any] = {"key": _b64(key), "value": _b64(value)}
        if ttl:
            document["lease"] = self.call("lease/grant", {"TTL": str(ttl)})["ID"]
        self.call("kv/put", document)

    def delete(self, key: str) -> None:
        """etcdctl del."""
        self.call("kv/deleterange", {"key": _b64(key)})

    def all(self, prefix: str) -> dict[str, str]:
        """etcdctl get --prefix: values by key, without the prefix."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self.call("kv/range", {"key": _b64(prefix), "range_end": _b64(end)})
        return {
            base64.b64decode(kv["key"]).decode().removeprefix(prefix): base64.b64decode(
                kv.get("value", "")
            ).decode()
            for kv in answer.get("kvs", ())
        }

    def revision(self) -> int:
        """The store's revision."""
        return int(self.call("kv/range", {"key": _b64("x")})["header"]["revision"])

    def compact(self) -> None:
        """Forget all earlier revisions."""
        self.call("kv/compaction", {"revision": str(self.revision()), "physical": True})


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def certificates(directory: pathlib.Path, names: Sequence[str] = ("127.0.0.1",)) -> None:
    """ca.pem, and server.pem and client.pem with their keys (.key), by openssl."""
    directory.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        openssl(
            "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        extensions = "subjectAltName=" + ",".join(f"IP:{address}" for address in names)
        (directory / "extensions").write_text(
            f"{extensions}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
                "-extfile", "extensions")  # fmt: skip
