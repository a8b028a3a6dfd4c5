# SPDX-License-Identifier: Apache-2.0
"""`make install` in a directory that others use too: what they have there is kept, and comes back.

The sets are small files that end as executables of ours do; tests/frozen installs real ones.
"""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from cni_vxlan_overlay.agent import binaries
from tests.rig.plugins import ROOT
from tools import install

_NAMES = ("bridge", "cnitool", "host-local")
_KEPT = ".bridge.before-adder"


def build(root: pathlib.Path, number: int) -> pathlib.Path:
    """A set as the build lays it out."""
    name = f"adder-0.1.0-0000000{number}"
    source = root / f"source-{number}"
    (source / name).mkdir(parents=True)
    (source / name / "stdlib.zip").write_bytes(b"zip")
    first = source / _NAMES[0]
    first.write_bytes(b"\x7fELF" + b"x" * 1000 + name.encode())
    first.chmod(0o755)
    for other in _NAMES[1:]:
        (source / other).hardlink_to(first)
    return source


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
    return build(tmp_path, 1)


@pytest.fixture
def new(tmp_path: pathlib.Path) -> pathlib.Path:
    return build(tmp_path, 2)


@pytest.fixture
def bin_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """A runtime's directory with another's `bridge`, a link, and what we do not have."""
    made = tmp_path / "staged/opt/cni/bin"
    made.mkdir(parents=True)
    bridge = made / "bridge"
    bridge.write_text("#!/bin/sh\n# another's bridge\n")
    bridge.chmod(0o2751)
    os.setxattr(bridge, "user.label", b"another's")
    (made / "calico").write_text("#!/bin/sh\n")
    (made / "host-local").symlink_to("calico")
    return made


def state(directory: pathlib.Path) -> dict[str, tuple[int, int, int]]:
    """Inode, mode and time of change of each file."""
    stats = {path.name: path.lstat() for path in directory.iterdir()}
    return {name: (s.st_ino, s.st_mode, s.st_mtime_ns) for name, s in stats.items()}


def test_what_others_have_is_kept_aloud_and_comes_back(
    bin_dir: pathlib.Path, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(bin_dir)
    assert install.main(["install", str(old), str(bin_dir)]) == 0
    said = capsys.readouterr().out
    assert f"kept {bin_dir}/bridge, which is not ours, as {bin_dir}/{_KEPT}\n" in said
    assert f"kept {bin_dir}/host-local," in said
    assert f"kept {bin_dir}/cnitool" not in said
    assert {".host-local.before-adder", _KEPT, "calico", *_NAMES} <= set(state(bin_dir))
    assert (bin_dir / "bridge").read_bytes() == (old / "bridge").read_bytes()
    assert len({(bin_dir / name).lstat().st_ino for name in _NAMES}) == 1
    assert install.main(["uninstall", str(bin_dir)]) == 0
    said = capsys.readouterr().out
    assert f"restored {bin_dir}/bridge\n" in said
    assert f"removed {bin_dir}/cnitool\n" in said
    assert state(bin_dir) == before
    assert os.getxattr(bin_dir / "bridge", "user.label") == b"another's"
    assert install.uninstall(bin_dir) == []
    assert state(bin_dir) == before


def test_ours_is_never_taken_for_anothers(
    bin_dir: pathlib.Path, old: pathlib.Path, new: pathlib.Path
) -> None:
    """Not the same build, not an older or a newer one, not one that may not be executed."""
    another = (bin_dir / "bridge").read_bytes()
    assert install.install(old, bin_dir)
    assert install.install(old, bin_dir) == []
    for source in (new, old):
        assert not [line for line in install.install(source, bin_dir) if "kept" in line]
    (bin_dir / "bridge").chmod(0o644)
    assert install.install(old, bin_dir) == [f"installed {bin_dir}/{name}" for name in _NAMES]
    assert (bin_dir / _KEPT).read_bytes() == another
    assert not (bin_dir / ".cnitool.before-adder").exists()


def test_a_newer_one_of_its_owner_is_kept_instead_or_stays(
    bin_dir: pathlib.Path, old: pathlib.Path
) -> None:
    for text in ("the package manager's", "and the next"):
        install.install(old, bin_dir)
        (bin_dir / "bridge").unlink()
        (bin_dir / "bridge").write_text(text)
    install.install(old, bin_dir)
    assert (bin_dir / _KEPT).read_text() == "and the next"
    (bin_dir / "bridge").unlink()
    (bin_dir / "bridge").write_text("the last")
    assert f"removed {bin_dir}/{_KEPT}: {bin_dir}/bridge is not ours any more" in (
        install.uninstall(bin_dir)
    )
    assert (bin_dir / "bridge").read_text() == "the last"
    assert set(state(bin_dir)) == {"bridge", "calico", "host-local"}


def test_without_hard_links_and_when_killed_half_way(
    bin_dir: pathlib.Path, old: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = (bin_dir / "bridge").read_bytes()
    # Killed between the two renames: it is kept, and still there under its name.
    (bin_dir / _KEPT).hardlink_to(bin_dir / "bridge")
    install.install(old, bin_dir)
    assert not [name for name in state(bin_dir) if "-aside" in name]
    install.uninstall(bin_dir)
    assert (bin_dir / "bridge").read_bytes() == another

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as vfat does

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        assert install.main(["install", str(old), str(bin_dir)]) == 1, "ours have to be links"
        assert not [name for name in state(bin_dir) if name.startswith(".adder-")]
    install.uninstall(bin_dir)
    status = (bin_dir / "bridge").stat()
    assert (bin_dir / "bridge").read_bytes() == another
    assert stat.S_IMODE(status.st_mode) == 0o2751
    assert os.getxattr(bin_dir / "bridge", "user.label") == b"another's"


def test_what_one_installer_has_kept_the_other_brings_back(
    bin_dir: pathlib.Path, old: pathlib.Path
) -> None:
    before = state(bin_dir)
    install.install(old, bin_dir)
    assert f"restored {bin_dir}/bridge" in binaries.remove(bin_dir)
    assert state(bin_dir) == before


def test_the_tree_is_all_that_it_needs(bin_dir: pathlib.Path, old: pathlib.Path) -> None:
    """`make uninstall` is for any Python, without a virtual environment."""
    install.install(old, bin_dir)
    command = [sys.executable, "-S", "-m", "tools.install", "uninstall", str(bin_dir)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"restored {bin_dir}/bridge\n" in done.stdout
