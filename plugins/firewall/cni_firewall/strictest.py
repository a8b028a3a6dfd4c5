# SPDX-License-Identifier: Apache-2.0
"""The strictest ingressPolicy that was ever given for a bridge holds, whatever the backend.

As with Go, whose rules stay: an ADD with a weaker one, which may fail yet, opens nothing.
"""

from __future__ import annotations


def words(bridge: str) -> str:
    """What is so against ingressPolicy same-bridge."""
    return (
        f"containers on bridge {bridge} do not reach each other, as ingressPolicy isolated was "
        "given for it too, or before"
    )


def advice(command: str) -> str:
    """How to go back. command: what takes the isolation out."""
    return f"the strictest policy of a bridge holds, until you call: {command}"
