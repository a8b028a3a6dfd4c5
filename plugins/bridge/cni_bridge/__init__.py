# SPDX-License-Identifier: Apache-2.0
"""bridge: attach a container to a Linux bridge by a veth pair."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("bridge", verbs=("add", "delete", "check", "gc", "status"))
