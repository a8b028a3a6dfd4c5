# SPDX-License-Identifier: Apache-2.0
"""Make dist/adder-<version>-linux-<arch>.tgz: flat, as /opt/cni/bin wants it, with checksums."""

from __future__ import annotations

import hashlib
import pathlib
import platform
import tarfile

from libcni.about import NAME, VERSION

#: Go's names for architectures, which release files of CNI plugins are named by.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_EPOCH = 1700000000


def _normal(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = _EPOCH
    return entry


def main() -> int:
    """Write the tarball and its .sha256 and .sha512 beside it."""
    root = pathlib.Path(__file__).resolve().parents[1]
    machine = platform.machine()
    target = root / "dist"
    target.mkdir(exist_ok=True)
    path = target / f"{NAME}-{VERSION}-linux-{_ARCHITECTURES.get(machine, machine)}.tgz"
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        for entry in sorted((root / "build/bin").iterdir()):
            archive.add(entry, arcname=entry.name, filter=_normal)
        for name in ("LICENSE", "README.md", "CHANGELOG.md"):
            archive.add(root / name, arcname=name, filter=_normal)
    for algorithm in ("sha256", "sha512"):
        digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.{algorithm}").write_text(f"{digest}  {path.name}\n")
    print(f"{path.relative_to(root)}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
