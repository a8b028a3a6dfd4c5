# SPDX-License-Identifier: Apache-2.0
"""The interface in its namespace: what it is like, and making it so."""

from __future__ import annotations

from cni_tuning.config import Config
from libcni import sysctl
from libcni.netlink.link import Link, find_link, set_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.attempts import Attempts


def find_interface(namespace: Namespace, ifname: str) -> tuple[Socket, Link | None]:
    """A socket inside the namespace, and the interface if it is there."""
    with Inside(namespace):
        sock = Socket()
    return sock, find_link(sock, ifname)


def read_sysctls(namespace: Namespace, names: list[str]) -> dict[str, str]:
    """Values by name, without those that can only be written, such as ipv4/route/flush.

    Raises CniError 7 for one that does not exist there.
    """
    found = {}
    with Inside(namespace):
        for name in names:
            try:
                found[name] = sysctl.read(name)
            except PermissionError:
                # Not even root: writing does something, and there is no value to go back to.
                continue
            except OSError as error:
                import posix

                raise CniError(
                    INVALID_NETWORK_CONFIG,
                    f"cannot read sysctl net/{name}: {posix.strerror(error.errno or 0)}",
                    "is it misspelled, or is the protocol not in this kernel?",
                ) from None
    return found


def write_sysctls(namespace: Namespace, values: dict[str, str]) -> dict[str, list[str]]:
    """Set values by name, in order; returns them, each with the kernel's words if it has others.

    Raises CniError 102 for the first that is refused.
    """
    written = {}
    with Inside(namespace):
        for name, value in values.items():
            sysctl.write_if_differs(name, value)
            written[name] = [value]
            if not _is_one_of(name, [value]):
                written[name].append(sysctl.read(name))
    return written


def restore_sysctls(
    namespace: Namespace,
    values: dict[str, str],
    written: dict[str, list[str]],
    attempts: Attempts,
) -> None:
    """Set values by name; one that is refused keeps no other from being set.

    written: by name, what ADD has set it to; another value is somebody else's, and stays.
    """
    with Inside(namespace):
        for name, value in values.items():
            if name not in written or _is_one_of(name, written[name]):
                attempts.attempt(sysctl.write_if_differs, name, value)


def _is_one_of(name: str, values: list[str]) -> bool:
    """True when a sysctl has one of these values, or cannot be read."""
    try:
        now = sysctl.read(name).split()
    except OSError:
        return True
    # The kernel shows several numbers with tabs between them.
    return any(now == value.split() for value in values)


def before(config: Config, link: Link) -> dict[str, Any]:
    """The present values of what `config` changes, under the names of the backup's keys."""
    found: dict[str, Any] = {}
    if config.mac:
        found["mac"] = link.mac
    if config.promiscuous:
        found["promisc"] = link.is_promiscuous
    if config.mtu:
        found["mtu"] = link.mtu
    if config.allmulticast is not None:
        found["allmulti"] = link.is_allmulticast
    if config.txqlen is not None:
        found["txQLen"] = link.txqlen
    return found


def apply(sock: Socket, link: Link, config: Config) -> None:
    """Set what is configured, one after the other so that a refusal names its attribute.

    Raises CniError 102.
    """
    changes: dict[str, Any] = {
        f"mac {config.mac}": {"mac": config.mac} if config.mac else {},
        "promisc": {"promiscuous": True} if config.promiscuous else {},
        f"mtu {config.mtu}": {"mtu": config.mtu} if config.mtu else {},
        "allmulti": {} if config.allmulticast is None else {"allmulticast": config.allmulticast},
        f"txQLen {config.txqlen}": {} if config.txqlen is None else {"txqlen": config.txqlen},
    }
    _set(sock, link, changes)


def _set(sock: Socket, link: Link, changes: dict[str, dict[str, Any]]) -> None:
    """Make changes, described by their keys, one after the other. None keeps another from being
    made. Raises CniError 102 for the first that is refused."""
    messages = []
    for what, arguments in changes.items():
        if arguments:
            message = set_link(index=link.index, **arguments)
            message.doing = f"set {what} of {link.name}"
            messages.append(message)
    sock.run(*messages)


def restore(sock: Socket, link: Link, noted: dict[str, Any]) -> None:
    """Set what a backup says, as far as it says anything usable. Raises CniError 102."""
    get = noted.get
    changes: dict[str, dict[str, Any]] = {}
    if isinstance(get("mac"), str) and get("mac"):
        changes[f"mac {get('mac')}"] = {"mac": get("mac")}
    for key, name in (("promisc", "promiscuous"), ("allmulti", "allmulticast")):
        if isinstance(get(key), bool):
            changes[key] = {name: get(key)}
    for key, name, least in (("mtu", "mtu", 1), ("txQLen", "txqlen", 0)):
        value = get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            changes[f"{key} {value}"] = {name: value}
    _set(sock, link, changes)
