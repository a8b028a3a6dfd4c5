# SPDX-License-Identifier: Apache-2.0
"""A power loss at any step of what writes files: nobody shares an address, nothing is unreadable.

The writers run under the stepper; from the log of their calls every state is built that the disk
may have (see `power`), and the next boot has to get on with each.
"""

from __future__ import annotations

import pathlib
import sys
import time

import pytest
from cni_conformance import trace

from cni_host_local import index
from cni_tuning import backup
from cni_vxlan_overlay import state
from libcni.cache import Cache, NetworkAttachment
from tests.faults import power
from tests.rig.ipam import Ipam

DUAL = [[{"subnet": "10.1.2.0/28"}], [{"subnet": "2001:db8::/64"}]]


def after_power_losses(
    root: pathlib.Path, script: str
) -> list[tuple[frozenset[str], dict[str, bytes]]]:
    """Run a script that changes files below `root`; the states a power loss may leave there."""
    log, before = power.Log(root), power.Disk(root)
    argv = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}"]
    ended = trace.follow(argv, {"PATH": "/usr/bin:/bin"}, b"", log, exits=True)
    assert ended.status == 0, ended.stderr.decode()
    assert log.changes, "the script has changed nothing"
    done = power.states(before, log.changes)
    now = power.Disk(root)
    final = {path: now.contents[number].written for path, number in now.names.items()}
    assert final in [files for _, files in done], "the log does not lead to what there is"
    return done


def test_a_number_that_is_used_again_is_another_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "old").write_bytes(b"a long content")
    disk = power.Disk(tmp_path)
    number = disk.names["old"]
    for change in (
        power.Change("unlink", ("old",)),
        power.Change("write", file=number, data=b"short"),
        power.Change("name", ("new",), file=number),
    ):
        disk.apply(change)
    assert list(disk.states())[-1] == {"new": b"short"}


@pytest.mark.parametrize(
    "work",
    [
        "ipam.add('c2')",
        "ipam.delete('c1')",
        "ipam.gc(('other', 'eth0'))",
        "ipam.delete('c1'); ipam.add('c2'); ipam.add('c3')",
    ],
)
def test_host_local(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    boot = tmp_path / "boot"
    boot.write_text("the boot before")
    monkeypatch.setattr(index, "BOOT_ID", str(boot))
    root = tmp_path / "data"
    root.mkdir()
    ipam = Ipam(root, DUAL)
    ipam.add("other")
    ipam.add("c1")
    script = (
        "import pathlib\nfrom cni_host_local import index\nfrom tests.rig.ipam import Ipam\n"
        f"index.BOOT_ID = {str(boot)!r}\n"
        f"ipam = Ipam(pathlib.Path({str(root)!r}), {DUAL!r})\n{work}"
    )
    tried = 0
    for folders, files in after_power_losses(root, script):
        power.restore(root, folders, files)
        boot.write_text("the boot after")
        # The containers are gone; their runtime may know of them, and starts new ones.
        owned = ipam.reservations()
        assert list(owned.values()).count(b"other\r\neth0") == 2, files
        assert all(content.endswith(b"\r\neth0") for content in owned.values()), files
        given = [address for name in ("n1", "n2", "n3") for address in ipam.add(name)]
        assert len(set(given)) == 6, (files, given)
        for name in ("n1", "n2", "n3"):
            ipam.check(name)
        for name in ("c1", "c2", "c3"):
            ipam.delete(name)
        # It spares what is younger than a tick of the clock, as all these files are.
        time.sleep(0.02)
        ipam.gc(("n1", "eth0"), ("n2", "eth0"))
        for name in ("n1", "n2", "n3"):
            ipam.delete(name)
        assert ipam.reservations() == {}, files
        tried += 1
    assert tried > 3


def attachment(result: str) -> NetworkAttachment:
    """Of c1, with a result that is told from another one."""
    return NetworkAttachment("c1", "net", "eth0", b"{}", result={"cniVersion": result})


@pytest.mark.parametrize("existing", [False, True], ids=["new", "replaced"])
def test_the_cache_of_results(tmp_path: pathlib.Path, existing: bool) -> None:
    root = tmp_path / "cni"
    root.mkdir()
    cache = Cache(root)
    if existing:
        cache.add(attachment("0.4.0"))
    script = (
        "from libcni.cache import Cache, NetworkAttachment\n"
        f"cache = Cache({str(root)!r})\n"
        "result = {'cniVersion': '1.1.0'}\n"
        "cache.add(NetworkAttachment('c1', 'net', 'eth0', b'{}', result=result))\n"
    )
    seen = set()
    for folders, files in after_power_losses(root, script):
        power.restore(root, folders, files)
        known = cache.load("net", "c1", "eth0")
        seen.add(known and known.result["cniVersion"])
        assert len(cache.attachments()) == (known is not None)
        cache.add(attachment("1.0.0"))
        loaded = cache.load("net", "c1", "eth0")
        assert loaded is not None and loaded.result == {"cniVersion": "1.0.0"}
        cache.remove("net", "c1", "eth0")
        assert cache.attachments() == []
    assert seen == {"0.4.0" if existing else None, "1.1.0"}


def test_tuning_s_backup(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "tuning"
    root.mkdir()
    path = str(root / "c1_eth0.json")
    script = (
        f"from cni_tuning import backup\nbackup.save({path!r}, {{'mtu': 1500}}, 'net', 'c1')\n"
    )
    seen = []
    for folders, files in after_power_losses(root, script):
        power.restore(root, folders, files)
        seen.append(backup.load(path))
        assert pathlib.Path(path).exists() == bool(seen[-1]), "an unreadable backup"
        backup.save(path, {"mtu": 1400}, "net", "c1")
        assert backup.load(path)["mtu"] == seen[-1].get("mtu", 1400)
        backup.remove(path)
        assert not pathlib.Path(path).exists()
    assert {} in seen and {"mtu": 1500, "network": "net"} in seen


def test_what_the_overlay_keeps_of_a_delegate(tmp_path: pathlib.Path) -> None:
    """It is not synced, so it may be damaged: as good as absent, and replaced and removed."""
    root = tmp_path / "flannel"
    root.mkdir()
    path = str(root / "c1:eth0")
    document = {"name": "net", "type": "bridge"}
    script = f"from cni_vxlan_overlay import state\nstate.save({path!r}, {document!r})\n"
    seen = []
    for folders, files in after_power_losses(root, script):
        power.restore(root, folders, files)
        seen.append(state.load(path))
        assert {known[2]["name"] for known in state.kept(str(root), "net")} <= {"net"}
        state.save(path, document)
        assert state.load(path) == document
        state.remove(path)
        assert list(root.iterdir()) == []
    assert None in seen and document in seen
    assert all(known in (None, document) for known in seen)


@pytest.mark.parametrize(
    ("write", "damages"),
    [
        ("f = open(path, 'w'); f.write('content')", {b"", bytes(7)}),
        ("f = open(path + '.tmp', 'w'); f.write('content'); f.close()\n"
         "os.rename(path + '.tmp', path)", {b"", bytes(7)}),
        ("f = open(path + '.tmp', 'w'); f.write('content'); f.flush(); os.fsync(f.fileno())\n"
         "os.rename(path + '.tmp', path)", set[bytes]()),
    ],
    ids=["in place", "renamed", "synced"],
)  # fmt: skip
def test_careless_writers_are_caught(
    tmp_path: pathlib.Path, write: str, damages: set[bytes]
) -> None:
    """The model of the disk tells a writer that syncs from one that does not."""
    root = tmp_path / "root"
    root.mkdir()
    states = after_power_losses(root, f"import os\npath = {str(root / 'file')!r}\n{write}")
    found = {files["file"] for _, files in states if "file" in files}
    assert found == {b"content", *damages}
