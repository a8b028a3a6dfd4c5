# SPDX-License-Identifier: Apache-2.0
"""net-conf.json: flannel's description of the cluster's network, read into `model.NetConf`.

Source: flannel's documentation ("Configuration") and its `ParseConfig` and `CheckNetworkConfig`.
As in Go, keys match whatever their case, the last of two equal ones wins, null and "" mean not
given, and unknown keys are ignored (but a warning names them, as they may be misspelled).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from cni_vxlan_overlay.agent.model import Backend, NetConf
from cni_vxlan_overlay.agent.store import StoreError
from libcni import jsontext
from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import CniError

_log = logging.getLogger(__name__)

_KEYS = (
    "Network",
    "IPv6Network",
    "EnableIPv4",
    "EnableIPv6",
    "EnableNFTables",
    "SubnetLen",
    "SubnetMin",
    "SubnetMax",
    "IPv6SubnetLen",
    "IPv6SubnetMin",
    "IPv6SubnetMax",
    "Backend",
)
#: The last two are flannel's for Windows; TxChecksumOffload is ours.
_BACKEND_KEYS = (
    "Type",
    "VNI",
    "Port",
    "MTU",
    "Learning",
    "DirectRouting",
    "GBP",
    "TxChecksumOffload",
    "Name",
    "MacPrefix",
)
#: Of Linux and of flannel; IANA's is 4789.
_DEFAULT_PORT = 8472


def parse_netconf(text: str, *, allocates: bool = True, source: str = "net-conf.json") -> NetConf:
    """Read net-conf.json, or what has its keys.

    source: the file or key that the text comes from, for messages.

    allocates: the store gives subnets out itself by SubnetLen, SubnetMin and SubnetMax (etcd).
    Where something else does (Kubernetes' controller), False leaves these keys unread, as flannel
    does, and the three fields of the result empty.

    Defaults are flannel's, but for a missing Backend: vxlan, as its documentation has it.
    Raises StoreError naming source, key and value.
    """
    try:
        document = jsontext.loads(text.encode(errors="replace"), source)
    except CniError as error:
        raise StoreError(str(error)) from None
    keys = _Keys(document, source, "", _KEYS)
    networks: list[Prefix] = []
    lengths: dict[int, int] = {}
    first: dict[int, Prefix] = {}
    last: dict[int, Prefix] = {}
    keys.boolean("EnableNFTables", False)  # masquerading is by nftables either way
    for family, enable, prefix, default in (
        (4, "EnableIPv4", "", True),
        (6, "EnableIPv6", "IPv6", False),
    ):
        network = keys.prefix(prefix + "Network", family)
        if not keys.boolean(enable, default):
            if network is not None:
                _log.warning(
                    "%s: %sNetwork %s is ignored, as %s is not true",
                    source,
                    prefix,
                    network.text(),
                    enable,
                )
            continue
        if network is None:
            raise StoreError(
                f"{source}: {prefix}Network is missing; give one, or set {enable} to false"
            )
        networks.append(network)
        if allocates:
            lengths[family] = _subnet_length(keys, prefix, network)
            first[family], last[family] = _bounds(keys, prefix, network, lengths[family])
    if not networks:
        raise StoreError(f"{source}: EnableIPv4 and EnableIPv6 are false, so nothing is left")
    backend = _backend(keys.value("Backend"), source)
    return NetConf(tuple(networks), lengths, first, last, backend)


def _subnet_length(keys: _Keys, prefix: str, network: Prefix) -> int:
    """Prefix length of a node's subnet: at least four fit, each with room for two addresses."""
    key, longest = prefix + "SubnetLen", network.bits - 2
    length = keys.integer(key, 0, network.bits, 0)
    if not length:
        usual = 24 if network.bits == 32 else 64
        if network.length > network.bits - 4:
            raise StoreError(
                f"{keys.source}: {prefix}Network {network.text()} is too small: "
                f"/{network.bits - 4} at most"
            )
        return usual if network.length <= usual - 2 else network.length + 2
    if length > longest:
        raise StoreError(f"{keys.source}: {key} {length} leaves no addresses: {longest} at most")
    if length < network.length + 2:
        raise StoreError(
            f"{keys.source}: {key} {length} splits {prefix}Network {network.text()} in fewer than "
            f"four subnets: {network.length + 2} at least"
        )
    return length


def _bounds(keys: _Keys, prefix: str, network: Prefix, length: int) -> tuple[Prefix, Prefix]:
    """The first and the last subnet to give out.

    The very first of the network is left out by default: its address is that of the network.
    """
    size = network.bits // 8
    step = 1 << (network.bits - length)
    start = int.from_bytes(network.packed, "big")
    end = int.from_bytes(network.broadcast(), "big") + 1
    found: list[Prefix] = []
    for key, default in ((prefix + "SubnetMin", start + step), (prefix + "SubnetMax", end - step)):
        packed = keys.address(key)
        if packed is None:
            packed = default.to_bytes(size, "big")
        subnet = Prefix(packed, length)
        if not network.contains(packed):
            raise StoreError(
                f"{keys.source}: {key} {ntop(packed)} is outside {prefix}Network {network.text()}"
            )
        if subnet.network() != subnet:
            raise StoreError(
                f"{keys.source}: {key} {ntop(packed)} does not begin a subnet: the one it is in "
                f"is {subnet.network().text()}"
            )
        found.append(subnet)
    low, high = found
    if low.packed > high.packed:
        raise StoreError(
            f"{keys.source}: {prefix}SubnetMin {ntop(low.packed)} is above "
            f"{prefix}SubnetMax {ntop(high.packed)}"
        )
    return low, high


def _backend(document: object, source: str) -> Backend:
    if document is None:
        return Backend()
    keys = _Keys(document, source, "Backend.", _BACKEND_KEYS)
    kind = keys.string("Type", "vxlan")
    if kind.lower() != "vxlan":
        raise StoreError(f'{source}: Backend.Type {kind!r}: only "vxlan" is supported')
    checksum = keys.string("TxChecksumOffload", "auto").lower()
    if checksum not in ("auto", "on", "off"):
        raise StoreError(
            f'{source}: Backend.TxChecksumOffload {checksum!r}: one of "auto", "on", "off"'
        )
    mtu = keys.integer("MTU", 0, 65535, 0)
    if 0 < mtu < 576:
        raise StoreError(f"{source}: Backend.MTU {mtu}: 576 to 65535, or 0 for the underlay's")
    return Backend(
        vni=keys.integer("VNI", 0, (1 << 24) - 1, 1),
        port=keys.integer("Port", 0, 65535, 0) or _DEFAULT_PORT,
        mtu=mtu,
        learning=keys.boolean("Learning", False),
        direct_routing=keys.boolean("DirectRouting", False),
        gbp=keys.boolean("GBP", False),
        checksum=checksum,
    )


class _Keys:
    """The keys of an object, whatever their case; each getter checks type and range."""

    def __init__(self, document: object, source: str, path: str, known: tuple[str, ...]) -> None:
        """source: of the document, path: of the object, with its dot, for messages.

        Raises StoreError for no object.
        """
        if not isinstance(document, Mapping):
            raise StoreError(
                f"{source}: {path.rstrip('.') or 'the document'}: an object is expected, "
                f"not {_shown(document)}"
            )
        self.source = source
        self._path = path
        self._values: dict[str, Any] = {key.lower(): value for key, value in document.items()}
        folded = {key.lower() for key in known}
        for key in document:
            if key.lower() not in folded:
                _log.warning("%s: unknown key %s%s is ignored", source, path, key)

    def value(self, key: str) -> Any:
        """The value, None when not given."""
        return self._values.get(key.lower())

    def _wrong(self, key: str, value: object, expected: str) -> StoreError:
        return StoreError(
            f"{self.source}: {self._path}{key}: {expected} is expected, not {_shown(value)}"
        )

    def boolean(self, key: str, default: bool) -> bool:
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, value, f"an integer {low} to {high}")
        return value

    def string(self, key: str, default: str) -> str:
        value = self.value(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value or default

    def prefix(self, key: str, family: int) -> Prefix | None:
        """The network, without host bits; None when not given."""
        text = self.string(key, "")
        if not text:
            return None
        try:
            found = Prefix.parse(text).network()
        except ValueError as error:
            raise self._wrong(key, text, f"an IPv{family} network (CIDR)") from error
        if found.bits != (32 if family == 4 else 128):
            raise self._wrong(key, text, f"an IPv{family} network (CIDR)")
        return found

    def address(self, key: str) -> bytes | None:
        """The address, packed; None when not given. All zeros are not given, as in flannel."""
        text = self.string(key, "")
        if not text:
            return None
        try:
            packed = pton(text)
        except ValueError as error:
            raise self._wrong(key, text, "an IP address") from error
        return packed if any(packed) else None


def _shown(value: object) -> str:
    """The value as JSON, shortened, for messages."""
    text = jsontext.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
