# SPDX-License-Identifier: Apache-2.0
"""sbr: what is sent from an interface's address goes out through that interface."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("sbr", verbs=("add", "delete", "check", "gc", "status"))
