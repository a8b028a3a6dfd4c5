# SPDX-License-Identifier: Apache-2.0
"""tuning: sysctls and link attributes of an interface that another plugin made."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("tuning", verbs=("add", "delete", "check", "gc", "status"))
