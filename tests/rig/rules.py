# SPDX-License-Identifier: Apache-2.0
"""All packet filters as the tools show them, to be compared as a whole."""

from __future__ import annotations

import re

from tests.rig import isolation

_COUNTERS = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+")


def rules(variant: str = "nft") -> str:
    """iptables-save, ip6tables-save and `nft list ruleset`, without counters and times of day.

    variant: of iptables, `nft` or `legacy`.
    """
    shown = [
        isolation.command(f"/usr/sbin/iptables-{variant}-save"),
        isolation.command(f"/usr/sbin/ip6tables-{variant}-save"),
        isolation.command("nft", "-s", "list", "ruleset"),
    ]
    lines = "\n".join(shown).splitlines()
    return "\n".join(_COUNTERS.sub("", line) for line in lines if not line.startswith("#"))
