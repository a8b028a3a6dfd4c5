# SPDX-License-Identifier: Apache-2.0
"""What an executable says that cannot start: an error object to a runtime, a line to a person."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from libcni.about import NAME
from libcni.version import NEWEST
from tests.rig.plugins import ROOT
from tools.freeze import hot

BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))
#: A command that runs the rest as a user without rights, whom modes such as 0711 stop; below
#: /mnt, as pytest's own directories keep such a user out.
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

pytestmark = pytest.mark.frozen


def start(program: pathlib.Path, *before: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """VERSION as a runtime asks for it; `before`: a command that runs the program."""
    variables = {"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]}
    return subprocess.run(
        [*before, program],
        env=variables,
        input=json.dumps({"cniVersion": "1.0.0"}),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def refusal(done: subprocess.CompletedProcess[str], code: int, *words: str) -> dict[str, Any]:
    """The error object of a run that has to have failed with it, and nothing else."""
    assert done.returncode == 1, done
    document: dict[str, Any] = json.loads(done.stdout)
    assert set(document) == {"cniVersion", "code", "msg", "details"}, document
    assert (document["cniVersion"], document["code"]) == (NEWEST, code), document
    assert "Traceback" not in done.stdout + done.stderr
    text = f"{document['msg']} {document['details']}"
    assert not [word for word in words if word not in text], text
    return document


@pytest.fixture
def copied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with a copy of `bridge` and of what it shares."""
    target = tmp_path / "bin"
    target.mkdir()
    shutil.copyfile(BIN / "bridge", target / "bridge")
    (target / "bridge").chmod(0o755)
    (contents,) = BIN.glob(f"{NAME}-*")
    shutil.copytree(contents, target / contents.name)
    return target


def shared(directory: pathlib.Path) -> pathlib.Path:
    (contents,) = directory.glob(f"{NAME}-*")
    return contents


def test_without_its_shared_directory(copied: pathlib.Path) -> None:
    contents = shared(copied)
    shutil.rmtree(contents)
    refusal(start(copied / "bridge"), 5, str(contents), "No such file", "copy the whole set")
    done = subprocess.run([copied / "bridge"], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{NAME}: cannot use the shared directory {contents}: No such")


def start_as_nobody(directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """`start` of its `bridge` by a user without rights, who finds the directory as /mnt."""
    script = f'mount --bind {directory} /mnt && exec {" ".join(AS_NOBODY)} "$0"'
    return start(pathlib.Path("/mnt/bridge"), "unshare", "-m", "sh", "-c", script)


def test_without_the_right_to_look_into_its_shared_directory(copied: pathlib.Path) -> None:
    contents = shared(copied)
    contents.chmod(0o711)
    refusal(start_as_nobody(copied), 5, f"/mnt/{contents.name}", "Permission denied", "readable")
    contents.chmod(0o755)
    assert start_as_nobody(copied).returncode == 0


def test_without_the_right_to_read_the_executable(copied: pathlib.Path) -> None:
    (copied / "bridge").chmod(0o711)
    refusal(start_as_nobody(copied), 5, "cannot open the executable: Permission denied", "right")


def test_with_half_of_its_shared_directory(copied: pathlib.Path) -> None:
    contents = shared(copied)
    for path in [*contents.rglob("_json*.so"), *contents.rglob("*.zip")]:
        path.unlink()
    refusal(start(copied / "bridge"), 999, "Error", str(contents), "install the whole set again")


@pytest.mark.parametrize("name", ['quoted"', "back\\slash", "new\nline", "\u00fcmlaut"])
def test_the_error_object_is_json_wherever_the_executable_is(
    tmp_path: pathlib.Path, name: str
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    shutil.copyfile(BIN / "bridge", directory / "bridge")
    (directory / "bridge").chmod(0o755)
    document = refusal(start(directory / "bridge"), 5)
    if name.isascii():
        assert f"{directory}/{NAME}-" in document["msg"]


def test_stripped(copied: pathlib.Path) -> None:
    subprocess.run(["strip", copied / "bridge"], check=True)
    refusal(start(copied / "bridge"), 5, "not whole", "stripped")


def test_cut_off(copied: pathlib.Path) -> None:
    with (copied / "bridge").open("rb+") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 70_000)
    refusal(start(copied / "bridge"), 5, "not whole", "install it again")


def test_without_proc() -> None:
    script = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0"')
    refusal(start(BIN / "bridge", *script), 5, "No such file or directory", "/proc")


def test_with_too_little_address_space() -> None:
    done = start(BIN / "bridge", "sh", "-c", 'ulimit -v 18000 && exec "$0"')
    refusal(done, 5, "Cannot allocate memory", "ulimit -v")


@pytest.mark.parametrize("name", ["bridge.old", "my-plugin"])
def test_under_a_name_that_is_no_plugins(copied: pathlib.Path, name: str) -> None:
    (copied / "bridge").rename(copied / name)
    refusal(start(copied / name), 7, repr(name), *hot.plugin_types(ROOT))
