# SPDX-License-Identifier: Apache-2.0
"""podman, unmodified, with its CNI backend and all its state in a scratch directory."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

from tests.rig import image, isolation
from tests.rig.control_group import ControlGroup
from tests.rig.plugins import BASE_ENVIRONMENT

#: The one image.
IMAGE = "localhost/adder-busybox:1"
#: Serves /etc; podman puts the container's name into /etc/hostname.
SERVER = ("/bin/httpd", "-f", "-p", "80", "-h", "/etc")
#: Seconds for one command; most take 0.1.
TIMEOUT = 60

# Build machines may lack CAP_SYS_RESOURCE, which higher limits need, and crun refuses hybrid
# hierarchies of control groups. No static_dir: conmon's own podman, which cleans up after a
# container that ends, would look for the containers elsewhere.
_CONFIG = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
apparmor_profile = ""
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
lock_type = "file"
tmp_dir = "{scratch}/tmp"
image_copy_tmp_dir = "{scratch}"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}"]
network_config_dir = "{scratch}/net"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{scratch}/graph"
runroot = "{scratch}/run"
"""


class PodmanError(Exception):
    """What podman told its user, as text."""


class Podman:
    """An installation of podman with one image and no containers."""

    def __init__(self, scratch: pathlib.Path, bin_dir: pathlib.Path) -> None:
        for tool in ("podman", "conmon", "runc"):
            found = shutil.which(tool, path=BASE_ENVIRONMENT["PATH"])
            assert found, f"apt-get install {tool}"
        self.scratch = scratch
        self.networks_dir = scratch / "net"
        self.networks_dir.mkdir()
        self._group = ControlGroup(f"adder-{os.getpid()}-{scratch.name}")
        (scratch / "containers.conf").write_text(_CONFIG.format(scratch=scratch, bin_dir=bin_dir))
        (scratch / "storage.conf").write_text(_STORAGE.format(scratch=scratch))
        self._environment = {
            **BASE_ENVIRONMENT,
            "HOME": str(scratch),
            "CONTAINERS_CONF": f"{scratch}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{scratch}/storage.conf",
        }
        self._closed = False
        (scratch / "root.tar").write_bytes(image.root())
        try:
            self("import", "--quiet", str(scratch / "root.tar"), IMAGE)
        except BaseException:
            self.close()
            raise

    def __call__(self, *words: str) -> str:
        """`podman <words>`; its stdout.

        Raises PodmanError with its stderr if it fails, and if it warns of anything: a network
        that a plugin made unusable is a warning to podman.
        """
        done = subprocess.run(
            ["podman", *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode or "level=" in done.stderr:
            raise PodmanError(f"podman {' '.join(words)}: {done.returncode} {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self, name: str, *options: str) -> str:
        """A container of that name in the background that serves on port 80; its ID."""
        group = ("--cgroup-parent", f"/{self._group.name}")
        return self("run", "-d", *group, "--name", name, *options, IMAGE, *SERVER)

    def inside(self, name: str, *words: str) -> str:
        """Run a command in the container; its stdout."""
        return self("exec", name, *words)

    def remove(self, *names: str) -> None:
        """`podman rm -f` without grace: the first process of a container ignores SIGTERM."""
        self("rm", "-f", "-t0", *names)

    def settings(self, name: str) -> dict[str, Any]:
        """What `podman inspect` says of the container's network."""
        text = self("inspect", "--format", "{{json .NetworkSettings}}", name)
        found: dict[str, Any] = json.loads(text)
        return found

    def network(self, name: str, network: str) -> dict[str, Any]:
        """What `podman inspect` says of one network of the container."""
        found: dict[str, Any] = self.settings(name)["Networks"][network]
        return found

    def netns(self, name: str) -> str:
        """The path of the container's network namespace."""
        return str(self.settings(name)["SandboxKey"])

    def conflist(self, network: str) -> dict[str, Any]:
        """The list that `podman network create` wrote."""
        found: dict[str, Any] = json.loads((self.networks_dir / f"{network}.conflist").read_text())
        return found

    def close(self) -> None:
        """Remove all containers and networks, end what is left, give back mounts and groups.

        Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.remove("--all")
            names = [path.stem for path in self.networks_dir.glob("*.conflist")]
            if names:
                self("network", "rm", *names)
        except PodmanError:
            pass  # a test of failures; what is left is killed below
        self._group.kill()
        isolation.unmount(str(self.scratch), "/run/netns/netns-")
        self._group.remove()
