# SPDX-License-Identifier: Apache-2.0
"""firewall: lets a container's traffic through the host's firewall, and keeps bridges apart."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("firewall", verbs=("add", "delete", "check", "gc", "status"))
