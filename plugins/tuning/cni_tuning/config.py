# SPDX-License-Identifier: Apache-2.0
"""The configuration of tuning, and whose word counts.

For the MAC address: args.cni, runtimeConfig, CNI_ARGS, `mac`, the first that is given, as in
Go (`bridge` has another order, there too). For everything else: args.cni, then the key itself.
"""

from __future__ import annotations

from libcni import sysctl
from libcni.fs import usable_path
from libcni.mac import requested_mac
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

DEFAULT_DATA_DIR = "/run/cni/tuning"
#: Bytes. include/linux/inetdevice.h IPV4_MIN_MTU, and the least of Ethernet devices
_MTU_MIN = 68
#: Administrators list here, one regular expression a line, which sysctls may be set.
ALLOWLIST = "/etc/cni/tuning/allowlist.conf"


def invalid(msg: str, details: str = "") -> CniError:
    """A CniError 7."""
    return CniError(INVALID_NETWORK_CONFIG, msg, details)


class Config:
    """What the interface shall be like; None, "" and 0 leave it as it is.

    sysctls: value by path below /proc/sys/net ("core/somaxconn"). mtu: bytes. txqlen: packets.
    """

    __slots__ = ("allmulticast", "mac", "mtu", "promiscuous", "sysctls", "txqlen")

    def __init__(self, request: Request) -> None:
        """Read a canonical document. Raises CniError 7 naming the key, 4 for CNI_ARGS."""
        document = request.config
        arguments: dict[str, Any] = (document.get("args") or {}).get("cni") or {}

        def given(key: str, default: Any) -> Any:
            return arguments[key] if key in arguments else document.get(key, default)

        self.mac = requested_mac(request, arguments.get("mac") or "")
        self.mtu: int = given("mtu", 0)
        if 0 < self.mtu < _MTU_MIN:
            key = "args.cni.mtu" if "mtu" in arguments else "mtu"
            raise invalid(
                f"{key}: {self.mtu} must be 0 or at least {_MTU_MIN}",
                "Linux has no IPv4 on an interface with less, and most kinds take none",
            )
        self.promiscuous: bool | None = True if given("promisc", False) else None
        self.allmulticast: bool | None = given("allmulti", None)
        self.txqlen: int | None = given("txQLen", None)
        _refuse_duplicates(request, document, arguments)
        sources = [document.get("sysctl") or {}, arguments.get("sysctl") or {}]
        if any(sources):
            _refuse_unlisted({**sources[0], **sources[1]})
        # STATUS is asked without an interface.
        ifname = request.ifname or "eth0"
        by_path = [_by_path(source, ifname) for source in sources]
        self.sysctls: dict[str, str] = dict(sorted({**by_path[0], **by_path[1]}.items()))

    @property
    def has_link_changes(self) -> bool:
        """True when anything but sysctls is to be set."""
        return bool(self.mac or self.mtu or self.promiscuous) or not (
            self.allmulticast is None and self.txqlen is None
        )


def data_directory(document: dict[str, Any]) -> str:
    """`dataDir`, from a document that may be in disorder. Raises CniError 7 if it is no path."""
    found = document.get("dataDir")
    if not isinstance(found, str) or not found:
        return DEFAULT_DATA_DIR
    return usable_path(found, "dataDir").rstrip("/")


def path_of(key: str, ifname: str) -> str:
    """The path below /proc/sys/net of a sysctl's name. Raises CniError 7 naming the key.

    Whichever of '.' and '/' comes first parts the name; the other is part of what it stands in,
    so that "net.ipv4.conf.eth0/100.mtu" and "net/ipv4/conf/eth0.100/mtu" are one. The first
    IFNAME is the interface, whose name may have dots.
    """
    dot, slash = key.find("."), key.find("/")
    path = key
    if dot >= 0 and (slash < 0 or dot < slash):
        path = key.translate({ord("."): "/", ord("/"): "."})
    path = path.replace("IFNAME", ifname, 1)
    if path.startswith("net/"):
        name = path[4:]
        try:
            sysctl.path_of(name)
        except CniError:
            pass
        else:
            return name
    raise invalid(f'invalid net sysctl key: "{key}"', 'it has to be below "net", as in net.core')


def _by_path(wanted: dict[str, str], ifname: str) -> dict[str, str]:
    """Values by path. Raises CniError 7 for one sysctl that is spelled in two ways and is to have
    two values, or that is none."""
    found: dict[str, str] = {}
    keys: dict[str, str] = {}
    for key, value in wanted.items():
        path = path_of(key, ifname)
        if found.setdefault(path, value) != value:
            raise invalid(
                f'sysctl keys "{keys[path]}" and "{key}" are one, and have different values: '
                f"{found[path]} and {value}",
                "remove one of them",
            )
        keys[path] = key
    return found


def _refuse_unlisted(wanted: dict[str, str]) -> None:
    """Raise CniError 7 for a key that the administrator's list does not have, if there is one."""
    from libcni.fs import read_file
    from libcni.utf8 import decode

    try:
        lines = decode(read_file(ALLOWLIST)).split("\n")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise invalid(f"failed to read {ALLOWLIST}: {error}") from None
    from cni_tuning.re2 import matches

    expressions = [line.strip() for line in lines if line.strip()]
    for key in wanted:
        for expression in expressions:
            try:
                if matches(expression, key):
                    break
            except ValueError as error:
                raise invalid(
                    f"{ALLOWLIST}: {expression!r} is no regular expression: {error}",
                    "its syntax is RE2's (github.com/google/re2/wiki/Syntax); README.md says "
                    "what of it is not supported",
                ) from None
        else:
            raise invalid(
                f"Sysctl {key} is not allowed. Only the following sysctls are allowed: "
                f"[{' '.join(expressions)}]",
                f"the list is {ALLOWLIST}",
            )


def _refuse_duplicates(
    request: Request, document: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Raise CniError 7 for a sysctl that one object names twice: which would hold?

    The document has the last of both; only its bytes tell.
    """
    named = [*(document.get("sysctl") or ()), *(arguments.get("sysctl") or ())]
    if not any(request.stdin.count(b'"%b"' % key.encode()) > 1 for key in named):
        return
    from libcni.boot import full_boot

    full_boot()
    import json

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in pairs]
        for key in named:
            if names.count(key) > 1:
                raise invalid(f"duplicated sysctl keys are present: {key}")
        return dict(pairs)

    json.loads(request.stdin, object_pairs_hook=look)
