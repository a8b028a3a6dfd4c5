# SPDX-License-Identifier: Apache-2.0
"""The frozen directory: what it holds, how large it is, and that it works wherever it is put."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from libcni.about import NAME, VERSION
from tools import dist, install
from tools.freeze import hot

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))
MEGABYTE = 1_000_000

pytestmark = pytest.mark.frozen


def version(program: pathlib.Path, **options: object) -> dict[str, object]:
    """What the executable answers to VERSION in an empty environment."""
    result = subprocess.run(
        [program],
        env={"CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    assert result.stderr == b""
    document: dict[str, object] = json.loads(result.stdout)
    return document


def contents(directory: pathlib.Path) -> pathlib.Path:
    (found,) = (p for p in directory.iterdir() if p.is_dir())
    return found


def test_every_plugin_folder_is_an_executable() -> None:
    names = {p.name for p in BIN.iterdir() if p.is_file()}
    assert names >= {*hot.plugin_types(ROOT), "cnitool"}


@pytest.mark.parametrize("name", hot.plugin_types(ROOT))
def test_version_needs_no_environment(name: str) -> None:
    assert version(BIN / name)["supportedVersions"] == [
        *("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
    ]


@pytest.mark.parametrize("name", hot.plugin_types(ROOT))
def test_about_text_goes_to_stderr(name: str) -> None:
    result = subprocess.run([BIN / name], env={}, capture_output=True, check=True)
    assert result.stdout == b""
    assert result.stderr.startswith(f"CNI {name} plugin v{VERSION} ({NAME})\n".encode())


def test_the_whole_is_small() -> None:
    inodes = {}
    for path in BIN.rglob("*"):
        if path.is_file() and not path.is_symlink():
            inodes[path.stat().st_ino] = path.stat().st_size
    assert sum(inodes.values()) <= 45 * MEGABYTE


def test_the_hot_path_is_small() -> None:
    """The files that a plugin's hot path maps or reads."""
    shared = contents(BIN)
    files = [BIN / "bridge"]
    files += [p for e in hot.HOT_EXTENSIONS for p in shared.rglob(f"{e}.cpython-*")]
    assert sum(p.stat().st_size for p in files if p.exists()) <= 12 * MEGABYTE


def test_works_as_links_copies_and_from_elsewhere(tmp_path: pathlib.Path) -> None:
    linked, copied = tmp_path / "linked", tmp_path / "copied"
    linked.mkdir()
    copied.mkdir()
    (linked / "bridge").symlink_to(BIN / "bridge")
    shutil.copytree(contents(BIN), copied / contents(BIN).name)
    shutil.copy2(BIN / "bridge", copied / "bridge")
    for directory in (linked, copied):
        assert version(directory / "bridge")["cniVersion"] == "1.1.0"


def test_works_from_a_deleted_directory(tmp_path: pathlib.Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", f"cd {gone} && rmdir {gone} && CNI_COMMAND=VERSION exec {BIN}/bridge"]
    result = subprocess.run(command, env={}, stdin=subprocess.DEVNULL, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["cniVersion"] == "1.1.0"


def test_leaves_tmp_alone_and_needs_no_exec_there() -> None:
    # The build may itself be below /tmp: reach it by another way before hiding /tmp.
    script = (
        f"mount --bind {BIN} /mnt && mount -t tmpfs -o noexec,size=64k none /tmp && "
        "CNI_COMMAND=VERSION /mnt/bridge </dev/null && ls -A /tmp"
    )
    command = ["unshare", "-m", "sh", "-ec", script]
    result = subprocess.run(command, capture_output=True, check=True)
    assert len(result.stdout.splitlines()) == 1, "something was left in /tmp"


def test_install_is_idempotent_and_uninstall_removes_only_ours(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    assert install.install(BIN, target)
    assert install.install(BIN, target) == []
    foreign = target / "bridge"
    foreign.unlink()
    foreign.write_text("#!/bin/sh\n")
    install.uninstall(target)
    assert [p.name for p in target.iterdir()] == ["bridge"]
    assert install.uninstall(target) == []
    assert install.uninstall(tmp_path / "nowhere") == []


def test_uninstall_needs_no_build_and_removes_any(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    shutil.copytree(BIN, target)
    old = contents(target)
    renamed = f"{old.name[:-8]}00000000"
    data = (target / "bridge").read_bytes()
    assert data.endswith(old.name.encode())
    old.rename(target / renamed)
    for name in ("bridge", "loopback"):
        (target / name).unlink()
        (target / name).write_bytes(data[: -len(old.name)] + renamed.encode())
    command = [sys.executable, "-m", "tools.install", "uninstall", str(target)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert list(target.iterdir()) == []


def test_the_tarball_of_a_build_is_always_the_same(tmp_path: pathlib.Path) -> None:
    one = dist.pack(ROOT, tmp_path / "one").read_bytes()
    for path in BIN.iterdir():
        os.utime(path)
    two = dist.pack(ROOT, tmp_path / "two")
    assert two.read_bytes() == one
    with tarfile.open(two) as archive:
        names = archive.getnames()
    assert {"bridge", "cnitool", contents(BIN).name, "LICENSE"} <= set(names)


def test_installing_over_running_plugins_never_fails_one(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    install.install(BIN, target)
    other = tmp_path / "other"
    shutil.copytree(BIN, other)
    # Another build: other bytes in every executable, another name for the directory.
    old = contents(other)
    renamed = old.name[:-8] + "00000000"
    data = (other / "bridge").read_bytes().replace(old.name.encode(), renamed.encode())
    old.rename(other / renamed)
    for path in [p for p in other.iterdir() if p.is_file()]:
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o755)
    script = (
        f"while [ ! -e {tmp_path}/stop ]; do CNI_COMMAND=VERSION {target}/bridge </dev/null"
        f" >/dev/null 2>>{tmp_path}/errors || echo failed >>{tmp_path}/errors; done"
    )
    runners = [subprocess.Popen(["sh", "-c", script]) for _ in range(2)]
    try:
        for _ in range(10):
            install.install(other, target)
            install.install(BIN, target)
    finally:
        (tmp_path / "stop").touch()
        for runner in runners:
            runner.wait()
    assert not (tmp_path / "errors").exists() or (tmp_path / "errors").read_text() == ""


def test_a_full_file_system_leaves_the_old_set(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    other = tmp_path / "other"
    shutil.copytree(BIN, other)
    old = contents(other)
    old.rename(other / (old.name[:-8] + "11111111"))
    script = (
        "import pathlib, subprocess, sys; from tools import install\n"
        "bin, other, target = map(pathlib.Path, sys.argv[1:])\n"
        "target.mkdir()\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=40m', 'none', target], check=True)\n"
        "install.install(bin, target)\n"
        "before = sorted(p.name for p in target.iterdir())\n"
        "try: install.install(other, target)\n"
        "except OSError as error: print(error)\n"
        "else: raise SystemExit('the second set fitted')\n"
        "assert sorted(p.name for p in target.iterdir()) == before\n"
        "subprocess.run([target / 'bridge'], env={'CNI_COMMAND': 'VERSION'}, check=True)\n"
    )
    command = ["unshare", "-m", sys.executable, "-c", script, str(BIN), str(other), str(target)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "No space left" in result.stdout
