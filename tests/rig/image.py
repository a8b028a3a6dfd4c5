# SPDX-License-Identifier: Apache-2.0
"""A container image made on the spot: busybox and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import platform
import tarfile

#: Debian's package busybox-static.
BUSYBOX = pathlib.Path("/bin/busybox")
#: Serves as the pause image of every sandbox.
NAME = "localhost/adder-pause:1"
_APPLETS = ("sh", "sleep", "ping", "nc", "ip", "cat", "httpd")


def _archive(files: dict[str, bytes | str]) -> bytes:
    """A tar of directories (name ends in "/"), links (text) and executables (bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def root() -> bytes:
    """The root of a container's file system as a tar, ready for `podman import`."""
    assert BUSYBOX.exists(), "apt-get install busybox-static"
    tree: dict[str, bytes | str] = dict.fromkeys(("bin/", "dev/", "etc/", "proc/", "sys/"), b"")
    tree["bin/busybox"] = BUSYBOX.read_bytes()
    tree.update({f"bin/{applet}": "busybox" for applet in _APPLETS})
    return _archive(tree)


def build(target: pathlib.Path, name: str = NAME) -> pathlib.Path:
    """Write an OCI layout of an image called `name` to `target`, for `ctr images import`."""
    layer = root()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    prefix = "application/vnd.oci.image."
    blobs: dict[str, bytes | str] = {}

    def add(kind: str, data: bytes) -> dict[str, object]:
        blobs["blobs/sha256/" + _digest(data)[7:]] = data
        return {"mediaType": prefix + kind, "digest": _digest(data), "size": len(data)}

    layers = [add("layer.v1.tar", layer)]
    config_blob = add("config.v1+json", json.dumps(config).encode())
    manifest = {"schemaVersion": 2, "config": config_blob, "layers": layers}
    entry = add("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    layout: dict[str, bytes | str] = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
        "blobs/": b"",
        "blobs/sha256/": b"",
        **blobs,
    }
    target.write_bytes(_archive(layout))
    return target


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
