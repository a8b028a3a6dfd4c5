# SPDX-License-Identifier: Apache-2.0
"""A chain of the hook forward that drops what it does not accept itself, and the words for it."""

from __future__ import annotations

from libcni.iptables import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: To a chain that is neither the backend's own nor that of another backend.
ACCEPT_THERE = "have that chain accept what is from and to containers"
#: To one that is the other backend's.
USE_IPTABLES = 'use "backend": "iptables", whose rules are in that chain'


class Dropping:
    """Such a chain. versions: the IP versions that it sees.

    is_own: it is where the backend accepts what containers begin, and drops what others do.
    is_certain: it is known not to accept the containers.
    """

    __slots__ = ("advice", "is_certain", "is_own", "name", "versions")

    def __init__(self, name: str, versions: Iterable[int], advice: str, is_certain: bool) -> None:
        self.name = name
        self.versions = frozenset(versions)
        self.advice = advice
        self.is_certain = is_certain
        self.is_own = False

    @classmethod
    def own(cls, name: str, version: int, admin_chain: str) -> Dropping:
        """iptables' FORWARD, where that is the backend.

        admin_chain: where rules of the administrator's may accept what comes in.
        """
        rule = f"{program(version)} -A {admin_chain} -m conntrack --ctstate DNAT -j ACCEPT"
        made = cls(name, [version], f"accept what may come in, published ports say: {rule}", False)
        made.is_own = True
        return made

    def words(self, whose: str) -> str:
        """What it does to the traffic of `whose`."""
        if self.is_own:
            return (
                f"{self.name} drops connections to {whose} that others begin, by published ports "
                "too, unless it accepts them itself"
            )
        return (
            f"{self.name} drops what it does not accept itself, so that the traffic of {whose} "
            "may not pass"
        )
