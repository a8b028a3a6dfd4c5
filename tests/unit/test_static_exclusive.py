# SPDX-License-Identifier: Apache-2.0
"""static with `exclusive`: an address has one holder, whatever fails and after a reboot too."""

from __future__ import annotations

import concurrent.futures
import pathlib
import time
from typing import Any

import pytest

from cni_static.add import add
from cni_static.check import check
from cni_static.delete import delete
from cni_static.gc import gc
from cni_static.status import status
from cni_static.validator import validate
from libcni.attachment import Attachment
from libcni.skel.request import Request
from libcni.types.errors import CniError

ADDRESS, ADDRESS6 = "10.1.2.3/24", "2001:db8:1::3/64"


class Lab:
    """A network with two addresses; each verb for a container."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory / "lab"
        addresses = [{"address": ADDRESS}, {"address": ADDRESS6}]
        self.config: dict[str, Any] = {"cniVersion": "1.1.0", "name": "lab", "type": "bridge"}
        self.config["ipam"] = {
            "type": "static",
            "addresses": addresses,
            "exclusive": True,
            "dataDir": str(directory),
        }

    def request(self, container: str, **keys: Any) -> Request:
        """A call for a container, with further keys of the configuration."""
        document = {**self.config, **keys}
        assert validate(document)
        return Request("ADD", "static", document, "1.1.0", Attachment("lab", container, "eth0"))

    def held(self) -> dict[str, str]:
        """Address → container."""
        if not self.directory.exists():
            return {}
        files = [path for path in self.directory.iterdir() if path.name != "lock"]
        return {path.name: path.read_bytes().split(b"\r\n")[0].decode() for path in files}


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Lab:
    """Nobody holds anything."""
    return Lab(tmp_path)


def refused(verb: Any, asked: Request, code: int, *words: str) -> None:
    """The verb raises, and the message has the words."""
    with pytest.raises(CniError) as refusal:
        verb(asked)
    assert refusal.value.code == code, refusal.value
    for word in words:
        assert word in str(refusal.value)


def test_one_holder_at_a_time(lab: Lab) -> None:
    status(lab.request("c1"))
    result = add(lab.request("c1")).to_json("1.1.0")
    assert lab.held() == {"10.1.2.3": "c1", "2001:db8:1::3": "c1"}
    check(lab.request("c1", prevResult=result))
    refused(add, lab.request("c2"), 101, "address 10.1.2.3", "container c1 interface eth0")
    refused(status, lab.request(""), 50, "address 10.1.2.3", "container c1 interface eth0")
    refused(check, lab.request("c2", prevResult=result), 103, "holder of 10.1.2.3", "c2", "c1")
    delete(lab.request("c2"))
    assert set(lab.held().values()) == {"c1"}
    for _ in range(2):
        delete(lab.request("c1"))
        assert lab.held() == {}
    refused(check, lab.request("c1", prevResult=result), 103, "holder of 10.1.2.3", "found none")
    add(lab.request("c2"))


def test_all_or_none(lab: Lab) -> None:
    """The second address is another's: the first stays free; an ADD undone gives back its own."""
    one = lab.request("c1", runtimeConfig={"ips": [ADDRESS6]})
    add(one)
    refused(add, lab.request("c2"), 101, "2001:db8:1::3")
    assert lab.held() == {"2001:db8:1::3": "c1"}
    one.undo.run()
    assert lab.held() == {}
    add(lab.request("c1"))
    # A repeated ADD changes nothing, and its failure takes nothing from the first.
    again = lab.request("c1")
    add(again)
    again.undo.run()
    assert set(lab.held().values()) == {"c1"}


def test_delete_goes_by_identity(lab: Lab) -> None:
    """With `exclusive` gone and the addresses changed since."""
    add(lab.request("c1"))
    delete(lab.request("c1", ipam={"type": "static", "dataDir": str(lab.directory.parent)}))
    assert lab.held() == {}


def test_gc(lab: Lab) -> None:
    add(lab.request("c1", runtimeConfig={"ips": ["10.1.2.3/24"]}))
    add(lab.request("c2", runtimeConfig={"ips": ["10.1.2.4/24"]}))
    (lab.directory / "10.1.2.5").write_text("")
    refused(gc, lab.request(""), 7, "valid-attachments")
    assert len(lab.held()) == 3
    # What is younger than a tick of the clock that stamps files is left for the next GC.
    time.sleep(0.05)
    valid = [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]
    gc(lab.request("", **{"cni.dev/valid-attachments": valid}))
    assert lab.held() == {"10.1.2.4": "c2"}


def test_gc_leaves_what_is_younger_than_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    add(lab.request("c1"))
    monkeypatch.setattr("cni_static.gc.file_clock", lambda: time.time() - 60)
    gc(lab.request("", **{"cni.dev/valid-attachments": []}))
    assert set(lab.held().values()) == {"c1"}


def test_what_is_of_an_earlier_boot_is_nobody_s(lab: Lab) -> None:
    add(lab.request("c1"))
    for path in lab.directory.iterdir():
        if path.name != "lock":
            path.write_text("c1\r\neth0\r\n11111111-2222-3333-4444-555555555555")
    status(lab.request(""))
    add(lab.request("c2"))
    assert set(lab.held().values()) == {"c2"}


def test_damaged_files_are_nobody_s(lab: Lab) -> None:
    add(lab.request("c1"))
    (lab.directory / "10.1.2.3").write_text("")
    add(lab.request("c2", runtimeConfig={"ips": ["10.1.2.3/24"]}))
    assert lab.held()["10.1.2.3"] == "c2"


def test_where_nothing_can_be_written(lab: Lab) -> None:
    ipam = {**lab.config["ipam"], "dataDir": "/proc/nowhere"}
    refused(add, lab.request("c1", ipam=ipam), 5, "/proc/nowhere")
    delete(lab.request("c1", ipam=ipam))


def test_status_where_nothing_can_be_written(
    lab: Lab, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said beforehand, whether the network has a directory by then or not; and nothing is made."""
    status(lab.request("c1"))
    assert not lab.directory.exists()
    monkeypatch.setattr("posix.access", lambda path, mode: False)
    refused(status, lab.request("c1"), 50, "ipam.dataDir", f"cannot write {tmp_path}", "denied")
    lab.directory.mkdir()
    refused(status, lab.request("c1"), 50, "ipam.dataDir", f"cannot write {lab.directory}")
    lab.directory.rmdir()
    lab.directory.write_text("")
    refused(status, lab.request("c1"), 50, "ipam.dataDir", "lab")
    status(lab.request("c1", ipam={**lab.config["ipam"], "exclusive": False}))


def test_of_many_at_once_one_gets_it(lab: Lab) -> None:
    def attempt(number: int) -> str:
        try:
            add(lab.request(f"c{number}"))
        except CniError as error:
            assert error.code == 101
            return ""
        return f"c{number}"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = [name for name in pool.map(attempt, range(24)) if name]
    assert len(winners) == 1 and set(lab.held().values()) == set(winners)
