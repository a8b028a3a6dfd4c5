# SPDX-License-Identifier: Apache-2.0
"""Calling host-local in this process, and the Go plugin as a program, on one directory."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

from cni_host_local.add import add
from cni_host_local.check import check
from cni_host_local.delete import release
from cni_host_local.gc import gc
from cni_host_local.status import status
from libcni.attachment import Attachment
from libcni.skel.request import Request

GO = pathlib.Path("/usr/lib/cni/host-local")

Ranges = list[list[dict[str, str]]]


class Ipam:
    """A network with its store; each verb for an owner named (container, ifname)."""

    def __init__(
        self,
        directory: pathlib.Path,
        ranges: Ranges | str = "10.1.2.0/24",
        network: str = "net",
        **ipam: Any,
    ) -> None:
        if isinstance(ranges, str):
            ranges = [[{"subnet": ranges}]]
        self.network = network
        self.store = directory / network
        self.config: dict[str, Any] = {
            "cniVersion": "1.1.0",
            "name": network,
            "type": "bridge",
            "ipam": {
                "type": "host-local",
                "dataDir": str(directory),
                "ranges": ranges,
                **ipam,
            },
        }
        self.netns = ""

    def request(
        self,
        command: str,
        container: str = "",
        ifname: str = "eth0",
        args: str = "",
        version: str = "1.1.0",
        **extra: Any,
    ) -> Request:
        """A request as `libcni.skel` makes it."""
        return Request(
            command,
            "host-local",
            {**self.config, "cniVersion": version, **extra},
            version,
            Attachment(self.network, container, ifname),
            netns_path=self.netns,
            args=args,
        )

    def add(self, container: str, ifname: str = "eth0", **extra: Any) -> list[str]:
        """ADD; the addresses with their prefix lengths."""
        return [ip.address for ip in add(self.request("ADD", container, ifname, **extra)).ips]

    def delete(self, container: str, ifname: str = "eth0", **extra: Any) -> list[str]:
        """DEL; the addresses released."""
        return release(self.request("DEL", container, ifname, **extra))

    def check(self, container: str, ifname: str = "eth0", *addresses: str) -> None:
        """CHECK, with a prevResult of these addresses if there are any."""
        extra: dict[str, Any] = {}
        if addresses:
            ips = [{"address": address} for address in addresses]
            extra["prevResult"] = {"cniVersion": "1.1.0", "ips": ips}
        check(self.request("CHECK", container, ifname, **extra))

    def gc(self, *valid: tuple[str, str], key: str = "cni.dev/valid-attachments") -> None:
        """GC that keeps `valid`."""
        entries = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
        extra: dict[str, Any] = {key: entries}
        gc(self.request("GC", **extra))

    def status(self) -> None:
        """STATUS."""
        status(self.request("STATUS"))

    def reservations(self) -> dict[str, bytes]:
        """Address → content of its file."""
        if not self.store.exists():
            return {}
        return {
            file.name: file.read_bytes()
            for file in self.store.iterdir()
            if file.is_file() and file.name != "lock" and not file.name.startswith("last_")
        }

    def go(
        self, command: str, container: str, ifname: str = "eth0"
    ) -> subprocess.CompletedProcess[str]:
        """The Go plugin on the same directory."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/nowhere",
            "CNI_PATH": str(GO.parent),
        }
        config = json.dumps({**self.config, "cniVersion": "1.0.0"})
        return subprocess.run(
            [GO], env=environment, input=config, capture_output=True, text=True, timeout=60
        )

    def go_add(self, container: str, ifname: str = "eth0") -> list[str]:
        """The Go plugin's ADD, which has to succeed."""
        done = self.go("ADD", container, ifname)
        assert done.returncode == 0, done.stdout
        return [ip["address"] for ip in json.loads(done.stdout)["ips"]]
