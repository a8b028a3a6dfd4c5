# SPDX-License-Identifier: Apache-2.0
"""GC: the delegate's, with every configuration that attachments of this network were given."""

from __future__ import annotations

from cni_vxlan_overlay import state
from cni_vxlan_overlay.delete import data_directory, rendered_leniently
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

#: What a runtime says at each call; the rest tells configurations apart.
_VOLATILE = ("prevResult", "runtimeConfig", "args", "cniVersion", "mtu")


def gc(request: Request) -> None:
    """Remove what belongs to attachments of this network that do not exist any more.

    Idempotent. Raises CniError 7 without acting when the list of valid attachments is missing;
    otherwise tries everything and raises the first CniError. Device and peers stay: they are
    the node's, as the bridge is.
    """
    valid = request.valid_attachments()
    directory = data_directory(request.config)
    kept = state.kept(directory, request.network)
    errors: list[CniError] = []
    for document in _distinct([rendered_leniently(request), *[entry[2] for entry in kept]]):
        for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
            if key in request.config:
                document[key] = request.config[key]
        document["cniVersion"] = request.version
        _attempt(errors, _delegate, request, document)
    from libcni import ipmasq

    _attempt(errors, ipmasq.gc, request.network, valid)
    if not errors:
        # Not before: they say what a failed GC has to be tried with again.
        _forget(directory, kept, valid)
    if errors:
        raise errors[0]


def _delegate(request: Request, document: dict[str, Any]) -> None:
    from libcni.invoke.delegate import delegate_gc

    kind = document.get("type")
    delegate_gc(request, kind if isinstance(kind, str) and kind else "bridge", document)


def _attempt(errors: list[CniError], work: Any, *arguments: Any) -> None:
    try:
        work(*arguments)
    except CniError as error:
        errors.append(error)


def _distinct(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents that differ in more than what a runtime says at each call."""
    found: dict[str, dict[str, Any]] = {}
    from libcni.jsontext import dumps

    for document in documents:
        plain = {key: value for key, value in document.items() if key not in _VOLATILE}
        found.setdefault(dumps({key: plain[key] for key in sorted(plain)}), plain)
    return list(found.values())


def _forget(
    directory: str, kept: list[tuple[str, str, dict[str, Any]]], valid: set[tuple[str, str]]
) -> None:
    """Remove the files of attachments that are gone; of flannel's, those of dead containers."""
    containers = {container_id for container_id, _ in valid}
    for container_id, ifname, _ in kept:
        alive = (container_id, ifname) in valid if ifname else container_id in containers
        if not alive:
            name = f"{container_id}:{ifname}" if ifname else container_id
            state.remove(f"{directory.rstrip('/')}/{name}")
