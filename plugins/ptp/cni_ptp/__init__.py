# SPDX-License-Identifier: Apache-2.0
"""ptp: a veth pair from the container to the host, and routes between the two."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("ptp", verbs=("add", "delete", "check", "gc", "status"))
