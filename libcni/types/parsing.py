# SPDX-License-Identifier: Apache-2.0
"""Reading a result of any version, strictly typed as Go reads it; see `result`."""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError
from libcni.types.result import DNS, Interface, IPConfig, Result, Route
from libcni.version import SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UINT_MAX = 0xFFFFFFFF
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_ROUTE_KEYS = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
_IP_KEYS = ("version", "interface", "address", "gateway")
_INTERFACE_KEYS = ("name", "mac", "mtu", "sandbox", "socketPath", "pciID")
# "ip" is the misprint of spec 0.3.0, the next two are of 0.2.0 and before.
_RESULT_KEYS = ("cniVersion", "interfaces", "ips", "routes", "dns", "ip", "ip4", "ip6")


def parse(document: object, config_version: str) -> Result:
    """See `Result.from_json`."""
    if not isinstance(document, dict):
        raise CniError(DECODING_FAILURE, f"result is not a JSON object: {_show(document)}")
    get = members(document, "result", _RESULT_KEYS).get
    version = text(get("cniVersion"), "cniVersion") or config_version or "0.1.0"
    if version not in SUPPORTED:
        raise CniError(INCOMPATIBLE_VERSION, f"unsupported CNI result version {_show(version)}")
    if version < "0.3.0":
        from libcni.types import legacy

        return legacy.parse(document)
    ips = get("ips")
    if ips is None and version == "0.3.0":
        ips = get("ip")
    return Result(
        [
            _interface(entry, f"interfaces[{index}]")
            for index, entry in enumerate(items(get("interfaces"), "interfaces"))
        ],
        [_ip(entry, f"ips[{index}]") for index, entry in enumerate(items(ips, "ips"))],
        parse_routes(get("routes"), "routes"),
        parse_dns(get("dns")),
    )


def parse_dns(document: object, path: str = "dns") -> DNS:
    """Read a `dns` object; None is an empty one. Raises CniError 6 naming the member."""
    if document is None:
        return DNS()
    get = members(document, path, _DNS_KEYS).get
    return DNS(
        _texts(get("nameservers"), f"{path}.nameservers"),
        text(get("domain"), f"{path}.domain"),
        _texts(get("search"), f"{path}.search"),
        _texts(get("options"), f"{path}.options"),
    )


def _interface(document: object, path: str) -> Interface:
    get = members(document, path, _INTERFACE_KEYS).get
    return Interface(
        text(get("name"), f"{path}.name"),
        text(get("mac"), f"{path}.mac"),
        _number(get("mtu"), f"{path}.mtu") or 0,
        text(get("sandbox"), f"{path}.sandbox"),
        text(get("socketPath"), f"{path}.socketPath"),
        text(get("pciID"), f"{path}.pciID"),
    )


def _ip(document: object, path: str) -> IPConfig:
    get = members(document, path, _IP_KEYS).get
    return IPConfig(
        cidr(get("address"), f"{path}.address"),
        ip_address(get("gateway"), f"{path}.gateway"),
        _number(get("interface"), f"{path}.interface"),
    )


def parse_routes(documents: object, path: str) -> list[Route]:
    """Read a `routes` list; None is an empty one. Raises CniError 6 naming the member."""
    routes = []
    for index, document in enumerate(items(documents, path)):
        where = f"{path}[{index}]"
        get = members(document, where, _ROUTE_KEYS).get
        routes.append(
            Route(
                cidr(get("dst"), f"{where}.dst"),
                ip_address(get("gw"), f"{where}.gw"),
                _number(get("mtu"), f"{where}.mtu") or 0,
                _number(get("advmss"), f"{where}.advmss") or 0,
                _number(get("priority"), f"{where}.priority") or 0,
                _number(get("table"), f"{where}.table"),
                _number(get("scope"), f"{where}.scope"),
            )
        )
    return routes


def members(document: object, path: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The object's members under their canonical names: exact first, else in any case."""
    if not isinstance(document, dict):
        raise _wrong(path, document, "an object")
    for key in document:
        if key not in names:
            break
    else:
        return document
    folded = {key.lower(): value for key, value in document.items()}
    return {
        name: document[name] if name in document else folded.get(name.lower()) for name in names
    }


def items(value: object, path: str) -> list[Any]:
    """A list; None is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(path, value, "a list")
    return value


def text(value: object, path: str) -> str:
    """A string; None is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(path, value, "a string")
    return value


def _texts(value: object, path: str) -> list[str]:
    return [text(item, f"{path}[{index}]") for index, item in enumerate(items(value, path))]


def _number(value: object, path: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _UINT_MAX:
        raise _wrong(path, value, f"a whole number from 0 to {_UINT_MAX}")
    return value


def cidr(value: object, path: str) -> str:
    """Canonical text of an address with a prefix length, the host bits kept."""
    try:
        return Prefix.parse(text(value, path)).text()
    except ValueError:
        raise _wrong(path, value, "an address with a prefix length") from None


def ip_address(value: object, path: str) -> str:
    """Canonical text of an address; "" for an absent one."""
    written = text(value, path)
    if not written:
        return ""
    try:
        return ntop(pton(written))
    except ValueError:
        raise _wrong(path, value, "an IP address") from None


def _show(value: object) -> str:
    from libcni.jsontext import dumps

    shown = dumps(value)
    return shown if len(shown) <= 64 else shown[:60] + "…"


def _wrong(path: str, value: object, expected: str) -> CniError:
    return CniError(
        DECODING_FAILURE, f"result: {path} is {_show(value)}", f"{expected} is expected"
    )
