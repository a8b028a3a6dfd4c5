# SPDX-License-Identifier: Apache-2.0
"""Files that a plugin keeps from ADD to DEL: tuning's, the overlay's, and portmap's record."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cni_portmap import record
from cni_tuning import backup
from cni_vxlan_overlay import state
from tests.fuzz import mutation, properties
from tests.fuzz.target import Target


def run(data: bytes) -> None:
    """None of them may keep a DEL from cleaning up: what is damaged is as if it were absent."""
    fd = os.memfd_create("state")
    try:
        os.write(fd, data)
        path = f"/proc/self/fd/{fd}"
        noted = backup.load(path)
        properties.equal(isinstance(noted, dict), True, "tuning's file")
        for name in backup.sysctls_of(noted):
            properties.equal(name in noted["sysctl"], True, "tuning's sysctls")
        properties.equal(isinstance(backup.since(noted), int | float), True, "tuning's time")
        for values in backup.written_of(noted).values():
            properties.equal(isinstance(values, list), True, "tuning's values")
        properties.equal(isinstance(state.load(path), dict | None), True, "the overlay's file")
    finally:
        os.close(fd)
    found = record.unpack(data)
    if found is not None:
        for target in found.targets:
            target.text()
        properties.equal(found.pack(1 << 20) is None, False, "portmap's record")


def seeds() -> Iterator[bytes]:
    """One of each."""
    yield b'{"mac": "02:00:00:00:00:01", "mtu": 1500, "sysctl": {"net.core.somaxconn": "500"}}'
    yield (
        b'{"sysctl": {"core/somaxconn": "4096"}, "network": "net", "container": "c1", '
        b'"written": {"core/somaxconn": ["100", "200"]}, "since": 12.5}'
    )
    yield b'{"name": "net", "type": "bridge", "ipam": {"type": "host-local"}}'
    yield bytes.fromhex("01060050000105180a01020306400000000000000000000000000000000307")
    yield bytes.fromhex("0311003500020a010203")


TARGET = Target(run, seeds, mutation.of_json)
