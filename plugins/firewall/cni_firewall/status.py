# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now, and would traffic pass?"""

from __future__ import annotations

from cni_firewall.config import FIREWALLD, NFTABLES, OPEN, Config, choose
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when the backend cannot be used, or cannot let traffic pass or keep
    containers apart.

    A chain that drops, but has rules of its own, may be one that accepts the containers: that is
    said on stderr only; so is what concerns IPv6 alone, which the containers may not have.
    """
    config = Config(request.config)
    backend = choose(config)
    from cni_firewall import ipt, nft

    if backend == FIREWALLD:
        from cni_firewall import firewalld

        reason = firewalld.unusable() or (ipt.unusable() if config.policy != OPEN else "")
    else:
        reason = nft.unusable() if backend == NFTABLES else ipt.unusable()
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"backend {backend} cannot work here: {reason}")
    from cni_firewall import policy
    from cni_firewall.gaps import gaps

    for gap in gaps(config.policy, backend, (4, 6)):
        words = gap.words(config.policy)
        if gap.is_certain:
            raise CniError(PLUGIN_NOT_AVAILABLE, words, gap.advice)
        policy.say(f"firewall: {words}; {gap.advice}")
    dropping = policy.any_chain(backend)
    if dropping is None:
        return
    words = f"{dropping.name} drops what it does not accept itself"
    if dropping.is_certain:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"{words}: containers' traffic would not pass",
            dropping.advice,
        )
    policy.say(f"firewall: {words}, so that traffic of containers may not pass; {dropping.advice}")
