# SPDX-License-Identifier: Apache-2.0
"""portmap: ports of the host that lead to ports of the container."""

from __future__ import annotations

from libcni.skel.plugin import Plugin

PLUGIN = Plugin("portmap", verbs=("add", "delete", "check", "gc", "status"))
