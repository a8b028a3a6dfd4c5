# SPDX-License-Identifier: Apache-2.0
"""Setting up installs programs and leaves no service of theirs running or enabled."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

from tools import packages

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: apt-get installs `new` and what it needs, and notes the policy; what is there is in $STATE.
FAKES = {
    "dpkg-query": 'cat "$STATE/installed"',
    "dpkg": 'shift; for p in "$@"; do echo "/lib/systemd/system/$p.service"; echo "/bin/$p"; done',
    "apt-get": """
echo "apt-get $*" >>"$STATE/log"
[ "$1" = update ] && exit 0
echo "policy $([ -x "$STATE/policy-rc.d" ] && "$STATE/policy-rc.d"; echo $?)" >>"$STATE/log"
echo "needed install ok installed" >>"$STATE/installed"
[ -e "$STATE/breaks" ] && exit 100
echo "new install ok installed" >>"$STATE/installed"
""",
    "systemctl": 'echo "systemctl $*" >>"$STATE/log"',
}


@pytest.fixture
def state(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A Debian with `old` installed and `removed` not any more."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "installed").write_text(
        "old:amd64 install ok installed\nremoved deinstall ok config-files\n"
    )
    (tmp_path / "log").write_text("")
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def log(state: pathlib.Path) -> list[str]:
    return (state / "log").read_text().splitlines()


def test_services_neither_start_nor_stay_enabled(state: pathlib.Path) -> None:
    """Those of what was needed besides, too; not those that were there before."""
    policy = state / "policy-rc.d"
    assert packages.install(["old", "new"], policy) == ["new"]
    assert log(state) == [
        "apt-get update -qq",
        "apt-get install -qq -y --no-install-recommends new",
        "policy 101",
        "systemctl disable --quiet needed.service new.service",
    ]
    assert not policy.exists()
    assert packages.install(["old", "new"], policy) == []
    assert len(log(state)) == 4


def test_half_an_installation_leaves_no_service_either(state: pathlib.Path) -> None:
    (state / "breaks").touch()
    policy = state / "policy-rc.d"
    with pytest.raises(subprocess.CalledProcessError):
        packages.install(["new"], policy)
    assert log(state)[-1] == "systemctl disable --quiet needed.service"
    assert not policy.exists()


def test_a_policy_of_the_host_s_stays(state: pathlib.Path) -> None:
    policy = state / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    packages.install(["new"], policy)
    assert "policy 104" in log(state)
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_what_a_killed_call_left_is_ours(state: pathlib.Path) -> None:
    policy = state / "policy-rc.d"
    with packages.services_held(policy):
        left = policy.read_text()
    policy.write_text(left)
    packages.install(["new"], policy)
    assert "policy 101" in log(state)
    assert not policy.exists()


def test_a_build_needs_no_service() -> None:
    """What `make run` installs are compilers, libraries and the programs that the demo calls."""
    text = (ROOT / "Makefile").read_text()
    found = re.search(r"^APT_BUILD := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert found is not None
    assert not {"containerd", "etcd-server", "firewalld", "podman"} & set(found[1].split())
