# SPDX-License-Identifier: Apache-2.0
"""bandwidth: limits what a container receives and sends."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("bandwidth", verbs=("add", "delete", "check", "gc", "status"))
