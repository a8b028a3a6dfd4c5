# SPDX-License-Identifier: Apache-2.0
"""The cache that Go's libcni, inside containerd, leaves and finds: ours is the same."""

from __future__ import annotations

import pathlib

import pytest

from libcni import conf
from libcni.api import CNIConfig, RuntimeConf, render
from libcni.cache import DEFAULT_DIRECTORY, Cache, NetworkAttachment
from libcni.types.result import Result
from tests.rig.host import Host
from tests.runtime.conftest import StartContainerd
from tests.runtime.test_containerd import network


@pytest.mark.parametrize("plugin_dir", ["go"], indirect=True)
@pytest.mark.parametrize("version", ["1.0.0", "0.4.0", "0.3.1"])
def test_what_gos_libcni_wrote(
    host: Host, start_containerd: StartContainerd, plugin_dir: pathlib.Path, version: str
) -> None:
    runtime = start_containerd(network(version))
    pod = runtime.run("web")
    files = sorted((pathlib.Path(DEFAULT_DIRECTORY) / "results").iterdir())
    assert [file.name for file in files] == [f"cni-loopback-{pod}-lo", f"pods-{pod}-eth0"]
    for file in files:
        data = file.read_bytes()
        attachment = NetworkAttachment.decode(data, str(file))
        assert attachment is not None
        assert attachment.encode() == data
    assert files[1].stat().st_mode & 0o777 == 0o600
    assert files[1].parent.stat().st_mode & 0o777 == 0o700

    # Our libcni takes over: CHECK and DEL with what Go's remembered, through Go's plugins.
    (attachment,) = [a for a in Cache().attachments(pod) if a.network == "pods"]
    # Not only copied: what we would have made of the same result is the same.
    # (libcni before 1.1 printed an empty `dns` also in 1.0.0.)
    rendered = render(Result.from_json(attachment.result, ""), version)
    assert {"dns": {}, **rendered} == attachment.result
    pods = conf.network_conf_from_bytes(attachment.config)
    rt = RuntimeConf(
        pod, runtime.netns(pod), "eth0", attachment.cni_args, attachment.capability_args
    )
    cni = CNIConfig([str(plugin_dir)])
    result = cni.get_network_list_cached_result(pods, rt)
    assert result is not None
    assert [ip.address.partition("/")[0] for ip in result.ips] == runtime.addresses(pod)
    if version >= "0.4.0":
        cni.check_network_list(pods, rt)
    cni.del_network_list(pods, rt)
    assert not files[1].exists()
    # containerd finds nothing of it any more and is content.
    runtime.stop(pod)
    runtime.remove(pod)
    assert not files[0].exists()
