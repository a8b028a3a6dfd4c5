# SPDX-License-Identifier: Apache-2.0
"""A container and the calls for its attachment, of any plugin that makes an interface."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Callable
from typing import Any, Self

from tests.rig.host import Host, Netns
from tests.rig.plugins import GO_BIN_DIR, Runner


def changed(base: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A copy of `base` with other values; None removes a key."""
    document = copy.deepcopy(base)
    for key, value in keys.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
    return document


class Pod:
    """A container with an attachment `eth0`, not yet attached."""

    def __init__(self, run: Runner, netns: Netns, name: str, config: dict[str, Any]) -> None:
        self.run, self.netns, self.name, self.config = run, netns, name, config
        self.result: dict[str, Any] = {}

    def call(self, verb: str, config: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run the plugin for it."""
        options = {"netns": self.netns, "container_id": self.name, **options}
        return self.run(self.config["type"], verb, config or self.config, **options)

    def add(self, **options: Any) -> Self:
        """ADD has to succeed."""
        self.result = self.call("ADD", **options).result()
        return self

    @property
    def known(self) -> dict[str, Any]:
        """The configuration with the result as prevResult."""
        return {**self.config, "prevResult": self.result}

    @property
    def veth(self) -> str:
        """Name of the host's end, where there is one."""
        return str(self.result["interfaces"][0]["name"])

    def link(self) -> dict[str, Any]:
        """What `ip -d link` says of the interface."""
        found: dict[str, Any] = self.netns.ip("-d", "link", "show", "eth0")[0]
        return found

    def addresses(self) -> list[str]:
        """Without prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]


def reserved(network: str = "podnet") -> set[str]:
    """The addresses that host-local has given out."""
    directory = pathlib.Path("/var/lib/cni/networks") / network
    if not directory.is_dir():
        return set()
    return {p.name for p in directory.iterdir() if p.name[0].isdigit() or ":" in p.name}


def tuned_by_go(host: Host, pod: Pod, mac: str) -> dict[str, Any]:
    """Go's tuning gives the interface another MAC address, and ours takes it away again.

    Returns the result of the whole ADD, which the DEL of the plugin before gets.
    """
    tuning = {
        "cniVersion": pod.config["cniVersion"],
        "name": pod.config["name"],
        "type": "tuning",
        "mac": mac,
    }
    options: dict[str, Any] = {"netns": pod.netns, "container_id": pod.name}
    go: dict[str, Any] = {"bin_dir": GO_BIN_DIR, "path": GO_BIN_DIR}
    config = {**tuning, "prevResult": pod.result}
    result: dict[str, Any] = pod.run("tuning", "ADD", config, **options, **go).result()
    assert pod.link()["address"] == mac == result["interfaces"][-1]["mac"]
    pod.run("tuning", "DEL", {**tuning, "prevResult": result}, **options).succeeded()
    assert pod.link()["address"] != mac
    host.keep_files("/run/cni")
    return result


def pod_factory(host: Host, run: Runner, config: dict[str, Any]) -> Callable[..., Pod]:
    """make(config=config) -> Pod, each in a namespace of its own: pod-0, pod-1, ..."""
    made: list[Pod] = []

    def make(config: dict[str, Any] = config) -> Pod:
        made.append(Pod(run, host.netns(), f"pod-{len(made)}", config))
        return made[-1]

    return make
