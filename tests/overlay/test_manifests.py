# SPDX-License-Identifier: Apache-2.0
"""What operators are handed: valid by the rules of those who read it, with no rights unsaid."""

from __future__ import annotations

import asyncio
import configparser
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import tarfile
import tomllib
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from cni_vxlan_overlay.agent import conflist, install, settings
from cni_vxlan_overlay.agent.model import Offer
from cni_vxlan_overlay.peers import Endpoint, vtep_mac
from libcni.about import VERSION
from libcni.schema import explain
from tests.rig.plugins import ROOT
from tools import dist

DEPLOY = ROOT / "plugins/vxlan-overlay/deploy"
MANIFEST = DEPLOY / "vxlan-overlay.yml"
UNIT = DEPLOY / "vxlan-overlayd.service"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
#: Every minor version that the package has schemas of.
KUBERNETES = sorted({str(version) for version in all_versions()})


def document(kind: str) -> dict[str, Any]:
    """The one document of this kind."""
    (found,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = document("DaemonSet")["spec"]["template"]["spec"]
    return spec


def containers() -> list[dict[str, Any]]:
    return [*pod()["initContainers"], *pod()["containers"]]


def named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [entry for entry in entries if entry["name"] == name]
    return found


def network() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(document("ConfigMap")["data"]["cni-conf.json"])
    return parsed


def test_several_versions_are_bundled() -> None:
    assert len(KUBERNETES) >= 2


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("kind", [document["kind"] for document in DOCUMENTS])
def test_every_document_is_valid_strictly(kind: str, version: str) -> None:
    kubernetes_validate.validate(document(kind), version, strict=True)


def test_the_validator_does_look() -> None:
    broken = json.loads(json.dumps(document("DaemonSet")))
    broken["spec"]["template"]["spec"]["hostNetworking"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


def test_the_documents_in_the_order_of_need() -> None:
    assert [document["kind"] for document in DOCUMENTS] == [
        *("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"),
        *("ConfigMap", "DaemonSet"),
    ]


def test_all_that_has_a_namespace_is_in_ours() -> None:
    name = document("Namespace")["metadata"]["name"]
    for kind in ("ServiceAccount", "ConfigMap", "DaemonSet"):
        assert document(kind)["metadata"]["namespace"] == name
    labels = document("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_no_more_rights_in_the_cluster_than_the_agent_uses() -> None:
    granted = {
        (group, resource, verb)
        for rule in document("ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("", "nodes", "get"),
        ("", "nodes", "list"),
        ("", "nodes", "watch"),
        ("", "nodes/status", "patch"),
    }
    assert all(
        set(r) == {"apiGroups", "resources", "verbs"} for r in document("ClusterRole")["rules"]
    )


def test_the_role_is_that_of_the_pods_account_and_of_nobody_else() -> None:
    binding = document("ClusterRoleBinding")
    account = document("ServiceAccount")["metadata"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": document("ClusterRole")["metadata"]["name"],
    }
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]
    assert pod()["serviceAccountName"] == account["name"]


def test_no_more_rights_on_the_node_than_said() -> None:
    added = {}
    for container in containers():
        security = container["securityContext"]
        assert security["privileged"] is False
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        added[container["name"]] = security["capabilities"].get("add", [])
    assert added == {"install-cni": [], "vxlan-overlayd": ["NET_ADMIN", "NET_RAW"]}
    assert pod()["hostNetwork"] is True
    assert not {"hostPID", "hostIPC", "shareProcessNamespace"} & set(pod())


def test_the_pod_is_where_and_when_it_has_to_be() -> None:
    assert pod()["priorityClassName"] == "system-node-critical"
    effects = {t["effect"] for t in pod()["tolerations"] if t["operator"] == "Exists"}
    assert effects == {"NoSchedule", "NoExecute"}
    spec = document("DaemonSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_directories_of_the_host_and_who_sees_them() -> None:
    paths = {
        volume["name"]: (volume["hostPath"]["path"], volume["hostPath"]["type"])
        for volume in pod()["volumes"]
        if "hostPath" in volume
    }
    assert set(paths.values()) == {
        ("/run/flannel", "DirectoryOrCreate"),
        ("/var/lib/vxlan-overlay", "DirectoryOrCreate"),
        ("/var/lib/cni/networks", "DirectoryOrCreate"),
        ("/opt/cni/bin", "DirectoryOrCreate"),
        ("/etc/cni/net.d", "DirectoryOrCreate"),
        ("/run/xtables.lock", "FileOrCreate"),
    }
    mounted = {c["name"]: {m["mountPath"] for m in c["volumeMounts"]} for c in containers()}
    assert mounted == {
        "install-cni": {"/opt/cni/bin", "/etc/cni/net.d", "/etc/kube-flannel"},
        "vxlan-overlayd": {
            *("/run/flannel", "/var/lib/vxlan-overlay", "/etc/kube-flannel"),
            *("/run/xtables.lock", "/var/lib/cni/networks"),
        },
    }
    for container in containers():
        for mount in container["volumeMounts"]:
            if mount["name"] in paths:
                assert mount["mountPath"] == paths[mount["name"]][0]
    config = named(pod()["volumes"], "config")["configMap"]["name"]
    assert config == document("ConfigMap")["metadata"]["name"]


def test_the_agents_command_probes_and_requests() -> None:
    agent = named(pod()["containers"], "vxlan-overlayd")
    assert agent["args"] == ["--kube-subnet-mgr", "--ip-masq", "--healthz-port=8081"]
    assert agent["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8081}
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8081}
    assert agent["resources"]["requests"] == {"cpu": "100m", "memory": "50Mi"}
    assert named(agent["env"], "NODE_NAME")["valueFrom"]["fieldRef"] == {
        "fieldPath": "spec.nodeName"
    }


def test_both_containers_use_the_image_of_this_version() -> None:
    images = {container["image"] for container in containers()}
    assert len(images) == 1
    (image,) = images
    assert image.endswith(f":{VERSION}")
    assert f"-t {image} ." in (DEPLOY / "Dockerfile").read_text()


def test_the_installer_reads_the_configmap_where_it_is_mounted() -> None:
    installer = named(pod()["initContainers"], "install-cni")
    mount = named(installer["volumeMounts"], "config")["mountPath"]
    value = named(installer["env"], "CNI_CONF_FILE")["value"]
    assert value == f"{mount}/cni-conf.json"
    assert "cni-conf.json" in document("ConfigMap")["data"]


def test_the_network_is_valid_and_is_flannels() -> None:
    assert explain.explain("conflist", network()) == ("", "")
    assert network()["cniVersion"] == "1.0.0", "containerd 1.6 speaks no more"
    checked = conflist.check(document("ConfigMap")["data"]["cni-conf.json"].encode())
    assert checked.name == "cbr0"
    assert [plugin.type for plugin in checked.plugins] == ["vxlan-overlay", "portmap"]
    assert checked.plugins[0].document["delegate"] == {
        "hairpinMode": True,
        "isDefaultGateway": True,
    }


def test_net_conf_is_a_vxlan_network() -> None:
    parsed = json.loads(document("ConfigMap")["data"]["net-conf.json"])
    assert parsed == {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}


def unit(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """Sections, keys and values of a systemd unit in which no key is repeated."""
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def test_the_service_is_held_in() -> None:
    service = unit(UNIT)["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert service["CapabilityBoundingSet"].split() == ["CAP_NET_ADMIN", "CAP_NET_RAW"]
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["RuntimeDirectory"] == "flannel"
    assert service["RuntimeDirectoryPreserve"] == "yes", "the subnet file survives a restart"
    assert service["StateDirectory"] == "vxlan-overlay"
    assert "ProtectKernelTunables" not in service, "the agent writes sysctls"


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze, of the package systemd"
)
def test_systemd_accepts_the_service(tmp_path: pathlib.Path) -> None:
    text = UNIT.read_text()
    program = unit(UNIT)["Service"]["ExecStart"]
    assert program == named(pod()["containers"], "vxlan-overlayd")["command"][0]
    # The program need not be installed for its unit to be looked at.
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(f"ExecStart={program}", "ExecStart=/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr  # where it warns of keys it does not know
    rating = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(copy)]
    done = subprocess.run(rating, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_the_service_settings_are_flanneld_variables() -> None:
    assert unit(UNIT)["Service"]["EnvironmentFile"] == "-/etc/vxlan-overlay/vxlan-overlayd.env"
    for line in (DEPLOY / "vxlan-overlayd.env").read_text().splitlines():
        if line and not line.startswith("# "):
            assert re.fullmatch(r"#?(FLANNELD_[A-Z_]+|NODE_NAME)=\S+", line), line


#: Devices of ours, and what is nobody's business here.
OURS = ("adder.1", "adder.16777215", "adder6.1")


def test_udev_leaves_our_devices_alone() -> None:
    link = unit(DEPLOY / "50-vxlan-overlay.link")
    assert link["Link"] == {"MACAddressPolicy": "none"}
    patterns = link["Match"]["OriginalName"].split()
    for name in OURS:
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    assert not any(fnmatch.fnmatchcase("eth0", pattern) for pattern in patterns)


def test_networkmanager_leaves_our_devices_alone() -> None:
    sections = unit(DEPLOY / "networkmanager-vxlan-overlay.conf")
    specs = sections["keyfile"]["unmanaged-devices"].split(";")
    patterns = [spec.removeprefix("interface-name:") for spec in specs]
    assert all(spec.startswith("interface-name:") for spec in specs)
    for name in (*OURS, "cni0", "veth0a1b2c3d"):
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    for name in ("eth0", "wlan0", "cni1"):
        assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def test_the_dockerfile_copies_what_exists_and_runs_what_make_has() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^RUN make (\S+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for path in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / path).exists()
    entry = re.search(r'^ENTRYPOINT \["(\S+)"\]', text, re.MULTILINE)
    assert entry and entry[1] == named(pod()["containers"], "vxlan-overlayd")["command"][0]
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == ">=3.11" and "BASE=debian:12-slim" in text, "Debian 12 has Python 3.11"


def test_the_unit_names_a_page_that_the_readme_puts_there() -> None:
    documentation = unit(UNIT)["Unit"]["Documentation"]
    page = documentation.removeprefix("file://")
    assert f"\ninstall -D -m 644 README.md {page}\n" in (DEPLOY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """What the page shows in this language."""
    text = (DEPLOY / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_hosts_commands_name_what_a_release_has(tmp_path: pathlib.Path) -> None:
    """The two tarballs, and only files that are in them, from the directory they are in."""
    (commands,) = [block for block in blocks("sh") if "install-cni install" in block]
    (packed,) = dist.pack_deploy(ROOT, tmp_path)
    top = packed.name.removesuffix(".tgz")
    with tarfile.open(packed) as archive:
        files = set(archive.getnames())
    unpacked = False
    for line in commands.splitlines():
        words = line.split()
        if words[0] == "sha256sum":
            assert words[2:] == [f"adder-{VERSION}-linux-amd64.tgz.sha256", f"{top}.tgz.sha256"]
        elif words[0] == "tar":
            assert words[-1] in (f"adder-{VERSION}-linux-amd64.tgz", f"{top}.tgz")
            unpacked |= words[-1] == f"{top}.tgz"
        elif words[0] == "cd":
            assert unpacked and words[1] == top
        elif words[0] == "install":
            (name,) = [word for word in words if f"{top}/{word}" in files]
            assert name in line
    assert commands.count("\ninstall ") == 4


def test_the_nodes_file_of_the_page_works(tmp_path: pathlib.Path) -> None:
    """The example is the file beside it, and each node finds itself in it as the page says."""
    (shown,) = [block for block in blocks("json") if '"nodes"' in block]
    path = DEPLOY / "nodes.json"
    assert shown == path.read_text()
    (lines,) = [block for block in blocks("sh") if "FLANNELD_NODES_FILE" in block]
    environment = dict(line.split("=", 1) for line in lines.splitlines())
    assert settings.parse([], environment).kind == "file"
    environment["FLANNELD_NODES_FILE"] = str(path)
    for number in (1, 2):
        environment["NODE_NAME"] = f"node-{number}"
        store = settings.open_store(settings.parse([], environment))
        conf = asyncio.run(store.netconf())
        assert [network.text() for network in conf.networks] == ["10.244.0.0/16"]
        address = f"192.168.50.{number}"
        offer = Offer("", (Endpoint(address, vtep_mac(conf.backend.vni, address)),), 1)
        own = asyncio.run(store.publish(offer))
        assert own.name == f"node-{number}"
        assert [subnet.text() for subnet in own.peer.subnets] == [f"10.244.{number}.0/24"]
        assert own.peer.endpoints == offer.endpoints


def test_the_page_has_every_key_of_a_node() -> None:
    schema = json.loads((DEPLOY.parent / "schema.json").read_text())
    text = (DEPLOY / "README.md").read_text()
    section = text[text.index("### Nodes in a file") : text.index("## From flannel")]
    for key in schema["properties"]["peers"]["items"]["properties"]:
        assert re.search(rf"^\| .*`{key}`.* \| ", section, re.MULTILINE), key


def test_the_readme_tells_of_every_file_and_variable() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        if path.name != "README.md":
            assert f"`{path.name}`" in text
    for option, variable, _, _ in install._OPTIONS:
        assert f"`{variable}` (`--{option}`)" in text
