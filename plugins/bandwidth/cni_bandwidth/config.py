# SPDX-License-Identifier: Apache-2.0
"""The configuration of bandwidth: two limits, in bits as operators have them."""

from __future__ import annotations

from libcni.netlink.tc import TokenBucket, token_bucket
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds that a packet may wait, as in Go.
_LATENCY = 0.025
#: What Kubernetes' runtimes send for want of a burst: the largest int32 and uint32. Taken at
#: their word, the first 256 or 512 MiB would pass unlimited.
_NO_BURST = ((1 << 31) - 1, (1 << 32) - 1)
#: A burst that was not given is what the rate sends in this many seconds, and at least what the
#: kernel may hand over as one packet, bytes.
_BURST_SECONDS, _BURST_LEAST = 0.1, 65536
#: Bytes that the kernel's 32 bits hold.
_LARGEST = (1 << 32) - 1
#: Bytes/s: net/sched/sch_tbf.c multiplies them, in 64 bits, by what the bucket holds in ns, and
#: that is at least a tick of 64.
_FASTEST = (1 << 58) - 1


class Limit:
    """rate: bit/s. burst: bits, 0 for one that suits the rate."""

    __slots__ = ("burst", "rate")

    def __init__(self, rate: int, burst: int, direction: str) -> None:
        """direction: begins the keys in messages. Raises CniError 7."""
        if not rate:
            raise _invalid(f"{direction}Burst is {burst}, but {direction}Rate is not given")
        if rate // 8 > _FASTEST:
            raise _invalid(
                f"{direction}Rate {rate} is more than {_FASTEST * 8} bit/s, which the kernel's "
                "arithmetic cannot do"
            )
        if rate < 8:
            raise _invalid(f"{direction}Rate {rate} is less than one byte a second")
        if burst not in _NO_BURST and burst // 8 >= _LARGEST:
            raise _invalid(f"{direction}Burst {burst} cannot be more than 4GB")
        self.rate = rate
        self.burst = 0 if burst in _NO_BURST else burst

    def bucket(self) -> TokenBucket:
        """The token bucket of this limit."""
        rate = self.rate // 8
        fitting = min(max(int(rate * _BURST_SECONDS), _BURST_LEAST), _LARGEST - 1)
        burst = self.burst // 8 or fitting
        return token_bucket(rate, burst, _LATENCY)


def limits_of(document: dict[str, Any]) -> tuple[Limit | None, Limit | None]:
    """What the container may receive, and what it may send; None for no limit.

    The keys of the configuration go before those of runtimeConfig.bandwidth, if any of the
    former is given, be it as 0. Raises CniError 7 naming the key.
    """
    keys = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
    given = document
    if not any(key in document for key in keys):
        given = (document.get("runtimeConfig") or {}).get("bandwidth") or {}
    ingress_rate, ingress_burst, egress_rate, egress_burst = (given.get(key, 0) for key in keys)
    return (
        _limit(ingress_rate, ingress_burst, "ingress"),
        _limit(egress_rate, egress_burst, "egress"),
    )


def _limit(rate: int, burst: int, direction: str) -> Limit | None:
    if not rate and (not burst or burst in _NO_BURST):
        return None
    return Limit(rate, burst, direction)


def _invalid(msg: str) -> CniError:
    return CniError(INVALID_NETWORK_CONFIG, msg)
