# SPDX-License-Identifier: Apache-2.0
"""CHECK: what was configured is still so; nothing else is looked at."""

from __future__ import annotations

from cni_tuning import backup, interface
from cni_tuning.config import Config, data_directory
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netns import Namespace
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming the attribute or sysctl, what is expected and what there is."""
    request.require_prev_result()
    config = Config(request)
    namespace = request.netns()
    if config.has_link_changes:
        _check_link(config, namespace, request.ifname)
    for name, value in interface.read_sysctls(namespace, list(config.sysctls)).items():
        expected = config.sysctls[name]
        # The kernel shows several numbers with tabs between them.
        if value.split() != expected.split() and value not in _shown_for(request, name, expected):
            raise CniError(CHECK_FAILED, f"sysctl net/{name}: expected {expected}, found {value}")


def _shown_for(request: Request, name: str, value: str) -> list[str]:
    """What the kernel showed after ADD had set the value, as "1000-1001" for "1000,1001"."""
    path = backup.path_of(data_directory(request.config), request.attachment)
    written = backup.written_of(backup.load(path)).get(name, [])
    return written[1:] if written[:1] == [value] else []


def _check_link(config: Config, namespace: Namespace, ifname: str) -> None:
    _, link = interface.find_interface(namespace, ifname)
    if link is None:
        raise CniError(CHECK_FAILED, f"interface {ifname}: expected, found nothing")
    found: list[tuple[str, object, object]] = []
    if config.mac:
        found.append(("MAC address", config.mac, link.mac))
    if config.mtu:
        found.append(("MTU", config.mtu, link.mtu))
    if config.promiscuous:
        found.append(("promiscuous mode", True, link.is_promiscuous))
    if config.allmulticast is not None:
        found.append(("allmulti", config.allmulticast, link.is_allmulticast))
    if config.txqlen is not None:
        found.append(("txQLen", config.txqlen, link.txqlen))
    for what, expected, is_ in found:
        if expected != is_:
            raise CniError(
                CHECK_FAILED,
                f"{what} of {ifname}: expected {_shown(expected)}, found {_shown(is_)}",
            )


def _shown(value: object) -> object:
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
