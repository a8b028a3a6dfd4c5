# SPDX-License-Identifier: Apache-2.0
"""A configuration list as an administrator writes it, read by the runtime side."""

from __future__ import annotations

from libcni.conf import network_conf_from_bytes, network_plugin_conf_from_bytes
from tests.fuzz import mutation, properties
from tests.fuzz.target import Target, examples


def run(data: bytes) -> None:
    """Read it as a list and as one plugin."""
    properties.coded(network_conf_from_bytes, data)
    properties.coded(network_plugin_conf_from_bytes, data)


TARGET = Target(run, lambda: examples("conflist", "bridge"), mutation.of_json)
