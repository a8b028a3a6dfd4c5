# SPDX-License-Identifier: Apache-2.0
"""The release tarballs: what is in them, always the same; tests/frozen packs a real build."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import tarfile

from libcni.about import NAME, VERSION
from tests.rig.plugins import ROOT
from tools import dist

_TOP = f"{NAME}-{VERSION}-vxlan-overlay-deploy"


def tree(root: pathlib.Path) -> pathlib.Path:
    """A source tree with what is packed, and a build of one file."""
    (root / "build/bin").mkdir(parents=True)
    (root / "build/bin/bridge").write_bytes(b"program")
    for name in ("LICENSE", "README.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, root / name)
    shutil.copytree(ROOT / "plugins/vxlan-overlay/deploy", root / "plugins/vxlan-overlay/deploy")
    return root


def text(tarball: pathlib.Path, name: str) -> str:
    """A file of a tarball."""
    with tarfile.open(tarball) as archive:
        member = archive.extractfile(name)
        assert member is not None
        return member.read().decode()


def test_the_deploy_folder_is_a_tarball_of_its_own(tmp_path: pathlib.Path) -> None:
    (packed,) = dist.pack_deploy(ROOT, tmp_path)
    assert packed.name == f"{_TOP}.tgz"
    folder = ROOT / "plugins/vxlan-overlay/deploy"
    with tarfile.open(packed) as archive:
        entries = archive.getmembers()
    assert {entry.name for entry in entries} == {
        f"{_TOP}/LICENSE",
        *(f"{_TOP}/{path.name}" for path in folder.iterdir()),
    }
    for entry in entries:
        assert (entry.mode, entry.uid, entry.gid, entry.isfile()) == (0o644, 0, 0, True)
    assert text(packed, f"{_TOP}/nodes.json") == (folder / "nodes.json").read_text()
    for algorithm in ("sha256", "sha512"):
        digest = hashlib.new(algorithm, packed.read_bytes()).hexdigest()
        noted = packed.with_name(f"{packed.name}.{algorithm}").read_text()
        assert noted == f"{digest}  {packed.name}\n"


def test_both_are_the_same_whenever_and_wherever_they_are_packed(tmp_path: pathlib.Path) -> None:
    packed: list[list[tuple[str, bytes]]] = []
    for name in ("one", "two"):
        root = tree(tmp_path / name)
        for path in root.rglob("*"):
            os.utime(path, (len(packed), len(packed)))
            path.chmod(0o700 if path.is_dir() else 0o600 + 0o044 * len(packed))
        target = root / "dist"
        found = [dist.pack(root, target), *dist.pack_deploy(root, target)]
        packed.append([(path.name, path.read_bytes()) for path in found])
    assert packed[0] == packed[1]
    assert len(packed[0]) == 2


def test_the_plugins_tarball_has_nothing_but_what_a_runtime_gets(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path)
    with tarfile.open(dist.pack(root, root / "dist")) as archive:
        assert set(archive.getnames()) == {"bridge", "LICENSE", "README.md", "CHANGELOG.md"}


def test_no_link_of_a_packed_page_leads_nowhere(tmp_path: pathlib.Path) -> None:
    """They say instead which file they mean, and the page where it is."""
    root = tree(tmp_path)
    page = text(dist.pack(root, root / "dist"), "README.md")
    assert "](plugins/" in (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert links
    assert [link for link in links if not link.startswith(("#", "http"))] == []
    assert "| `bridge`: plugins/bridge/README.md | Connects" in page
    head = page.split("\n\n")
    assert head[0] == "# Adder"
    assert head[1].endswith("are in the source tree.)")
    (deploy,) = dist.pack_deploy(root, root / "dist")
    for link in re.findall(r"\]\(([^)\s]+)\)", text(deploy, f"{_TOP}/README.md")):
        assert link.startswith("#")


def test_a_page_without_links_is_as_it_is() -> None:
    for page in ("", "# Title\n\n[below](#below), [there](https://example.com/x)\n"):
        assert dist.unlinked(page) == page
