# SPDX-License-Identifier: Apache-2.0
"""Plugins that find themselves on a kernel without nf_tables.

They ask nfnetlink for a part of it that no kernel has, and are answered as by one that lacks this
one: EINVAL, to a commit EOPNOTSUPP (net/netfilter/nfnetlink.c).
"""

from __future__ import annotations

import pathlib

from tools import source_launchers

_LOADS = "from libcni import boot\n"
_ASKS = """\
from libcni.nftables import transaction
transaction._GET_GENERATION += (200 << 8) - transaction.NFTABLES
transaction.NFTABLES = 200 << 8
"""


def make(directory: pathlib.Path) -> pathlib.Path:
    """A directory with launchers of all plugins that behave so."""
    source_launchers.make(directory)
    program = directory / ".adder-launcher"
    text = program.read_text()
    assert _LOADS in text
    program.write_text(text.replace(_LOADS, _LOADS + _ASKS))
    return directory
