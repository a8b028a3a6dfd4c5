# SPDX-License-Identifier: Apache-2.0
"""An attachment's identity, and every name that is derived from it.

What a plugin makes is found again from (network, container ID, interface name) alone, so DEL
needs neither the namespace nor a previous result. The derivations of the Go plugins are here
too, to recognise what they left.
"""

from __future__ import annotations

from _sha512 import sha512

#: Bytes; linux/if.h IFALIASZ is 256 with the final NUL.
_MAX_ALIAS = 255
#: Bytes; nft refuses to print comments longer than this (libnftables NFTNL_UDATA_COMMENT_MAXLEN).
_MAX_COMMENT = 127
#: Tries for a free host interface name before giving up.
_VETH_NAMES = 4


class Attachment:
    """(network, container ID, interface name); immutable by convention, comparable, hashable."""

    __slots__ = ("container_id", "ifname", "network")

    def __init__(self, network: str, container_id: str, ifname: str) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname

    @property
    def text(self) -> str:
        """`cni:<network>:<container>:<ifname>`; unambiguous, as no part may hold a colon."""
        return f"cni:{self.network}:{self.container_id}:{self.ifname}"

    def digest(self) -> str:
        """128 hex digits of SHA-512 over the identity."""
        return sha512(self.text.encode()).hexdigest()

    @property
    def set_key(self) -> bytes:
        """The key of an attachment in a set of interface names: 15 hex digits of the digest, as
        nft shows them."""
        return self.digest()[:15].encode().ljust(16, b"\0")

    @property
    def alias(self) -> str:
        """The alias of the host interface; hashed where the kernel's 255 bytes are too few."""
        return self._within(_MAX_ALIAS)

    @property
    def comment(self) -> str:
        """The comment of nftables elements and rules; hashed where nft's 127 are too few."""
        return self._within(_MAX_COMMENT)

    def _within(self, limit: int) -> str:
        """The identity, or its digest under its network's mark, in at most `limit` bytes."""
        text = self.text
        if len(text.encode("utf-8", "replace")) <= limit:
            return text
        return f"{network_marks(self.network)[1]}#{self.digest()[:64]}"

    def host_veth_names(self) -> tuple[str, ...]:
        """Host interface names to use, in order of preference: `veth` and 8 hex digits."""
        digest = self.digest()
        return tuple(f"veth{digest[i * 8 : i * 8 + 8]}" for i in range(_VETH_NAMES))

    @property
    def go_masquerade_chain(self) -> str:
        """The Go plugins' iptables chain, 28 characters (their utils.FormatChainName)."""
        return "CNI-" + sha512((self.network + self.container_id).encode()).hexdigest()[:24]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attachment) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Attachment({self.text})"


def is_mark(alias: str) -> bool:
    """True for the identity of an attachment, whichever: an alias of ours, not somebody's own."""
    return alias.startswith("cni:")


def network_marks(network: str) -> tuple[str, str]:
    """What the identities of a network's attachments begin with: in full, and hashed."""
    return f"cni:{network}:", f"cni:#{sha512(network.encode()).hexdigest()[:16]}:"
