# SPDX-License-Identifier: Apache-2.0
"""host-local: addresses from ranges, remembered in files on this host."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("host-local", verbs=("add", "delete", "check", "gc", "status"), enters_netns=False)
