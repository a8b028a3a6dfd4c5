# SPDX-License-Identifier: Apache-2.0
"""`cleanup`: take everything of the overlay off this node, for good."""

from __future__ import annotations

import contextlib
import logging
import pathlib

from cni_vxlan_overlay.agent import traffic
from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.logs import count
from cni_vxlan_overlay.agent.memory import Memory, is_locked
from cni_vxlan_overlay.agent.settings import Settings, open_store
from cni_vxlan_overlay.agent.store import StoreError
from cni_vxlan_overlay.fabric import Fabric
from cni_vxlan_overlay.lease import read_lease
from cni_vxlan_overlay.vtep import AGENT
from libcni.inet import Prefix
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Where any direct route that bears our protocol number leads.
_ANYWHERE = [Prefix(bytes(4), 0), Prefix(bytes(16), 0)]


async def cleanup(settings: Settings) -> int:
    """Withdraw from the store, remove devices, routes, rules and files. 1 if any of it failed.

    Idempotent. What others made, and what runtimes attached, stays.
    """
    if is_locked(settings.state_file):
        log.error("vxlan-overlayd runs on this node and would make it all again: stop it first")
        return 1
    failed = False
    memory = Memory(settings.state_file)
    memory.load()
    try:
        store = open_store(settings)
        try:
            await store.withdraw(memory.own)
        finally:
            await store.close()
    except StoreError as error:
        log.error("this node is still in the store: %s", error)
        failed = True
    kernel = Kernel()
    try:
        kernel.networks = await _networks(kernel, memory, settings.subnet_file)
        direct = await kernel.read()
        failures = await kernel.apply(Fabric(), direct, set())
        removed = await kernel.remove_devices(owner=AGENT)
        routes = count(len(direct), "direct route")
        log.info("removed: %s, %s", ", ".join(removed) or "no device", routes)
        failed |= bool(failures)
    finally:
        await kernel.close()
    try:
        traffic.remove()
    except CniError as error:
        log.error("traffic rules: %s", error)
        failed = True
    try:
        memory.forget()
        pathlib.Path(settings.subnet_file).unlink(missing_ok=True)
    except OSError as error:
        log.error("cannot remove %s: %s", error.filename, error.strerror)
        failed = True
    return int(failed)


async def _networks(kernel: Kernel, memory: Memory, subnet_file: str) -> list[Prefix]:
    """Where the agent's direct routes lead. They bear our protocol number: anywhere.

    But overlays without an agent have that number too: where there is one on this node, only
    the networks that the agent wrote down.
    """
    others = await kernel.owners() - {AGENT}
    if not others:
        return _ANYWHERE
    networks = [Prefix.parse(text) for text in memory.conf.get("networks", ())]
    if not networks:
        with contextlib.suppress(CniError):
            networks = read_lease(subnet_file).networks
    if not networks:
        kernel.networks = _ANYWHERE
        left = sorted(destination for destination, _, _ in (await kernel.read()).routes)
        if left:
            log.warning(
                "no file says which networks were the agent's: direct routes to %s stay, as they "
                "may be those of the network %s",
                ", ".join(left),
                " or ".join(sorted(others)),
            )
    return networks
