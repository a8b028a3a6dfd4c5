# SPDX-License-Identifier: Apache-2.0
"""install-cni on real files: whole or not at all, whatever the disk and the programs do.

The set is one small program, compiled here, that answers as a plugin does and needs its shared
directory as the frozen ones do; where the frozen build is current, it is installed as well.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from cni_vxlan_overlay.agent import aside, binaries, conflist, install, trial
from libcni import conf
from libcni.cnitool import validation
from tests.rig.plugins import ROOT

#: `argv[0]` or the file's name does not matter; what it says comes from the shared directory.
_PROGRAM = r"""
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char path[PATH_MAX + 64];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    path[length] = 0;
    char *file = strrchr(path, '/') + 1;
    strcpy(file, BUILD "/answer");
    FILE *answer = fopen(path, "r");
    if (answer == NULL) { fprintf(stderr, "no %s\n", path); return 255; }
    const char *command = getenv("CNI_COMMAND");
    if (command && !strcmp(command, "VERSION"))
        for (int c; (c = fgetc(answer)) != EOF;) putchar(c);
    else if (command && !strcmp(command, "ADD"))
        usleep(20000);
    else if (argc < 2 || strcmp(argv[1], "version"))
        return 1;
    return 0;
}
"""
_ANSWER = '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}\n'
_NAMES = ("bridge", "cnitool", "host-local", "loopback", "vxlan-overlay")
_OLD, _NEW, _NEWEST = (f"adder-0.1.0-0000000{number}" for number in (1, 2, 3))
_ENVIRONMENT = dict(
    os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *map(str, sorted(ROOT.glob("plugins/*")))])
)
_PORTMAP = f"#!/bin/sh\necho '{_ANSWER.strip()}'\n"


@pytest.fixture(scope="session")
def frozen_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Three builds of the same set, as the build lays them out."""
    made = {}
    for build in (_OLD, _NEW, _NEWEST):
        directory = tmp_path_factory.mktemp("sets") / build
        (directory / build / "deep").mkdir(parents=True)
        (directory / build / "answer").write_text(_ANSWER)
        (directory / build / "deep/library").write_bytes(b"\0" * 100_000)
        (directory / build / "library.so").symlink_to("deep/library")
        first = directory / _NAMES[0]
        command = ["gcc", "-x", "c", "-Wall", "-Werror", "-static", f'-DBUILD="{build}"']
        subprocess.run([*command, "-o", str(first), "-"], input=_PROGRAM.encode(), check=True)
        with first.open("ab") as file:
            file.write(build.encode())
        for name in _NAMES[1:]:
            (directory / name).hardlink_to(first)
        # What lies there besides is of no use to a runtime.
        (directory / "README.md").write_text("read me")
        for name in ("vxlan-overlayd", "install-cni"):
            (directory / name).write_bytes(first.read_bytes())
        made[build] = directory
    return made


@pytest.fixture
def old(frozen_sets: dict[str, pathlib.Path]) -> pathlib.Path:
    """A set."""
    return frozen_sets[_OLD]


@pytest.fixture
def new(frozen_sets: dict[str, pathlib.Path]) -> pathlib.Path:
    """The same of a later build."""
    return frozen_sets[_NEW]


class Node:
    """The directories of one node, and install-cni on it in this process."""

    def __init__(self, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = root / "opt/cni/bin"
        self.conf = root / "etc/cni/net.d"
        self.conflist = self.conf / "10-vxlan-overlay.conflist"
        self._monkeypatch = monkeypatch
        for name in list(os.environ):
            if name.startswith("CNI_") or name == "SKIP_CNI_BINARIES":
                monkeypatch.delenv(name)

    def install(self, source: pathlib.Path, **variables: str) -> int:
        """`install-cni install` with these variables; its exit status."""
        with self._monkeypatch.context() as patch:
            for name, value in {**self.variables(source), **variables}.items():
                patch.setenv(name, value)
            return install.main(["install"])

    def variables(self, source: pathlib.Path) -> dict[str, str]:
        """What the manifest would set."""
        return {
            "CNI_BIN_DIR": str(self.bin),
            "CNI_CONF_DIR": str(self.conf),
            "CNI_SOURCE_DIR": str(source),
        }

    def uninstall(self) -> int:
        """`install-cni uninstall`; its exit status."""
        return install.main(["uninstall", f"--bin-dir={self.bin}", f"--conf-dir={self.conf}"])

    def names(self) -> set[str]:
        """What is in the bin directory, hidden files included."""
        return {path.name for path in self.bin.iterdir()}

    def state(self) -> dict[str, tuple[int, int, int]]:
        """Inode, modification time and size of all files of both directories."""
        files = [p for d in (self.bin, self.conf) for p in d.rglob("*")]
        stats = {str(p): p.lstat() for p in files}
        return {p: (s.st_ino, s.st_mtime_ns, s.st_size) for p, s in stats.items()}

    def works(self) -> None:
        """Every executable of ours answers."""
        for name in _NAMES:
            trial.verify(self.bin / name)


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with nothing on it."""
    return Node(tmp_path, monkeypatch)


def config(**delegate: object) -> str:
    """A list as an operator may give it."""
    plugin = {"type": "vxlan-overlay", "delegate": delegate}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})


def in_mounts(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own; $PYTHON and $@ are for install-cni."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", "mount --make-rprivate /\n" + script, "sh", *arguments],
        cwd=ROOT,
        env={**_ENVIRONMENT, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_empty_node_gets_all_and_a_second_run_writes_nothing(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.install(old) == 0
    said = capsys.readouterr().out
    assert f"installed {node.bin}/bridge" in said
    assert said.rstrip().endswith(f"wrote {node.conflist}")
    assert node.names() == {*_NAMES, _OLD}
    assert len({(node.bin / name).stat().st_ino for name in _NAMES}) == 1, "links are kept"
    assert (node.bin / _OLD / "library.so").readlink() == pathlib.Path("deep/library")
    assert [path.name for path in node.conf.iterdir()] == ["10-vxlan-overlay.conflist"]
    assert node.conflist.stat().st_mode & 0o777 == 0o600
    node.works()
    before = node.state()
    assert node.install(old) == 0
    assert node.state() == before
    assert capsys.readouterr().out == "nothing to do\n"


def test_without_portmap_the_default_list_does_without(node: Node, old: pathlib.Path) -> None:
    assert node.install(old) == 0
    assert validation.check_file(node.conflist).faults == []
    document = json.loads(node.conflist.read_text())
    assert [plugin["type"] for plugin in document["plugins"]] == ["vxlan-overlay"]
    assert document["plugins"][0]["delegate"] == {"hairpinMode": True, "isDefaultGateway": True}
    assert document["cniVersions"] == ["1.0.0", "1.1.0"]


def test_a_portmap_in_the_bin_directory_is_used(node: Node, old: pathlib.Path) -> None:
    node.bin.mkdir(parents=True)
    portmap = node.bin / "portmap"
    portmap.write_text(_PORTMAP.replace(',"1.1.0"', ""))
    portmap.chmod(0o755)
    assert node.install(old) == 0
    document = json.loads(node.conflist.read_text())
    assert document["plugins"][1] == {"type": "portmap", "capabilities": {"portMappings": True}}
    assert "cniVersions" not in document, "this portmap would refuse 1.1.0"


def test_a_broken_portmap_is_left_out_aloud(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.bin.mkdir(parents=True)
    (node.bin / "portmap").write_text("#!/bin/sh\nexit 3\n")
    (node.bin / "portmap").chmod(0o755)
    assert node.install(old) == 0
    assert len(json.loads(node.conflist.read_text())["plugins"]) == 1
    assert "without portmap" in capsys.readouterr().err


def test_a_new_build_replaces_the_old_and_keeps_what_may_be_running(
    node: Node, frozen_sets: dict[str, pathlib.Path]
) -> None:
    assert node.install(frozen_sets[_OLD]) == 0
    assert node.install(frozen_sets[_NEW]) == 0
    assert node.names() == {*_NAMES, _OLD, _NEW}
    assert node.install(frozen_sets[_NEWEST]) == 0
    assert node.names() == {*_NAMES, _NEW, _NEWEST}, "the last but one is gone"
    node.works()


def test_copies_of_one_program_become_links_again(
    node: Node, old: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Layers of container images do not always keep hard links."""
    copied = tmp_path / "copied"
    shutil.copytree(old, copied, symlinks=True)
    assert len({(copied / name).stat().st_ino for name in _NAMES}) == len(_NAMES)
    assert node.install(copied) == 0
    assert len({(node.bin / name).stat().st_ino for name in _NAMES}) == 1


def test_labels_of_the_image_do_not_come_along(
    node: Node, old: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """An image's files have the container's SELinux label, with which no host may run them."""
    labelled = tmp_path / "labelled"
    shutil.copytree(old, labelled, symlinks=True)
    for path in [p for p in [labelled, *labelled.rglob("*")] if not p.is_symlink()]:
        os.setxattr(path, "user.label", b"container_file_t")
    assert node.install(labelled) == 0
    placed = [p for p in node.bin.rglob("*") if not p.is_symlink()]
    assert len(placed) > len(_NAMES)
    assert [p for p in placed if os.listxattr(p)] == []


def test_what_a_skipped_executable_needs_stays(
    node: Node, old: pathlib.Path, new: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.install(old) == 0
    before = node.state()[str(node.bin / "bridge")]
    for build in (new, new):
        assert node.install(build, SKIP_CNI_BINARIES="bridge, nonsense") == 0
    assert node.state()[str(node.bin / "bridge")] == before
    assert {_OLD, _NEW} <= node.names()
    node.works()
    assert "nonsense" in capsys.readouterr().err


def test_file_systems_without_hard_links_get_copies(
    node: Node, old: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as vfat does

    monkeypatch.setattr(os, "link", refuse)
    assert node.install(old) == 0
    assert len({(node.bin / name).stat().st_ino for name in _NAMES}) == len(_NAMES)
    node.works()


def test_a_damaged_shared_directory_is_repaired(node: Node, old: pathlib.Path) -> None:
    assert node.install(old) == 0
    library = node.bin / _OLD / "deep/library"
    library.write_bytes(b"\0" * 99_999 + b"\1")
    (node.bin / _OLD / "answer").unlink()
    inode = (node.bin / "bridge").stat().st_ino
    assert node.install(old) == 0
    assert library.read_bytes() == b"\0" * 100_000
    assert (node.bin / "bridge").stat().st_ino == inode
    node.works()


def test_a_broken_program_never_replaces_one_that_works(
    node: Node, old: pathlib.Path, new: pathlib.Path, tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert node.install(old) == 0
    before = node.state()
    cut = tmp_path / "cut"
    shutil.copytree(new, cut, symlinks=True)
    data = (cut / "loopback").read_bytes()
    (cut / "loopback").unlink()
    # The end is right, the middle is missing.
    (cut / "loopback").write_bytes(data[:5000] + data[-100:])
    (cut / "loopback").chmod(0o755)
    assert node.install(cut) == trial.UNUSABLE
    assert "loopback" in capsys.readouterr().err
    assert node.state() == before, "not even what worked has changed"
    unanswering = tmp_path / "unanswering"
    shutil.copytree(new, unanswering, symlinks=True)
    (unanswering / _NEW / "answer").write_text("pong")
    assert node.install(unanswering) == trial.UNUSABLE
    assert "is no CNI plugin: to VERSION it answers 'pong'" in capsys.readouterr().err
    assert node.state() == before


def test_another_architecture_is_named(
    node: Node, old: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(old, foreign, symlinks=True)
    for name in _NAMES:
        data = bytearray((foreign / name).read_bytes())
        data[18:20] = (22).to_bytes(2, "little")  # e_machine: EM_S390
        (foreign / name).unlink()
        (foreign / name).write_bytes(data)
        (foreign / name).chmod(0o755)
    assert node.install(foreign) == trial.UNUSABLE
    said = capsys.readouterr().err
    assert f"it is built for s390x, and this machine is {os.uname().machine}" in said
    assert node.names() == set(), "nothing is left of the attempt"


def test_an_incomplete_or_empty_source_is_refused(
    node: Node, old: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.install(tmp_path / "nowhere") == 1
    assert "CNI_SOURCE_DIR" in capsys.readouterr().err
    shutil.copytree(old, tmp_path / "half", symlinks=True)
    shutil.rmtree(tmp_path / "half" / _OLD)
    assert node.install(tmp_path / "half") == trial.UNUSABLE
    assert f"needs the directory {_OLD}" in capsys.readouterr().err
    assert not node.bin.exists()


def test_foreign_files_survive_and_come_back(node: Node, old: pathlib.Path) -> None:
    node.bin.mkdir(parents=True)
    node.conf.mkdir(parents=True)
    (node.bin / "calico").write_text("#!/bin/sh\n")
    (node.bin / "bridge").write_text("#!/bin/sh\n# another's bridge\n")
    (node.bin / "loopback").symlink_to("calico")
    (node.conf / "20-calico.conflist").write_text("{}")
    before = node.state()
    assert node.install(old) == 0
    assert {"calico", *_NAMES} <= node.names()
    node.works()
    assert node.install(old) == 0
    assert node.uninstall() == 0
    assert node.state() == before
    assert node.uninstall() == 0
    assert node.state() == before


def test_uninstall_lets_a_newer_foreign_program_be(node: Node, old: pathlib.Path) -> None:
    node.bin.mkdir(parents=True)
    (node.bin / "bridge").write_text("the first\n")
    assert node.install(old) == 0
    (node.bin / "bridge").unlink()
    (node.bin / "bridge").write_text("the package manager's\n")
    assert node.uninstall() == 0
    assert node.names() == {"bridge"}
    assert (node.bin / "bridge").read_text() == "the package manager's\n"


def test_uninstall_removes_the_list_first(
    node: Node, old: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.install(old) == 0
    there: list[bool] = []
    remove = binaries.remove

    def watch(target: pathlib.Path) -> list[str]:
        there.append(node.conflist.exists())
        return remove(target)

    monkeypatch.setattr(binaries, "remove", watch)
    assert node.uninstall() == 0
    assert there == [False]
    assert node.names() == set()
    assert list(node.conf.iterdir()) == []


def test_anothers_list_of_our_name_is_neither_replaced_nor_removed(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.conf.mkdir(parents=True)
    text = json.dumps({"name": "x", "plugins": [{"type": "calico"}]})
    node.conflist.write_text(text)
    assert node.install(old) == conflist.INVALID
    assert "left alone" in capsys.readouterr().err
    assert node.uninstall() == 0
    assert node.conflist.read_text() == text


def test_half_a_list_is_replaced(node: Node, old: pathlib.Path) -> None:
    node.conf.mkdir(parents=True)
    node.conflist.write_text('{"cniVersion": "1.0.0", "na')
    assert node.install(old) == 0
    assert validation.check_file(node.conflist).faults == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid"),
        ('{"cniVersion": "1.0.0", "name": "a/b", "plugins": []}', "a/b"),
        ('{"name": "pods", "plugins": [{"type": "bridge"}]}', "vxlan-overlay"),
        ('{"name": "pods", "plugins": [{"type": "vxlan-overlay", "vni": "x"}]}', "vni"),
    ],
)
def test_a_list_that_is_not_valid_stops_everything(
    node: Node, old: pathlib.Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.install(old, CNI_NETWORK_CONFIG=text) == conflist.INVALID
    assert said in capsys.readouterr().err
    assert not node.bin.exists()
    assert not node.conf.exists()


def test_the_operators_list_is_written_as_it_is(
    node: Node, old: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "cni-conf.json"
    file.write_text(config(hairpinMode=True).replace(",", " ,\n\n"))
    assert node.install(old, CNI_CONF_FILE=str(file)) == 0
    assert node.conflist.read_bytes() == file.read_bytes()
    text = config(isDefaultGateway=True)
    assert node.install(old, CNI_NETWORK_CONFIG=text) == 0
    assert json.loads(node.conflist.read_text()) == json.loads(text)
    assert node.install(old, CNI_NETWORK_CONFIG=text, CNI_CONF_FILE=str(file)) == conflist.INVALID


def test_a_list_that_calls_for_a_missing_plugin_is_not_written(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config(type="macvlan")
    assert node.install(old, CNI_NETWORK_CONFIG=text) == conflist.INVALID
    assert "macvlan" in capsys.readouterr().err
    assert not node.conflist.exists()
    assert node.install(old, CNI_NETWORK_CONFIG=text, CNI_PLUGINS_ELSEWHERE="macvlan") == 0
    assert node.conflist.exists()


def test_a_version_that_a_plugin_does_not_speak_is_refused(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config().replace('"1.0.0"', '"0.3.1"')
    assert node.install(old, CNI_NETWORK_CONFIG=text) == conflist.INVALID
    assert "speaks only 0.4.0, 1.0.0, 1.1.0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x.conflist", ".hidden.conflist", "10-x.conf", "x"])
def test_a_name_that_no_runtime_reads_is_refused(node: Node, old: pathlib.Path, name: str) -> None:
    assert node.install(old, CNI_CONF_NAME=name) == conflist.INVALID
    assert not node.bin.exists()


def test_lists_that_come_first_are_mentioned(
    node: Node, old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.conf.mkdir(parents=True)
    (node.conf / "10-flannel.conflist").write_text("{}")
    (node.conf / "99-last.conflist").write_text("{}")
    assert node.install(old) == 0
    said = capsys.readouterr().err
    assert "10-flannel.conflist comes before" in said
    assert "99-last" not in said


def test_what_a_killed_run_left_is_cleared(node: Node, old: pathlib.Path) -> None:
    assert node.install(old) == 0
    (node.bin / binaries.STAGING / _OLD).mkdir(parents=True)
    (node.bin / binaries.STAGING / "bridge").write_text("half")
    (node.conf / ".10-vxlan-overlay.conflist.adder-new").write_text("half")
    assert conf.conf_files(node.conf, [".conflist", ".conf", ".json"]) == [node.conflist]
    assert node.install(old) == 0
    assert node.names() == {*_NAMES, _OLD}
    assert [path.name for path in node.conf.iterdir()] == ["10-vxlan-overlay.conflist"]


def test_readers_never_see_half_a_list(node: Node) -> None:
    """What a runtime does at each change of the directory, while it changes thousands of times."""
    rounds = 1000
    one, two = config(), config(hairpinMode=True, **{f"key{i}": "x" * 50 for i in range(200)})
    conflist.write(node.conflist, one.encode())
    failures: list[BaseException] = []

    def writer() -> None:
        try:
            for _ in range(rounds):
                assert conflist.write(node.conflist, two.encode())
                assert conflist.write(node.conflist, one.encode())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=writer)
    thread.start()
    seen = set()
    while thread.is_alive():
        (file,) = conf.conf_files(node.conf, [".conflist", ".conf", ".json"])
        seen.add(conf.network_conf_from_file(file).bytes)
    thread.join()
    assert failures == []
    assert seen == {one.encode(), two.encode()}


def test_running_plugins_are_never_in_the_way(
    node: Node, old: pathlib.Path, new: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A name leads to a program that works at each instant, however often the set changes."""
    assert node.install(old) == 0
    script = (
        f"while [ ! -e {tmp_path}/stop ]; do for verb in VERSION ADD; do CNI_COMMAND=$verb"
        f" {node.bin}/bridge >/dev/null 2>>{tmp_path}/errors || echo $? >>{tmp_path}/errors;"
        f" done; echo >>{tmp_path}/runs; done"
    )
    runners = [subprocess.Popen(["sh", "-c", script]) for _ in range(4)]
    try:
        for _ in range(40):
            assert node.install(new) == 0
            assert node.install(old) == 0
    finally:
        (tmp_path / "stop").touch()
        for runner in runners:
            runner.wait()
    assert (tmp_path / "errors").read_text() == ""
    assert (tmp_path / "runs").stat().st_size > 0


def test_killed_at_any_moment_every_name_works(
    node: Node, old: pathlib.Path, new: pathlib.Path
) -> None:
    sets = [binaries.find_set(source) for source in (old, new)]
    binaries.place(sets[0], node.bin)
    began = time.monotonic()
    binaries.place(sets[1], node.bin)
    whole = time.monotonic() - began
    killed = 0
    for attempt in range(60):
        child = os.fork()
        if not child:
            try:
                binaries.place(sets[attempt % 2], node.bin)
            finally:
                os._exit(0)
        time.sleep(whole * attempt / 60)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        node.works()
    assert killed
    binaries.place(sets[0], node.bin)
    assert node.names() <= {*_NAMES, _OLD, _NEW}
    assert {aside.build_of(node.bin / name) for name in _NAMES} == {_OLD}


def test_many_installers_at_once(node: Node, old: pathlib.Path, new: pathlib.Path) -> None:
    """The init containers of an old and of a new pod may overlap."""
    command = [sys.executable, "-m", "cni_vxlan_overlay.agent.install", "install"]
    running = [
        subprocess.Popen(
            command,
            env={**_ENVIRONMENT, **node.variables(source)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for source in (old, new) * 4
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, said
    assert node.names() <= {*_NAMES, _OLD, _NEW}
    assert len({aside.build_of(node.bin / name) for name in _NAMES}) == 1
    node.works()
    assert validation.check_file(node.conflist).faults == []


@pytest.mark.root
def test_a_read_only_file_system(node: Node, old: pathlib.Path, new: pathlib.Path) -> None:
    assert node.install(old) == 0
    before = node.state()
    script = (
        'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; '
        'exec "$PYTHON" -m cni_vxlan_overlay.agent.install install "$@"'
    )
    options = [f"--bin-dir={node.bin}", f"--conf-dir={node.conf}"]
    done = in_mounts(script, str(node.bin), *options, f"--source-dir={new}")
    assert done.returncode == install.READ_ONLY, done.stderr
    assert "Read-only file system" in done.stderr
    assert "CNI_BIN_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert node.state() == before
    same = in_mounts(script, str(node.bin), *options, f"--source-dir={old}")
    assert same.returncode == 0, f"nothing had to be written: {same.stderr}"
    conf_only = in_mounts(
        script, str(node.conf), *options, f"--source-dir={old}", f"--network-config={config()}"
    )
    assert conf_only.returncode == install.READ_ONLY, conf_only.stderr
    assert node.state() == before


@pytest.mark.root
def test_a_full_file_system(node: Node, old: pathlib.Path, new: pathlib.Path) -> None:
    """Enough for one set, not for two: the first stays whole and in use."""
    size = (old / "bridge").stat().st_size + 100_000
    script = (
        f'mount -t tmpfs -o size={int(size * 1.6)} none "$1"; bin=$1; old=$2; new=$3; shift 3\n'
        'install() { "$PYTHON" -m cni_vxlan_overlay.agent.install install "$@"; }\n'
        'install --source-dir="$old" "$@" >/dev/null\n'
        'ls -AilR "$bin" >"$bin.before"\n'
        'install --source-dir="$new" "$@" && exit 99; echo "status $?"\n'
        'ls -AilR "$bin" >"$bin.after"; CNI_COMMAND=VERSION "$bin/bridge"\n'
    )
    node.bin.mkdir(parents=True)
    options = [f"--bin-dir={node.bin}", f"--conf-dir={node.conf}"]
    done = in_mounts(script, str(node.bin), str(old), str(new), *options)
    assert done.returncode == 0, done.stderr
    assert f"status {install.FULL}" in done.stdout
    assert "No space left on device" in done.stderr
    assert "supportedVersions" in done.stdout
    before, after = (node.bin.with_name(f"bin.{when}").read_text() for when in ("before", "after"))
    without_times = [
        [line for line in text.splitlines() if not line.startswith("total") and " . " not in line]
        for text in (before, after)
    ]
    assert without_times[0] == without_times[1]


@pytest.mark.root
def test_a_full_configuration_directory(node: Node, old: pathlib.Path) -> None:
    """The list that is there stays, and nothing that a runtime might read appears."""
    assert node.install(old) == 0
    text = config(hairpinMode=True)
    script = (
        'mount -t tmpfs -o size=4k none "$1"; echo x >"$1/fill"; conf=$1; shift\n'
        'set +e; "$PYTHON" -m cni_vxlan_overlay.agent.install install "$@"; echo "status $?"\n'
        'ls -A "$conf"'
    )
    options = [f"--bin-dir={node.bin}", f"--conf-dir={node.conf}", f"--source-dir={old}"]
    done = in_mounts(script, str(node.conf), *options, f"--network-config={text}")
    assert done.stdout.split() == ["status", str(install.FULL), "fill"], done.stderr


@pytest.mark.root
def test_noexec_is_named(node: Node, old: pathlib.Path) -> None:
    node.bin.mkdir(parents=True)
    script = (
        'mount -t tmpfs -o noexec none "$1"; shift; '
        'exec "$PYTHON" -m cni_vxlan_overlay.agent.install install "$@"'
    )
    options = [f"--bin-dir={node.bin}", f"--conf-dir={node.conf}", f"--source-dir={old}"]
    done = in_mounts(script, str(node.bin), *options)
    assert done.returncode == trial.UNUSABLE, done.stderr
    assert "mounted with noexec" in done.stderr


def test_flags_go_before_variables_and_empty_ones_do_not_count(
    node: Node, old: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_BIN_DIR", "/nowhere/at/all")
    monkeypatch.setenv("CNI_CONF_NAME", "")
    options = [f"--bin-dir={node.bin}", f"--conf-dir={node.conf}", f"--source-dir={old}"]
    assert install.main(["install", *options]) == 0
    assert node.conflist.exists()


def test_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as help:
        install.main(["--help"])
    assert help.value.code == 0
    said = capsys.readouterr().out
    assert all(variable in said for _, variable, _, _ in install._OPTIONS)
    with pytest.raises(SystemExit) as wrong:
        install.main(["upgrade"])
    assert wrong.value.code == 2


def test_the_real_set(node: Node, bin_dir: pathlib.Path) -> None:
    """The frozen build, where it is current; launchers of the sources are no set."""
    if not any(aside.build_of(path) for path in bin_dir.iterdir()):
        pytest.skip("no current build")
    frozen = binaries.find_set(bin_dir)
    assert {"bridge", "host-local", "loopback"} <= set(frozen.executables)
    assert binaries.place(frozen, node.bin)
    assert binaries.place(frozen, node.bin) == []
    assert "1.1.0" in trial.verify(node.bin / "bridge")
    assert binaries.remove(node.bin)
    assert node.names() == set()
