# SPDX-License-Identifier: Apache-2.0
"""A file of the runtime side's cache."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from libcni.cache import NetworkAttachment
from libcni.types.result import Result
from tests.fuzz import mutation, properties
from tests.fuzz.target import Target, examples


def run(data: bytes) -> None:
    """Decode it; what was understood is written and read again without loss."""
    attachment = properties.coded(NetworkAttachment.decode, data, "/var/lib/cni/results/x")
    if attachment is None:
        return
    again = NetworkAttachment.decode(attachment.encode(), "again")
    properties.equal(attachment, again, "a cached result")
    properties.coded(Result.from_json, attachment.result, "1.1.0")


def seeds() -> Iterator[bytes]:
    """A file for each example of a result."""
    for document in examples("result"):
        config = base64.b64encode(b'{"name": "net", "plugins": []}').decode()
        text = (
            '{"kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "net",'
            f' "config": "{config}", "netns": "/run/netns/a", "cniArgs": [["IP", "10.1.2.3"]],'
            ' "capabilityArgs": {"mac": "02:00:00:00:00:01"}, "result": '
        )
        yield text.encode() + document + b"}"
    yield json.dumps({"cniVersion": "0.4.0"}).encode()


TARGET = Target(run, seeds, mutation.of_json)
