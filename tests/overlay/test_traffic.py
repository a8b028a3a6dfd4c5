# SPDX-License-Identifier: Apache-2.0
"""The agent's traffic rules where none are wanted."""

from __future__ import annotations

from typing import Any

import pytest

from cni_vxlan_overlay.agent import traffic
from libcni.inet import Prefix
from libcni.nftables import transaction
from tests.rig.host import Host

NETWORKS = (Prefix(bytes((10, 244, 0, 0)), 16),)
SUBNETS = (Prefix(bytes((10, 244, 1, 0)), 24),)
WANTED = traffic.TrafficRules(NETWORKS, SUBNETS, masquerade=True, forward=True)
NONE = traffic.TrafficRules(NETWORKS, SUBNETS, masquerade=False, forward=False)


def tables(host: Host) -> str:
    return host.run("nft", "list", "tables")


def test_nothing_is_changed_where_nothing_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds; but what there is goes, an earlier agent's too."""
    commits: list[Any] = []
    commit = transaction.commit

    def noted(*args: Any) -> Any:
        commits.append(args)
        return commit(*args)

    monkeypatch.setattr(traffic, "commit", noted)
    kept = traffic.Traffic()
    for _ in range(2):
        assert not kept.ensure(NONE)
    assert commits == []
    traffic.Traffic().ensure(WANTED)
    assert "adder_overlay" in tables(host)
    for _ in range(2):
        assert not kept.ensure(NONE)
    assert "adder_overlay" not in tables(host)
    assert len(commits) == 2
