# SPDX-License-Identifier: Apache-2.0
"""A container's network namespace, as a runtime makes it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TypeVar

from pyroute2 import IPRoute

from cni_conformance import namespaces, state

T = TypeVar("T")


class Sandbox:
    """A network namespace pinned at `path`, which is what CNI_NETNS names; `lo` is down in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        namespaces.pin_new_network(pathlib.Path(self.path))

    def remove(self) -> None:
        """Unpin it: the kernel removes what is in it, and its path is gone. Idempotent."""
        if pathlib.Path(self.path).exists():
            namespaces.unmount(self.path)
            pathlib.Path(self.path).unlink()

    def within(self, function: Callable[[], T]) -> T:
        """Call `function` inside, in a thread of its own; so are children that it starts."""
        return namespaces.within(self.path, function)

    def netlink(self, function: Callable[[IPRoute], T]) -> T:
        """Call `function` with a netlink socket of the inside."""

        def work() -> T:
            with IPRoute() as netlink:
                return function(netlink)

        return self.within(work)

    def state(self) -> state.State:
        """What is inside (no files)."""
        return self.within(lambda: state.take(files=False))

    def link_names(self) -> set[str]:
        """The names of the interfaces inside."""
        return self.netlink(lambda netlink: {str(li.get("ifname")) for li in netlink.get_links()})
