# SPDX-License-Identifier: Apache-2.0
"""loopback: brings the container's `lo` up, which runtimes ask for in every sandbox."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("loopback", verbs=("add", "delete", "check"))
