# SPDX-License-Identifier: Apache-2.0
"""tap: an interface in the container whose other end is a program there."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("tap", verbs=("add", "delete", "check", "gc", "status"))
