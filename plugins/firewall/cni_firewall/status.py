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

    That a chain drops is said on stderr only, unless it concerns both IP versions, of which the
    containers may have but one, and is known of all traffic: a chain with rules of its own may
    accept the containers, and the backend's own chain accepts what they begin. A policy's not
    holding for IPv6 is said there, too.
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
    dropping = policy.any_chain(backend, config)
    certain = [chain for chain in dropping if chain.is_certain]
    if {version for chain in certain for version in chain.versions} == {4, 6}:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"{' and '.join([chain.name for chain in certain])} drops what it does not accept "
            "itself: containers' traffic would not pass",
            certain[0].advice,
        )
    for chain in dropping:
        policy.say(f"firewall: {chain.words('containers')}; {chain.advice}")
