# SPDX-License-Identifier: Apache-2.0
"""Where STATUS says that files can be made."""

from __future__ import annotations

import os
import posix

import pytest

from libcni.types.errors import CniError
from libcni.writable import require_writable


class Full:
    """A file system with nothing but what it keeps back for root."""

    f_flag = 0
    f_blocks, f_bfree, f_bavail = 1000, 50, 0
    f_files, f_ffree, f_favail = 1000, 50, 50


def test_what_is_kept_back_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "statvfs", lambda _: Full)
    monkeypatch.setattr(posix, "access", lambda *_: True)
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    require_writable("/run", "ipam.dataDir")
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    with pytest.raises(CniError, match="/run: No space left") as caught:
        require_writable("/run", "ipam.dataDir")
    assert caught.value.code == 50
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    monkeypatch.setattr(Full, "f_bfree", 500)
    with pytest.raises(CniError, match="/run: No space left"):
        require_writable("/run", "ipam.dataDir")
    monkeypatch.setattr(Full, "f_bavail", 500)
    monkeypatch.setattr(Full, "f_favail", 0)
    with pytest.raises(CniError, match="inodes"):
        require_writable("/run", "ipam.dataDir")


def test_nothing_is_made(tmp_path: os.PathLike[str]) -> None:
    require_writable(f"{tmp_path}/a/b", "ipam.dataDir")
    assert not os.listdir(tmp_path)
