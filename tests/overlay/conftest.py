# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the overlay's tests."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.overlay.cluster import Cluster
from tests.overlay.lone import Lone
from tests.overlay.stores import Kubernetes
from tests.rig.host import Host
from tests.rig.plugins import Runner


@pytest.fixture
def cluster(host: Host, bin_dir: pathlib.Path) -> Iterator[Cluster]:
    """An underlay without nodes yet; all that is made on it goes with the test."""
    made = Cluster(host, bin_dir)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def lone(host: Host, run_plugin: Runner) -> Lone:
    """One node, in the test's own namespace."""
    return Lone(host, run_plugin)


@pytest.fixture
def kubernetes(cluster: Cluster) -> Iterator[Kubernetes]:
    """A stand-in for an API server."""
    made = Kubernetes()
    yield made
    made.close()
