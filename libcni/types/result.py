# SPDX-License-Identifier: Apache-2.0
"""The result of an ADD, in the newest version's terms, read from and written as any version.

Addresses are text ("10.1.2.3/24" with its host bits), canonical as Go prints them. Source: CNI
spec 1.1.0 section 5 and, for conversion, the reference implementation's pkg/types: up to 0.4.0
interfaces have no mtu, socketPath and pciID; 0.3.0 to 0.4.0 addresses carry a `version`; routes
keep their newer fields; 1.x sorts keys and leaves an empty `dns` out. Up to 0.2.0: `legacy`.
"""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError
from libcni.version import SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_UINT_MAX = 0xFFFFFFFF


class _Record:
    """Comparison and display by the slots."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Interface(_Record):
    """An interface made or used. sandbox: its namespace's path, "" on the host. mtu in bytes."""

    __slots__ = ("mac", "mtu", "name", "pci_id", "sandbox", "socket_path")

    def __init__(
        self,
        name: str,
        mac: str = "",
        mtu: int = 0,
        sandbox: str = "",
        socket_path: str = "",
        pci_id: str = "",
    ) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.sandbox = sandbox
        self.socket_path = socket_path
        self.pci_id = pci_id


class IPConfig(_Record):
    """An address with its prefix length; interface: index into the result's interfaces."""

    __slots__ = ("address", "gateway", "interface")

    def __init__(self, address: str, gateway: str = "", interface: int | None = None) -> None:
        self.address = address
        self.gateway = gateway
        self.interface = interface


class Route(_Record):
    """A route. mtu and advmss in bytes, 0 unset; table and scope are the kernel's numbers."""

    __slots__ = ("advmss", "dst", "gw", "mtu", "priority", "scope", "table")

    def __init__(
        self,
        dst: str,
        gw: str = "",
        mtu: int = 0,
        advmss: int = 0,
        priority: int = 0,
        table: int | None = None,
        scope: int | None = None,
    ) -> None:
        self.dst = dst
        self.gw = gw
        self.mtu = mtu
        self.advmss = advmss
        self.priority = priority
        self.table = table
        self.scope = scope

    def to_json(self) -> dict[str, Any]:
        """The keys in the order of Go's struct."""
        route: dict[str, Any] = {"dst": self.dst}
        if self.gw:
            route["gw"] = self.gw
        if self.mtu:
            route["mtu"] = self.mtu
        if self.advmss:
            route["advmss"] = self.advmss
        if self.priority:
            route["priority"] = self.priority
        if self.table is not None:
            route["table"] = self.table
        if self.scope is not None:
            route["scope"] = self.scope
        return route


class DNS(_Record):
    """What to write into the container's resolv.conf; truthy when anything is set."""

    __slots__ = ("domain", "nameservers", "options", "search")

    def __init__(
        self,
        nameservers: list[str] | None = None,
        domain: str = "",
        search: list[str] | None = None,
        options: list[str] | None = None,
    ) -> None:
        self.nameservers = nameservers or []
        self.domain = domain
        self.search = search or []
        self.options = options or []

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)

    @classmethod
    def from_json(cls, document: object, path: str = "dns") -> DNS:
        """Read a `dns` object; None is an empty one. Raises CniError 6."""
        if document is None:
            return cls()
        get = members(document, path, _DNS_KEYS).get
        return cls(
            _texts(get("nameservers"), f"{path}.nameservers"),
            text(get("domain"), f"{path}.domain"),
            _texts(get("search"), f"{path}.search"),
            _texts(get("options"), f"{path}.options"),
        )

    def to_json(self) -> dict[str, Any]:
        """The keys that are set, in the order of Go's struct."""
        dns: dict[str, Any] = {}
        if self.nameservers:
            dns["nameservers"] = self.nameservers
        if self.domain:
            dns["domain"] = self.domain
        if self.search:
            dns["search"] = self.search
        if self.options:
            dns["options"] = self.options
        return dns


_DNS_KEYS = ("nameservers", "domain", "search", "options")
_ROUTE_KEYS = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
_IP_KEYS = ("version", "interface", "address", "gateway")
_INTERFACE_KEYS = ("name", "mac", "mtu", "sandbox", "socketPath", "pciID")
_RESULT_KEYS = ("cniVersion", "interfaces", "ips", "routes", "dns")


class Result(_Record):
    """What an ADD made: interfaces, addresses, routes, DNS."""

    __slots__ = ("dns", "interfaces", "ips", "routes")

    def __init__(
        self,
        interfaces: list[Interface] | None = None,
        ips: list[IPConfig] | None = None,
        routes: list[Route] | None = None,
        dns: DNS | None = None,
    ) -> None:
        self.interfaces = interfaces or []
        self.ips = ips or []
        self.routes = routes or []
        self.dns = dns or DNS()

    @classmethod
    def from_json(cls, document: object, config_version: str) -> Result:
        """Read a result of any version; without a cniVersion it is of `config_version`.

        Keys match in any case and null counts as absent, as in Go. Raises CniError 6 naming the
        member that is malformed, CniError 1 for a version that does not exist.
        """
        if not isinstance(document, dict):
            raise CniError(DECODING_FAILURE, f"result is not a JSON object: {_show(document)}")
        found = members(document, "result", ("cniVersion",)).get("cniVersion")
        version = text(found, "cniVersion") or config_version or "0.1.0"
        if version not in SUPPORTED:
            raise CniError(
                INCOMPATIBLE_VERSION, f"unsupported CNI result version {_show(version)}"
            )
        if version < "0.3.0":
            from libcni.types import legacy

            return legacy.parse(document)
        get = members(document, "result", _RESULT_KEYS).get
        ips = get("ips")
        if ips is None and version == "0.3.0":
            ips = document.get("ip")  # the misprint of spec 0.3.0
        return cls(
            [
                _parse_interface(d, f"interfaces[{i}]")
                for i, d in enumerate(items(get("interfaces"), "interfaces"))
            ],
            [_parse_ip(d, f"ips[{i}]") for i, d in enumerate(items(ips, "ips"))],
            parse_routes(get("routes"), "routes"),
            DNS.from_json(get("dns")),
        )

    def to_json(self, version: str) -> dict[str, Any]:
        """The document of that version, keys in the order the reference prints them.

        Raises CniError 999 "cannot convert: no valid IP addresses" for a version up to 0.2.0
        that could not hold the result, CniError 1 for a version that does not exist.
        """
        if version not in SUPPORTED:
            raise CniError(
                INCOMPATIBLE_VERSION, f"unsupported CNI result version {_show(version)}"
            )
        if version < "0.3.0":
            from libcni.types import legacy

            return legacy.render(self, version)
        newest = version >= "1.0.0"
        document: dict[str, Any] = {"cniVersion": version}
        if newest and self.dns:
            document["dns"] = _sorted(self.dns.to_json())
        if self.interfaces:
            document["interfaces"] = [_render_interface(i, newest) for i in self.interfaces]
        if self.ips:
            document["ips"] = [_render_ip(ip, newest) for ip in self.ips]
        if self.routes:
            routes = [route.to_json() for route in self.routes]
            document["routes"] = [_sorted(r) for r in routes] if newest else routes
        if not newest:
            document["dns"] = self.dns.to_json()
        return document


def _sorted(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in sorted(document)}


def _render_interface(interface: Interface, newest: bool) -> dict[str, Any]:
    if not newest:
        old = {"name": interface.name}
        if interface.mac:
            old["mac"] = interface.mac
        if interface.sandbox:
            old["sandbox"] = interface.sandbox
        return old
    document: dict[str, Any] = {}
    if interface.mac:
        document["mac"] = interface.mac
    if interface.mtu:
        document["mtu"] = interface.mtu
    document["name"] = interface.name
    if interface.pci_id:
        document["pciID"] = interface.pci_id
    if interface.sandbox:
        document["sandbox"] = interface.sandbox
    if interface.socket_path:
        document["socketPath"] = interface.socket_path
    return document


def _render_ip(ip: IPConfig, newest: bool) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if newest:
        document["address"] = ip.address
        if ip.gateway:
            document["gateway"] = ip.gateway
        if ip.interface is not None:
            document["interface"] = ip.interface
        return document
    document["version"] = "6" if ":" in ip.address else "4"
    if ip.interface is not None:
        document["interface"] = ip.interface
    document["address"] = ip.address
    if ip.gateway:
        document["gateway"] = ip.gateway
    return document


def _parse_interface(document: object, path: str) -> Interface:
    get = members(document, path, _INTERFACE_KEYS).get
    return Interface(
        text(get("name"), f"{path}.name"),
        text(get("mac"), f"{path}.mac"),
        _number(get("mtu"), f"{path}.mtu") or 0,
        text(get("sandbox"), f"{path}.sandbox"),
        text(get("socketPath"), f"{path}.socketPath"),
        text(get("pciID"), f"{path}.pciID"),
    )


def _parse_ip(document: object, path: str) -> IPConfig:
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
