# SPDX-License-Identifier: Apache-2.0
"""What several of the unit tests start from."""

from __future__ import annotations

import pathlib

import pytest

from tests.unit.desk import Desk


@pytest.fixture
def desk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Desk:
    made = Desk(tmp_path, capfd)
    monkeypatch.setenv("NETCONFPATH", str(made.net_d))
    monkeypatch.setenv("CNI_PATH", str(made.recorder.directory))
    for name in ("CNI_ARGS", "CAP_ARGS", "CNI_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    return made
