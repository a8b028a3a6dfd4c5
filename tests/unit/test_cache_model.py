# SPDX-License-Identifier: Apache-2.0
"""What libcni remembers against a dictionary: random histories of one host's attachments.

Adds, deletes, checks, GCs; plugins that fail; runtimes that die at any plugin and at any system
call of the cache; reboots, files that a power loss or another runtime tore, clocks that jump, and
configurations that change under what is attached. After each step, what the API tells, what
plugins are handed and what lies on disk is what the model says.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import posix
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libcni import fs
from libcni.api import CNIConfig, GCAttachment, RuntimeConf
from libcni.conf import NetworkConfigList, network_conf_from_bytes
from libcni.types.errors import CniError

Key = tuple[str, str]

KEYS = list(itertools.product(["c1", "c2", "c1-eth0"], ["eth0", "net1"]))
keys = st.sampled_from(KEYS)
types = st.sampled_from(["one", "two", "three"])
#: What may lie there instead of an attachment.
TORN = [b"", b"\0" * 64, b"{", b"null", b"[]", b'{"kind":"cniCacheV1"', b'{"kind":"cniCacheV1"}']


class Died(BaseException):
    """The runtime's end, at a place where no handler runs."""


class Dying:
    """The module posix, until the nth call of those that change something."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        found = getattr(posix, name)
        if name not in ("open", "write", "fsync", "rename", "mkdir", "unlink"):
            return found

        def call(*words: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Died
            return found(*words)

        return call


@dataclasses.dataclass
class Attached:
    """What an ADD left: the address that tells it from others, and what it was given."""

    address: str
    netns: str
    args: list[tuple[str, str]]
    mac: str
    #: Written by Go's libcni before 2019: the result alone.
    bare: bool = False


class Plugins:
    """Every plugin there is, as an Executor: they note who is attached and check what they get."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.failing: set[tuple[str, str]] = set()
        self.dies_at = 0
        self.serial = 0

    def find_in_path(self, name: str, path: list[str]) -> str:
        """They are everywhere."""
        return name

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        """One call. ADD of the first plugin gives an address that was never given before."""
        verb, document = overrides["CNI_COMMAND"], json.loads(stdin)
        self.calls.append((path, verb, overrides, document))
        if self.dies_at == len(self.calls):
            raise Died
        if (path, verb) in self.failing:
            raise CniError(100, f"{path} fails")
        if verb != "ADD":
            return b""
        if "prevResult" in document:
            return json.dumps(document["prevResult"]).encode()
        self.serial += 1
        return json.dumps(result(self.serial, document["cniVersion"])).encode()

    def take(self) -> list[tuple[str, str, dict[str, str], dict[str, Any]]]:
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


def result(serial: int, version: str) -> dict[str, Any]:
    """The result of the nth ADD."""
    ip: dict[str, Any] = {"address": f"10.{serial >> 8}.{serial & 255}.1/8"}
    if version < "1.0.0":
        ip["version"] = "4"
    return {"cniVersion": version, "interfaces": [{"name": "eth0"}], "ips": [ip]}


def address(document: dict[str, Any]) -> str:
    """The one address in a result."""
    return str(document["ips"][0]["address"])


class Model(RuleBasedStateMachine):
    """attached: the oracle. torn: those of whom a damaged file lies there instead."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.results = self.directory / "results"
        self.plugins = Plugins()
        self.attached: dict[Key, Attached] = {}
        self.torn: set[Key] = set()
        self.boot = 0
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        """Delete everything: then nothing may be left."""
        self.plugins.failing.clear()
        for key in KEYS:
            self.delete(key)
        self.patch.undo()
        left = os.listdir(self.results) if self.results.exists() else []
        shutil.rmtree(self.directory)
        assert left == []

    @initialize(
        version=st.sampled_from(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]),
        chain=st.lists(types, min_size=1, max_size=3, unique=True),
    )
    def start(self, version: str, chain: list[str]) -> None:
        """The first configuration."""
        self.configure(version, chain, False, False)

    @property
    def cni(self) -> CNIConfig:
        """A new one for each operation, as after a restart."""
        return CNIConfig(["/bin"], self.directory, self.plugins)

    def conf(self, key: Key, known: Attached | None = None) -> RuntimeConf:
        """What a runtime asks with: as at the ADD if it knows, else as of now."""
        container, ifname = key
        if known is None:
            mac = f"0a:00:00:00:00:{self.plugins.serial & 255:02x}"
            known = Attached("", f"/run/netns/{container}-{self.boot}", [("N", container)], mac)
        return RuntimeConf(container, known.netns, ifname, known.args, {"mac": known.mac})

    def dying(self, work: Callable[[], object]) -> None:
        """Do it, and survive the runtime's end."""
        try:
            work()
        except (Died, CniError):
            pass
        finally:
            self.plugins.dies_at = 0
            self.patch.setattr(fs, "posix", posix)

    # ---- what a runtime does

    @rule(key=keys)
    def add(self, key: Key) -> None:
        """ADD; one that fails changes nothing of what is remembered."""
        rt = self.conf(key)
        try:
            made = self.cni.add_network_list(self.network, rt)
        except CniError:
            assert self.fails("ADD")
            self.plugins.take()
            return
        assert not self.fails("ADD")
        self.remember(key, address(made.to_json(self.network.cni_version)), rt)
        calls = self.plugins.take()
        assert [call[0] for call in calls] == [plugin.type for plugin in self.network.plugins]
        assert "prevResult" not in calls[0][3]

    @rule(key=keys)
    def delete(self, key: Key) -> None:
        """DEL: backwards, each with the final result if there is one; then it is forgotten."""
        known = self.attached.get(key)
        failed = None
        try:
            self.cni.del_network_list(self.network, self.conf(key, known))
        except CniError as error:
            failed = error
        assert (failed is not None) == self.fails("DEL")
        self.judge_del(key, self.plugins.take())
        if key in self.torn and self.network.cni_version >= "0.4.0":
            self.torn.discard(key)  # put aside, whatever came of it
        if not failed:
            self.forget(key)

    def judge_del(self, key: Key, calls: list[Any]) -> None:
        """What plugins were handed by a DEL."""
        known = self.attached.get(key)
        for _, verb, variables, document in calls:
            assert verb == "DEL"
            assert (variables["CNI_CONTAINERID"], variables["CNI_IFNAME"]) == key
            if known and self.network.cni_version >= "0.4.0":
                assert address(document["prevResult"]) == known.address
                assert document["prevResult"]["cniVersion"] == self.network.cni_version
            else:
                assert "prevResult" not in document

    @rule(key=keys)
    def check(self, key: Key) -> None:
        """CHECK: only for what is attached, with the final result."""
        known = self.attached.get(key)
        try:
            self.cni.check_network_list(self.network, self.conf(key, known))
            worked = True
        except CniError:
            worked = False
        calls = self.plugins.take()
        possible = self.network.cni_version >= "0.4.0"
        if not possible or self.network.disable_check or not known:
            assert calls == []
            assert worked == (possible and self.network.disable_check)
            return
        assert worked != self.fails("CHECK")
        assert all(address(call[3]["prevResult"]) == known.address for call in calls)

    @rule(valid=st.sets(keys))
    def gc(self, valid: set[Key]) -> None:
        """GC: DEL for what is remembered and not valid, as it was added; then GC."""
        keep = [GCAttachment(*key) for key in valid]
        stale = {key for key in self.listed() if key not in valid}
        try:
            self.cni.gc_network_list(self.network, keep)
            worked = True
        except CniError:
            worked = False
        calls = self.plugins.take()
        if self.network.disable_gc:
            assert worked and calls == []
            return
        new = self.network.cni_version >= "1.1.0"
        assert worked != ((bool(stale) and self.fails("DEL")) or (new and self.fails("GC")))
        for key in stale:
            known = self.attached[key]
            mine = [
                c
                for c in calls
                if c[1] == "DEL" and (c[2]["CNI_CONTAINERID"], c[2]["CNI_IFNAME"]) == key
            ]
            assert mine
            self.judge_del(key, mine)
            for _, _, variables, document in mine:
                assert variables["CNI_NETNS"] == known.netns
                assert variables["CNI_ARGS"] == ";".join(f"{k}={v}" for k, v in known.args)
                assert document.get("runtimeConfig", {"mac": known.mac}) == {"mac": known.mac}
            if not self.fails("DEL"):
                self.forget(key)
        self.torn &= valid  # what is damaged and nobody's is put aside
        gcs = [call for call in calls if call[1] == "GC"]
        assert [c[0] for c in gcs] == ([p.type for p in self.network.plugins] if new else [])
        expected = [{"containerID": c, "ifname": i} for c, i in sorted(valid)]
        assert all(call[3]["cni.dev/valid-attachments"] == expected for call in gcs)

    # ---- what befalls it

    @rule(plugin=types, verb=st.sampled_from(["ADD", "DEL", "CHECK", "GC"]))
    def plugin_breaks_or_mends(self, plugin: str, verb: str) -> None:
        """From now on it fails, or no longer."""
        self.plugins.failing ^= {(plugin, verb)}

    @rule(key=keys, nth=st.integers(1, 3), verb=st.sampled_from(["add", "delete"]))
    def dies_in_a_plugin(self, key: Key, nth: int, verb: str) -> None:
        """What was remembered still is: nothing was written yet."""
        if nth > len(self.network.plugins):
            return
        self.plugins.dies_at = nth
        rt = self.conf(key, self.attached.get(key) if verb == "delete" else None)
        work = self.cni.add_network_list if verb == "add" else self.cni.del_network_list
        self.dying(lambda: work(self.network, rt))
        self.plugins.take()
        if verb == "delete" and self.network.cni_version >= "0.4.0":
            self.torn.discard(key)

    @rule(key=keys, nth=st.integers(0, 6))
    def dies_in_the_cache(self, key: Key, nth: int) -> None:
        """ADD is remembered whole or not at all, at whatever call of the cache it ends."""
        rt = self.conf(key)
        before = self.attached.get(key), key in self.torn
        self.patch.setattr(fs, "posix", Dying(nth))
        self.dying(lambda: self.cni.add_network_list(self.network, rt))
        self.plugins.take()
        if self.fails("ADD"):
            return
        self.remember(key, address(result(self.plugins.serial, "1.0.0")), rt)
        now = self.told(key)
        if now is None or now.address != self.attached[key].address:
            self.forget(key)
            if before[0]:
                self.attached[key] = before[0]
            if before[1]:
                self.torn.add(key)

    @rule()
    def reboot(self) -> None:
        """Namespaces are gone and will have other paths; what is remembered is not gone."""
        self.boot += 1

    @rule(key=keys, content=st.sampled_from(TORN))
    def tear(self, key: Key, content: bytes) -> None:
        """A power loss, under a runtime that does not sync."""
        if key in self.attached or key in self.torn:
            self.path(key).write_bytes(content)
            self.forget(key)
            self.torn.add(key)

    @rule(key=keys)
    def of_an_old_runtime(self, key: Key) -> None:
        """The file is the bare result, as before 2019."""
        known = self.attached.get(key)
        if known and not known.bare:
            document = json.loads(self.path(key).read_bytes())["result"]
            self.path(key).write_text(json.dumps(document))
            known.bare = True

    @rule(key=keys)
    def file_removed(self, key: Key) -> None:
        """An administrator tidies up."""
        self.path(key).unlink(missing_ok=True)
        self.forget(key)

    @precondition(lambda self: self.results.exists())
    @rule(seconds=st.sampled_from([-(10**9), -3600, 3600, 10**9]))
    def clock_jumps(self, seconds: int) -> None:
        """The times of files mean nothing (of the time of day libcni makes no use)."""
        for path in self.results.iterdir():
            before = path.stat().st_mtime
            os.utime(path, (before, before + seconds))

    @rule(
        version=st.sampled_from(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]),
        chain=st.lists(types, min_size=1, max_size=3, unique=True),
        no_check=st.booleans(),
        no_gc=st.booleans(),
    )
    def configure(self, version: str, chain: list[str], no_check: bool, no_gc: bool) -> None:
        """Another version, other plugins, other flags, under what is attached."""
        plugins = [{"type": type, "capabilities": {"mac": type != "two"}} for type in chain]
        flags = {"disableCheck": no_check, "disableGC": no_gc}
        document = {"cniVersion": version, "name": "net", "plugins": plugins, **flags}
        self.network: NetworkConfigList = network_conf_from_bytes(json.dumps(document).encode())

    # ---- the oracle

    def fails(self, verb: str) -> bool:
        """Whether the verb cannot succeed with this configuration."""
        return any((plugin.type, verb) in self.plugins.failing for plugin in self.network.plugins)

    def remember(self, key: Key, address: str, rt: RuntimeConf) -> None:
        """An ADD has succeeded."""
        self.torn.discard(key)
        self.attached[key] = Attached(address, rt.netns, rt.args, rt.capability_args["mac"])

    def forget(self, key: Key) -> None:
        """Nothing is there any more."""
        self.attached.pop(key, None)
        self.torn.discard(key)

    def listed(self) -> set[Key]:
        """Those that the API lists: a bare result does not say whose it is."""
        return {key for key, known in self.attached.items() if not known.bare}

    def path(self, key: Key) -> pathlib.Path:
        """The file of an attachment."""
        return self.results / f"net-{key[0]}-{key[1]}"

    def told(self, key: Key) -> Attached | None:
        """What the API tells of an attachment; None for nothing and for damage."""
        rt = self.conf(key)
        try:
            result = self.cni.get_network_list_cached_result(self.network, rt)
            if result is None:
                return None
            made = Attached(address(result.to_json("1.0.0")), "", [], "")
            told = self.cni.get_network_list_cached_config(self.network, rt)
        except CniError as error:
            if "bare result" not in error.msg:
                return None
            made.bare = True
            return made
        assert told is not None
        made.netns = next(
            a.netns for a in self.cni.get_cached_attachments(key[0]) if a.if_name == key[1]
        )
        made.args, made.mac = told[1].args, told[1].capability_args["mac"]
        return made

    @invariant()
    def the_api_tells_what_the_oracle_says(self) -> None:
        """Result, arguments and list."""
        if not hasattr(self, "network"):
            return
        for key, known in self.attached.items():
            told = self.told(key)
            assert told is not None
            if known.bare:
                assert (told.address, told.bare) == (known.address, True)
            else:
                assert told == known
        for key in self.torn:
            assert self.told(key) is None
        listed = {(a.container_id, a.if_name) for a in self.cni.get_cached_attachments()}
        assert listed == self.listed()

    @invariant()
    def files_are_what_the_oracle_says(self) -> None:
        """Whole files, for the owner's eyes, of those who are attached; besides what is torn."""
        if not self.results.exists():
            assert not self.attached and not self.torn
            return
        whole = {path for path in self.results.iterdir() if path.suffix != ".tmp"}
        assert whole == {self.path(key) for key in [*self.attached, *self.torn]}
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in whole)
        assert self.results.stat().st_mode & 0o777 == 0o700


Model.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase
