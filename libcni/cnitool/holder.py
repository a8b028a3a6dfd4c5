# SPDX-License-Identifier: Apache-2.0
"""The attachment that has what an ADD wanted, as the plugins' messages name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from libcni.cache import NetworkAttachment
from libcni.cnitool import settings

#: The wordings of host-local (Go's knows the third alone), static and portmap.
_NAMED = re.compile(
    r"\b(?:reserved for|held by|allocated to|taken by) "
    r"(?:network (?P<network>[^\s,;]+), )?(?:container )?(?P<container>[^\s,;]+)"
    r"(?:,? interface (?P<interface>[^\s,;]+))?"
)


@dataclass(frozen=True)
class Holder:
    """Whose it is; what the message does not say is ""."""

    container_id: str
    if_name: str
    network: str

    def may_be(self, container_id: str, if_name: str) -> bool:
        """Whether it is this attachment, as far as it is known."""
        return self.container_id == container_id and self.if_name in ("", if_name)


def named_in(text: str) -> Holder | None:
    """The holder that the text of an error names; None when it names none."""
    found = _NAMED.search(text)
    if found is None:
        return None
    return Holder(found["container"], found["interface"] or "", found["network"] or "")


def detachable(holder: Holder, network: str, cache_dir: str) -> list[NetworkAttachment]:
    """Those of the holder's attachments that `cnitool del` would detach, by what is cached.

    network: where the holder names none. A runtime's containers are not among them, since the
    ID that cnitool makes of their namespace is another. Raises CniError 5 when the cache cannot
    be listed.
    """
    return [
        one
        for one in settings.cache(cache_dir).attachments(holder.container_id)
        if one.network == (holder.network or network)
        and holder.if_name in ("", one.if_name)
        and one.netns
        and settings.container_id(one.netns) == one.container_id
    ]
