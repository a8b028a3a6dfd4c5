# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlay: pods of all nodes in one network, over VXLAN; delegates the attachment itself."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("vxlan-overlay", verbs=("add", "delete", "check", "gc", "status"))
