# SPDX-License-Identifier: Apache-2.0
"""Which tables iptables-legacy has here, where it is not the front end of nftables.

Apart from `libcni.iptables`, as a DEL that finds none needs nothing of that.
"""

from __future__ import annotations

from libcni.fs import read_file

#: Names the tables of this network namespace, one a line; by IP version.
_LISTS = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


def legacy_versions(table: str) -> list[int]:
    """The IP versions (4, 6) for which iptables-legacy has a table of this name."""
    versions = []
    for version, path in _LISTS.items():
        try:
            if table.encode() in read_file(path).split(b"\n"):
                versions.append(version)
        except OSError:
            continue  # that kernel module is not loaded
    return versions
