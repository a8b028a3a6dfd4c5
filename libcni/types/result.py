# SPDX-License-Identifier: Apache-2.0
"""The result of an ADD, in the newest version's terms, read from and written as any version.

Addresses are text ("10.1.2.3/24" with its host bits), canonical as Go prints them. Source: CNI
spec 1.1.0 section 5 and, for conversion, the reference implementation's pkg/types: up to 0.4.0
interfaces have no mtu, socketPath and pciID; 0.3.0 to 0.4.0 addresses carry a `version`; routes
keep their newer fields; 1.x sorts keys and leaves an empty `dns` out. Up to 0.2.0: `legacy`.
Reading is in `parsing`, which an ADD whose delegates are ours never needs.
"""

from __future__ import annotations

from libcni.types.errors import INCOMPATIBLE_VERSION, CniError
from libcni.version import SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
        from libcni.types.parsing import parse

        return parse(document, config_version)

    def to_json(self, version: str) -> dict[str, Any]:
        """The document of that version, keys in the order the reference prints them.

        Raises CniError 999 "cannot convert: no valid IP addresses" for a version up to 0.2.0
        that could not hold the result, CniError 1 for a version that does not exist.
        """
        if version not in SUPPORTED:
            raise CniError(
                INCOMPATIBLE_VERSION, f'unsupported CNI result version "{version[:64]}"'
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
