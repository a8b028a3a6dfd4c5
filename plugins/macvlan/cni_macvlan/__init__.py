# SPDX-License-Identifier: Apache-2.0
"""macvlan: an interface of the container's own on top of one of the host's."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("macvlan", verbs=("add", "delete", "check", "gc", "status"))
