# SPDX-License-Identifier: Apache-2.0
"""A node that starts: many containers at once."""

from __future__ import annotations

import collections
import concurrent.futures
import ipaddress
from collections.abc import Callable
from typing import Any

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, case
from cni_conformance.outcome import Outcome

#: Containers at a time.
CROWD = 64


@case(
    "many-at-once",
    "64 containers at once get addresses of their own, and leave nothing",
    section="SPEC 1.1.0, section 3, Lifecycle & Ordering",
    newest_only=True,
    seconds=300,
)
def many_at_once(bench: Bench) -> None:
    """Runtimes may call for different containers in parallel, the first time too, when what all
    of them share (a bridge, tables) is not there yet.
    """
    _crowd(bench)
    # What is shared may stay; so once more, with it there from the beginning.
    before = bench.state()
    _crowd(bench)
    bench.expect_unchanged(before, f"nothing left of {CROWD} containers on the host")


def _crowd(bench: Bench) -> None:
    pods = [_own(bench.attachment()) for _ in range(CROWD)]
    for outcome in _all(pods, lambda pod: pod.add(timeout=120)):
        outcome.expect_result(bench.version)
    _expect_unique(bench, pods)
    for outcome in _all(pods, lambda pod: pod.delete(timeout=120)):
        outcome.expect_silence()
    for pod in pods:
        if bench.profile.kind != "chained":
            pod.expect_inside_unchanged()
        pod.discard()


def _own(pod: Attachment) -> Attachment:
    """Host ports are for one container each."""
    mappings = pod.config.get("runtimeConfig", {}).get("portMappings")
    if mappings:
        runtime = {**pod.config["runtimeConfig"]}
        runtime["portMappings"] = [
            {**mapping, "hostPort": mapping["hostPort"] + pod.number} for mapping in mappings
        ]
        pod.config = {**pod.config, "runtimeConfig": runtime}
    return pod


def _all(pods: list[Attachment], work: Callable[[Attachment], Outcome]) -> list[Outcome]:
    with concurrent.futures.ThreadPoolExecutor(len(pods)) as pool:
        return list(pool.map(work, pods))


def _addresses(result: dict[str, Any] | None) -> list[str]:
    """Without prefix lengths, and without those that every host has."""
    found = [str(ip["address"]).partition("/")[0] for ip in (result or {}).get("ips", ())]
    return [address for address in found if not ipaddress.ip_address(address).is_loopback]


def _expect_unique(bench: Bench, pods: list[Attachment]) -> None:
    """No address twice, where the plugin gives addresses at all."""
    ipam = bench.profile.config.get("ipam", {}).get("type")
    if bench.profile.kind == "chained" or ipam == "static":
        return
    if pods[0].config.get("ipam", {}).get("type") == bench.recorder.type:
        return  # which gives everybody the same
    counted = collections.Counter(address for pod in pods for address in _addresses(pod.result))
    twice = sorted(address for address, times in counted.items() if times > 1)
    if twice:
        raise Finding(
            f"no address twice among {len(pods)} containers", f"{', '.join(twice)} twice"
        )
    if ipam and not counted:
        raise Finding(f"an address for each of {len(pods)} containers", "none")
