# SPDX-License-Identifier: Apache-2.0
"""static: addresses that the configuration or the runtime names."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("static", verbs=("add", "delete", "check", "gc", "status"), enters_netns=False)
