# SPDX-License-Identifier: Apache-2.0
"""One variant of iptables as the system's."""

from __future__ import annotations

import pathlib


def path_with(variant: str, directory: pathlib.Path) -> str:
    """A PATH by which iptables and ip6tables are of the variant, "nft" or "legacy".

    Their tools are made in `directory`, which is there.
    """
    for family in ("iptables", "ip6tables"):
        for tool in ("", "-save", "-restore"):
            (directory / f"{family}{tool}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")
    return f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"
