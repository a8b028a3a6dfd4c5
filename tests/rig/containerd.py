# SPDX-License-Identifier: Apache-2.0
"""containerd, unmodified, with all its state in a scratch directory, driven as a kubelet does."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from tests.rig import image, isolation
from tests.rig.control_group import ControlGroup
from tests.rig.plugins import BASE_ENVIRONMENT

#: Seconds for one CRI call; a sandbox takes 0.3.
CALL_TIMEOUT = 60

_CONFIG = """\
version = 2
root = "{scratch}/root"
state = "{scratch}/state"
[grpc]
  address = "{scratch}/containerd.sock"
[ttrpc]
  address = "{scratch}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{scratch}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  # Build machines may lack CAP_SYS_RESOURCE, without which runc cannot lower oom_score_adj.
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{bin_dir}"
  conf_dir = "{conf_dir}"
  max_conf_num = 1
"""


class CriError(Exception):
    """What the runtime told its caller, as text."""


class Containerd:
    """A running containerd. Everything it starts is found again by its control group."""

    def __init__(
        self, scratch: pathlib.Path, bin_dir: pathlib.Path, network: Mapping[str, Any]
    ) -> None:
        runc = shutil.which("runc", path=BASE_ENVIRONMENT["PATH"])
        daemon = shutil.which("containerd", path=BASE_ENVIRONMENT["PATH"])
        assert runc and daemon, "apt-get install containerd runc"
        self.scratch = scratch
        self.conf_dir = scratch / "net.d"
        self.conf_dir.mkdir(parents=True)
        self.group = ControlGroup(f"adder-{os.getpid()}-{scratch.name}")
        self.write_network(network)
        (scratch / "config.toml").write_text(
            _CONFIG.format(
                scratch=scratch,
                image=image.NAME,
                runc=runc,
                bin_dir=bin_dir,
                conf_dir=self.conf_dir,
            )
        )
        self.log = scratch / "containerd.log"
        self._closed = False
        self._process = self._start(daemon)
        try:
            self._channel = grpc.insecure_channel(f"unix://{scratch}/containerd.sock")
            self._stub = api_pb2_grpc.RuntimeServiceStub(self._channel)
            self._wait_until_ready()
            self._import_image()
        except BaseException:
            self.close()
            raise

    # -- life ---------------------------------------------------------------------------------

    def _start(self, daemon: str) -> subprocess.Popen[bytes]:
        join = 'for group; do mkdir -p "$group"; echo $$ >"$group/cgroup.procs"; done; '
        groups = [str(place) for place in self.group.places()]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [
                    *("sh", "-c", f"daemon=$1; config=$2; shift 2; {join}exec $daemon -c $config"),
                    *("sh", daemon, str(self.scratch / "config.toml"), *groups),
                ],
                # Plugins inherit everything that is here.
                env={**BASE_ENVIRONMENT, "HOME": "/root"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                status = self._stub.Status(cri.StatusRequest(), timeout=5)
                conditions = {c.type: c for c in status.status.conditions}
                if conditions["RuntimeReady"].status and conditions["NetworkReady"].status:
                    return
                problem = conditions["NetworkReady"].message
            except grpc.RpcError as error:
                problem = error.details()
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"containerd is not ready: {problem}\n{self.complaints()}")
            time.sleep(0.05)

    def complaints(self) -> str:
        """The lines of its log that are no mere information."""
        lines = self.log.read_text().splitlines()
        return "\n".join(line for line in lines if "level=info" not in line)[-2000:]

    def _import_image(self) -> None:
        archive = image.build(self.scratch / "image.tar")
        done = subprocess.run(
            ["ctr", "-a", f"{self.scratch}/containerd.sock", "-n", "k8s.io"]
            + ["images", "import", str(archive)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"ctr images import: {done.stderr}"

    def close(self) -> None:
        """Remove all sandboxes, end the daemon and its shims, give back mounts and groups.

        Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for pod in self.pods():
                self.stop(pod)
                self.remove(pod)
        except (CriError, AttributeError):
            pass  # a test of failures; what is left is killed below
        self.group.kill(self._process.poll)
        self._process.wait(timeout=10)
        if hasattr(self, "_channel"):
            self._channel.close()
        isolation.unmount(str(self.scratch), "/run/netns/cni-", "/run/containerd/")
        self.group.remove()

    # -- configuration --------------------------------------------------------------------------

    def write_network(self, network: Mapping[str, Any]) -> None:
        """Put the one network configuration list in place (containerd watches the directory)."""
        temporary = self.conf_dir / ".10-adder.tmp"
        temporary.write_text(json.dumps(network))
        temporary.rename(self.conf_dir / "10-adder.conflist")

    # -- calls ------------------------------------------------------------------------------------

    def _call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            raise CriError(error.details()) from None

    def networks(self) -> list[str]:
        """The names of the networks that it has loaded, its own loopback first."""
        status = self._call("Status", cri.StatusRequest(verbose=True))
        loaded = json.loads(status.info["cniconfig"])["Networks"]
        return [network["Config"]["Name"] for network in loaded]

    def run(self, name: str, **more: Any) -> str:
        """RunPodSandbox; its ID. more: as for `request`.

        Raises CriError with the runtime's message.
        """
        return str(self._call("RunPodSandbox", self.request(name, **more)).pod_sandbox_id)

    def request(
        self,
        name: str,
        ports: Iterable[tuple[str, int, int]] = (),
        annotations: Mapping[str, str] | None = None,
        dns: Mapping[str, list[str]] | None = None,
    ) -> Any:
        """The request of `run`, to keep its making out of measurements.

        ports: protocol in capitals, port of the host, port of the pod. dns: servers, searches,
        options.
        """
        return cri.RunPodSandboxRequest(
            config=cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(
                    name=name, uid=f"{name}-uid", namespace="default", attempt=0
                ),
                hostname=name,
                log_directory=str(self.scratch / "logs" / name),
                dns_config=cri.DNSConfig(**dns) if dns else None,
                port_mappings=[
                    cri.PortMapping(
                        protocol=cri.Protocol.Value(protocol),
                        host_port=outer,
                        container_port=inner,
                    )
                    for protocol, outer, inner in ports
                ],
                annotations=annotations,
                linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"/{self.group.name}"),
            )
        )

    def stop(self, pod: str) -> None:
        """StopPodSandbox: the first DEL."""
        self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=pod))

    def remove(self, pod: str) -> None:
        """RemovePodSandbox: DEL again, without namespace and without prevResult."""
        self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=pod))

    def pods(self) -> list[str]:
        """The IDs of all sandboxes, running or not."""
        listed = self._call("ListPodSandbox", cri.ListPodSandboxRequest())
        return [pod.id for pod in listed.items]

    def addresses(self, pod: str) -> list[str]:
        """The addresses that PodSandboxStatus tells, the first one first."""
        status = self._status(pod).status.network
        return [status.ip, *(extra.ip for extra in status.additional_ips)]

    def netns(self, pod: str) -> str:
        """The path of the sandbox's network namespace."""
        info = json.loads(self._status(pod).info["info"])
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        return next(str(n["path"]) for n in namespaces if n["type"] == "network")

    def _status(self, pod: str) -> Any:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
        return self._call("PodSandboxStatus", request)
