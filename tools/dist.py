# SPDX-License-Identifier: Apache-2.0
"""Make the release tarballs in dist/, with checksums; the same build, the same bytes.

adder-<version>-linux-<arch>.tgz is flat, as /opt/cni/bin wants it. Each plugin that has a folder
deploy/ has it in adder-<version>-<plugin>-deploy.tgz, below one directory of that name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pathlib
import platform
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from libcni.about import NAME, VERSION

#: Go's names for architectures, which release files of CNI plugins are named by.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_EPOCH = 1700000000
#: A link of Markdown to another file: not into the page itself, not elsewhere.
_LINK = re.compile(r"\[([^\]]+)\]\((?!#|[a-z]+:)([^)\s]+)\)")


def _normal(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = _EPOCH
    # Whatever the umask of the build: a runtime's user has to read all of it.
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def main() -> int:
    """Write the tarballs, and .sha256 and .sha512 of each beside it."""
    root = pathlib.Path(__file__).resolve().parents[1]
    for path in (pack(root, root / "dist"), *pack_deploy(root, root / "dist")):
        print(f"{path.relative_to(root)}: {path.stat().st_size / 1e6:.2g} MB")
    return 0


def pack(root: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Pack build/bin of `root` into the directory `target`; returns the tarball."""
    machine = platform.machine()
    path = target / f"{NAME}-{VERSION}-linux-{_ARCHITECTURES.get(machine, machine)}.tgz"
    with _archive(path) as archive:
        for entry in sorted((root / "build/bin").iterdir()):
            archive.add(entry, arcname=entry.name, filter=_normal)
        for name in ("LICENSE", "README.md", "CHANGELOG.md"):
            _add(archive, root / name, name)
    return path


def pack_deploy(root: pathlib.Path, target: pathlib.Path) -> list[pathlib.Path]:
    """Pack the plugins' deploy folders of `root` into `target`; returns the tarballs."""
    packed = []
    for folder in sorted(root.glob("plugins/*/deploy")):
        top = f"{NAME}-{VERSION}-{folder.parent.name}-deploy"
        with _archive(target / f"{top}.tgz") as archive:
            for path in [root / "LICENSE", *sorted(folder.iterdir())]:
                _add(archive, path, f"{top}/{path.name}")
        packed.append(target / f"{top}.tgz")
    return packed


@contextmanager
def _archive(path: pathlib.Path) -> Iterator[tarfile.TarFile]:
    """A tarball to be filled; it gets its checksums afterwards."""
    path.parent.mkdir(exist_ok=True)
    # By hand, since the header of tarfile's own gzip holds the time and the file's name.
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=_EPOCH) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        yield archive
    for algorithm in ("sha256", "sha512"):
        digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.{algorithm}").write_text(f"{digest}  {path.name}\n")


def _add(archive: tarfile.TarFile, path: pathlib.Path, name: str) -> None:
    """Add a file; a page without its links into the source tree, which is not there."""
    content = path.read_bytes()
    if path.suffix == ".md":
        content = unlinked(content.decode()).encode()
    entry = archive.gettarinfo(path, name)
    entry.size = len(content)
    archive.addfile(_normal(entry), io.BytesIO(content))


def unlinked(page: str) -> str:
    """A page of the source tree for who has only the page: its links say which file they mean."""
    text, links = _LINK.subn(lambda link: f"{link[1]}: {link[2]}", page)
    if not links:
        return page
    title, _, rest = text.partition("\n\n")
    words = "(Pages and other files that are named here by a path are in the source tree.)"
    return f"{title}\n\n{words}\n\n{rest}"


if __name__ == "__main__":
    raise SystemExit(main())
