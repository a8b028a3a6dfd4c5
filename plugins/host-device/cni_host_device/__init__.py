# SPDX-License-Identifier: Apache-2.0
"""host-device: a device of the host, moved into the container and back."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("host-device", verbs=("add", "delete", "check", "gc", "status"))
