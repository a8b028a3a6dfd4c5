# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now, and would traffic pass?"""

from __future__ import annotations

from cni_firewall.config import FIREWALLD, NFTABLES, OPEN, Config, choose
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when the backend cannot be used, or cannot let traffic pass.

    A chain that drops, but has rules of its own, may be one that accepts the containers: that is
    said on stderr only. So is that the backend's own drops what is begun elsewhere.
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

    dropping = policy.any_chain(backend, config.admin_chain)
    if dropping is None:
        return
    if dropping.is_certain:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"{dropping.name} drops what it does not accept itself: containers' traffic would "
            "not pass",
            dropping.advice,
        )
    policy.say(dropping.warning("traffic of containers"))
