# SPDX-License-Identifier: Apache-2.0
"""resolv.conf(5) into the DNS settings of a result, with the reference's reading."""

from __future__ import annotations

from libcni.fs import io_error, read_file
from libcni.types.result import DNS


def read(path: str) -> DNS:
    """The settings in `path`. Raises CniError 5 when it cannot be read.

    `nameserver` and `domain` take the first word; `search` and `options` collect all of theirs.
    Lines that start with # or ; and lines of a single word are skipped.
    """
    try:
        text = read_file(path).decode("utf-8", "replace")
    except OSError as error:
        raise io_error(error, "read resolvConf", path) from None
    dns = DNS()
    for line in text.split("\n"):
        words = line.split()
        if line[:1] in ("#", ";") or len(words) < 2:
            continue
        if words[0] == "nameserver":
            dns.nameservers.append(words[1])
        elif words[0] == "domain":
            dns.domain = words[1]
        elif words[0] == "search":
            dns.search.extend(words[1:])
        elif words[0] == "options":
            dns.options.extend(words[1:])
    return dns
