# SPDX-License-Identifier: Apache-2.0
"""Make dist/adder-<version>-linux-<arch>.tgz: flat, as /opt/cni/bin wants it, with checksums."""

from __future__ import annotations

import gzip
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
    # Whatever the umask of the build: a runtime's user has to read all of it.
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def main() -> int:
    """Write the tarball and its .sha256 and .sha512 beside it; the same build, the same bytes."""
    root = pathlib.Path(__file__).resolve().parents[1]
    path = pack(root, root / "dist")
    print(f"{path.relative_to(root)}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def pack(root: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Pack build/bin of `root` into the directory `target`; returns the tarball."""
    machine = platform.machine()
    target.mkdir(exist_ok=True)
    path = target / f"{NAME}-{VERSION}-linux-{_ARCHITECTURES.get(machine, machine)}.tgz"
    # By hand, since the header of tarfile's own gzip holds the time and the file's name.
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=_EPOCH) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for entry in sorted((root / "build/bin").iterdir()):
            archive.add(entry, arcname=entry.name, filter=_normal)
        for name in ("LICENSE", "README.md", "CHANGELOG.md"):
            archive.add(root / name, arcname=name, filter=_normal)
    for algorithm in ("sha256", "sha512"):
        digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.{algorithm}").write_text(f"{digest}  {path.name}\n")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
