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
from tools.freeze import agents, hot

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
    """What the plugins and tools of a directory share."""
    (found,) = directory.glob(f"{NAME}-*")
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


def test_the_whole_is_small(tmp_path: pathlib.Path) -> None:
    """What a runtime's directory gets; a node agent is a program of its own."""
    install.install(BIN, tmp_path)
    inodes = {}
    for path in tmp_path.rglob("*"):
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
    programs = {path for names in agents.agents(ROOT).values() for path in names}
    assert {p.name for p in target.iterdir()} == {
        *(path.name for path in BIN.iterdir() if path.is_file() and path.name not in programs),
        contents(BIN).name,
    }
    assert len({p.stat().st_ino for p in target.iterdir() if p.is_file()}) == 1
    foreign = target / "bridge"
    foreign.unlink()
    foreign.write_text("#!/bin/sh\n")
    install.uninstall(target)
    assert [p.name for p in target.iterdir()] == ["bridge"]
    assert install.uninstall(target) == []
    assert install.uninstall(tmp_path / "nowhere") == []


def another_build(directory: pathlib.Path, digits: str) -> pathlib.Path:
    """A directory with a set that has other bytes in every executable and another name."""
    install.install(BIN, directory)
    old = contents(directory)
    renamed = old.name[:-8] + digits
    data = (directory / "bridge").read_bytes().replace(old.name.encode(), renamed.encode())
    old.rename(directory / renamed)
    for path in [p for p in directory.iterdir() if p.is_file()]:
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o755)
    return directory


def test_install_copies_no_attributes_and_no_mode_but_x(tmp_path: pathlib.Path) -> None:
    """SELinux labels and capabilities of the build's tree would be wrong in /opt/cni/bin."""
    source, target = tmp_path / "source", tmp_path / "bin"
    shutil.copytree(BIN, source)
    for path in [source, *source.rglob("*")]:
        os.setxattr(path, "user.label", b"user_home_t")
        path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
    before = os.umask(0o077)
    try:
        target.mkdir()
        install.install(source, target)
    finally:
        os.umask(before)
    placed = list(target.rglob("*"))
    assert len(placed) > 100
    assert [path for path in placed if os.listxattr(path)] == []
    assert {path.stat().st_mode & 0o7777 for path in placed if path.is_dir()} == {0o755}
    for path in (path for path in placed if path.is_file()):
        original = source / path.relative_to(target)
        expected = 0o755 if original.stat().st_mode & 0o100 else 0o644
        assert path.stat().st_mode & 0o7777 == expected, path
        assert path.read_bytes() == original.read_bytes(), path


def test_the_set_before_stays_also_when_it_was_the_older_build(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    second = another_build(tmp_path / "second", "22222222")
    third = another_build(tmp_path / "third", "33333333")
    for source in (BIN, second, BIN):  # a try of the new build, and back
        install.install(source, target)
    running = contents(BIN).name
    install.install(third, target)
    names = {p.name for p in target.iterdir() if p.is_dir()}
    assert names == {running, contents(third).name}
    assert version(target / "bridge")


def test_uninstall_needs_no_build_and_removes_any(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    install.install(BIN, target)
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


def test_an_installation_that_was_killed_is_cleared_away(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    install.install(BIN, target)
    before = {path.name for path in target.iterdir()}
    dead = subprocess.Popen(["true"])
    dead.wait()

    def leave(process: int) -> set[str]:
        names = {f".{NAME}-{contents(BIN).name}.{process}", f".{NAME}-bridge.{process}"}
        (target / min(names)).mkdir()
        (target / min(names) / "stdlib.zip").write_bytes(b"half")
        (target / max(names)).write_bytes(b"half")
        return names

    names = leave(dead.pid)
    assert names <= {line.rpartition("/")[2] for line in install.install(BIN, target)}
    assert {path.name for path in target.iterdir()} == before
    names = leave(dead.pid)
    assert names <= {line.rpartition("/")[2] for line in install.uninstall(target)}
    assert list(target.iterdir()) == []
    running = leave(os.getpid())
    install.uninstall(target)
    assert {path.name for path in target.iterdir()} == running, "they are being written"


def test_directories_of_somebody_else_stay(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "bin"
    for name in (f"{NAME}-notes", f"{NAME}-0.1.0-backup"):
        (target / name).mkdir(parents=True)
    install.install(BIN, target)
    install.install(another_build(tmp_path / "other", "00000000"), target)
    install.uninstall(target)
    assert {path.name for path in target.iterdir()} == {f"{NAME}-notes", f"{NAME}-0.1.0-backup"}


def test_a_program_that_may_not_be_executed_is_installed_again(tmp_path: pathlib.Path) -> None:
    install.install(BIN, tmp_path)
    (tmp_path / "bridge").chmod(0o644)
    assert f"installed {tmp_path}/bridge" in install.install(BIN, tmp_path)
    assert version(tmp_path / "bridge")


def test_wrong_use_of_the_installer_is_told_in_words(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["install", "one"], ["remove", "one"]):
        with pytest.raises(SystemExit) as stop:
            install.main(words)
        assert stop.value.code == 2
    for source in (tmp_path, tmp_path / "nowhere"):
        assert install.main(["install", str(source), str(tmp_path / "bin")]) == 1
        assert str(source) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "bin").exists()


def test_the_tarball_can_be_read_by_everybody_whatever_the_umask_was(
    tmp_path: pathlib.Path,
) -> None:
    shared = tmp_path / "build/bin/shared"
    shared.mkdir(parents=True)
    for path, mode in ((shared / "library.so", 0o600), (shared.parent / "bridge", 0o700)):
        path.touch(mode)
    shared.chmod(0o700)
    for name in ("LICENSE", "README.md", "CHANGELOG.md"):
        (tmp_path / name).touch(0o600)
    with tarfile.open(dist.pack(tmp_path, tmp_path / "dist")) as archive:
        modes = {entry.name: entry.mode for entry in archive}
    readable = dict.fromkeys(("LICENSE", "README.md", "CHANGELOG.md"), 0o644)
    readable["shared/library.so"] = 0o644
    assert modes == {"shared": 0o755, "bridge": 0o755, **readable}


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
    other = another_build(tmp_path / "other", "00000000")
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
    other = another_build(tmp_path / "other", "11111111")
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
