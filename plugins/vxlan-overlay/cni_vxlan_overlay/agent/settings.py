# SPDX-License-Identifier: Apache-2.0
"""The agent's options: flanneld's names where they mean the same, each also FLANNELD_<NAME>.

An option given on the command line goes before the environment, and that before the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from cni_vxlan_overlay.agent import memory
from cni_vxlan_overlay.agent.store import Store
from cni_vxlan_overlay.lease import DEFAULT_FILE
from libcni.about import VERSION
from libcni.inet import ntop, pton

#: Name, default, kind ("text", "flag", "int", "list"), explanation.
_OPTIONS: tuple[tuple[str, Any, str, str], ...] = (
    ("kube-subnet-mgr", False, "flag", "nodes and subnets are those of Kubernetes"),
    (
        "kube-api-url",
        "",
        "text",
        "Kubernetes API server; else the pod's or the kubeconfig's",
    ),
    ("kubeconfig-file", "", "text", "kubeconfig to use outside of a pod"),
    ("kube-annotation-prefix", "flannel.alpha.coreos.com", "text", "prefix of node annotations"),
    ("set-node-network-unavailable", True, "flag", "set the node's NetworkUnavailable condition"),
    ("net-config-path", "/etc/kube-flannel/net-conf.json", "text", "net-conf.json (Kubernetes)"),
    ("etcd-endpoints", ["http://127.0.0.1:2379"], "list", "URLs of etcd, parted by commas"),
    ("etcd-prefix", "/coreos.com/network", "text", "where in etcd the network is"),
    ("etcd-cafile", "", "text", "certificate authority of etcd"),
    ("etcd-certfile", "", "text", "our certificate for etcd"),
    ("etcd-keyfile", "", "text", "its key"),
    ("etcd-username", "", "text", "user of etcd"),
    ("etcd-password", "", "text", "password of etcd"),
    ("subnet-lease-renew-margin", 60, "int", "minutes before its end at which a lease is renewed"),
    ("nodes-file", "", "text", "nodes are those of this JSON file; no server at all"),
    ("iface", [], "list", "interface or address of the underlay; the first that exists"),
    ("iface-regex", [], "list", "regular expression for its address or name"),
    ("iface-can-reach", "", "text", "the interface that leads to this address"),
    ("public-ip", "", "text", "address by which peers reach this node, if it is behind NAT"),
    ("public-ipv6", "", "text", "the same for IPv6"),
    ("subnet-file", DEFAULT_FILE, "text", "what the plugin reads"),
    ("state-file", memory.DEFAULT_FILE, "text", "what survives restarts and reboots"),
    ("ip-masq", False, "flag", "masquerade what pods send out of the network"),
    ("ip-masq-fully-random-disable", False, "flag", "do not randomize source ports"),
    ("iptables-forward-rules", True, "flag", "accept pods' traffic where packets are forwarded"),
    ("healthz-ip", "0.0.0.0", "text", "address of /healthz, /readyz and /metrics"),
    ("healthz-port", 0, "int", "their port; 0 for none"),
    ("log-format", "text", "text", "text or json"),
    ("log-level", "info", "text", "debug, info, warning or error"),
)
#: flanneld's, which have nothing to do here; accepted so that its command line works.
_IGNORED = (
    "iptables-resync",
    "ip-blackhole-route",
    "v",
    "vmodule",
    "logtostderr",
    "alsologtostderr",
)
#: The kind of each option by its name; "ignored" of those that are flanneld's only.
KINDS = {name: kind for name, _, kind, _ in _OPTIONS} | dict.fromkeys(_IGNORED, "ignored")

#: What each command does, for the help. `run` is the default.
COMMANDS = {
    "run": "Be this node's agent: join the node to the overlay and keep its kernel so.",
    "status": "Show the nodes of the overlay as this one sees them, and what its kernel lacks.",
    "check": "Probe every peer through the tunnel, both ways, at the full MTU.",
    "cleanup": "Take everything of the overlay off this node, for good: its entry in the store, "
    "devices, routes, traffic rules and files. Give the options that the agent runs with.",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options; each field is the option of that name with hyphens."""

    kube_subnet_mgr: bool
    kube_api_url: str
    kubeconfig_file: str
    kube_annotation_prefix: str
    set_node_network_unavailable: bool
    net_config_path: str
    etcd_endpoints: tuple[str, ...]
    etcd_prefix: str
    etcd_cafile: str
    etcd_certfile: str
    etcd_keyfile: str
    etcd_username: str
    etcd_password: str
    subnet_lease_renew_margin: int
    nodes_file: str
    iface: tuple[str, ...]
    iface_regex: tuple[str, ...]
    iface_can_reach: str
    public_ip: str
    public_ipv6: str
    subnet_file: str
    state_file: str
    ip_masq: bool
    ip_masq_fully_random_disable: bool
    iptables_forward_rules: bool
    healthz_ip: str
    healthz_port: int
    log_format: str
    log_level: str
    node_name: str

    @property
    def kind(self) -> str:
        """The store: "file", "kubernetes" or "etcd"."""
        return "file" if self.nodes_file else "kubernetes" if self.kube_subnet_mgr else "etcd"


def parse(argv: Sequence[str], environment: Mapping[str, str], command: str = "") -> Settings:
    """Settings from a command line and an environment. Exits with 2 and words if wrong.

    command: whose options these are, for the help.
    """
    words = COMMANDS.get(command) or (
        "Node agent of vxlan-overlay. COMMAND is one of run (the default), status, check, "
        "cleanup; COMMAND --help says what it does. These are the options of run and cleanup."
    )
    parser = argparse.ArgumentParser(
        prog="vxlan-overlayd",
        # All options would be 25 lines before each complaint.
        usage=f"vxlan-overlayd {command or '[COMMAND]'} [OPTIONS]",
        description=words,
        epilog="each option is also read from the environment, as FLANNELD_ and its name in "
        "capitals with underscores; NODE_NAME is this node's name (by default the host's, except "
        "for Kubernetes)",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vxlan-overlayd {VERSION} (adder)")
    for name, default, kind, words in _OPTIONS:
        given = environment.get("FLANNELD_" + name.upper().replace("-", "_"))
        shown = ",".join(default) if kind == "list" else default
        help = f"{words} (default: {str(shown).lower() if kind == 'flag' else shown or 'none'})"
        options: dict[str, Any] = {"help": help.replace("%", "%%")}
        if kind == "flag":
            options |= {"type": _flag, "nargs": "?", "const": True}
            options["default"] = default if given is None else _flag_of(parser, name, given)
        elif kind == "int":
            options["type"] = int
            options["default"] = default if given is None else _int_of(parser, name, given)
        elif kind == "list":
            options |= {"action": "append", "default": None}
        else:
            options["default"] = default if given is None else given
        parser.add_argument(f"--{name}", **options)
    for name in _IGNORED:
        parser.add_argument(f"--{name}", nargs="?", help=argparse.SUPPRESS)
    # As flanneld's, which are Go's: one hyphen or two.
    arguments = [f"-{word}" if re.match(r"-[a-z]{2}|-v\b", word) else word for word in argv]
    found = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for name, default, kind, _ in _OPTIONS:
        key = name.replace("-", "_")
        values[key] = found[key]
        if kind == "list":
            texts = found[key]
            if texts is None:
                given = environment.get("FLANNELD_" + name.upper().replace("-", "_"))
                texts = default if given is None else [given]
            parts = texts if name == "iface-regex" else ",".join(texts).split(",")
            values[key] = tuple(part.strip() for part in parts if part.strip())
    name = environment.get("NODE_NAME", "")
    if not name and not values["kube_subnet_mgr"]:
        name = socket.gethostname()  # Kubernetes' name of a node need not be the host's
    settings = Settings(**values, node_name=name)
    _check(parser, settings)
    return settings


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    for option, value in (
        ("public-ip", settings.public_ip),
        ("public-ipv6", settings.public_ipv6),
        ("iface-can-reach", settings.iface_can_reach),
    ):
        try:
            if value:
                ntop(pton(value))
        except ValueError as error:
            parser.error(f"--{option}: {error}")
    for pattern in settings.iface_regex:
        try:
            re.compile(pattern)
        except re.error as error:
            parser.error(f"--iface-regex: {pattern!r}: {error}")
    if not 1 <= settings.subnet_lease_renew_margin <= 1439:
        parser.error("--subnet-lease-renew-margin: 1 to 1439 minutes")
    if settings.log_format not in ("text", "json"):
        parser.error("--log-format: text or json")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        parser.error("--log-level: debug, info, warning or error")
    if not 0 <= settings.healthz_port <= 65535:
        parser.error("--healthz-port: 0 to 65535")
    if settings.kube_subnet_mgr and not settings.node_name:
        parser.error("the environment has no NODE_NAME: Kubernetes' name of this node")


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _flag_of(parser: argparse.ArgumentParser, name: str, text: str) -> bool:
    try:
        return _flag(text)
    except argparse.ArgumentTypeError as error:
        parser.error(f"FLANNELD_{name.upper().replace('-', '_')}: {error}")


def _int_of(parser: argparse.ArgumentParser, name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        parser.error(f"FLANNELD_{name.upper().replace('-', '_')}: {text!r} is no number")


def open_store(settings: Settings) -> Store:
    """The store that the settings name; nothing is connected yet."""
    if settings.kind == "file":
        from cni_vxlan_overlay.agent.store.file import FileStore

        return FileStore(settings.nodes_file, settings.node_name)
    if settings.kind == "kubernetes":
        from cni_vxlan_overlay.agent.store.kubernetes import KubernetesStore

        return KubernetesStore(
            node_name=settings.node_name,
            api_url=settings.kube_api_url,
            kubeconfig=settings.kubeconfig_file,
            annotation_prefix=settings.kube_annotation_prefix,
            netconf_path=settings.net_config_path,
            set_network_unavailable=settings.set_node_network_unavailable,
        )
    from cni_vxlan_overlay.agent.store.etcd import EtcdStore

    return EtcdStore(
        settings.etcd_endpoints,
        settings.etcd_prefix,
        cafile=settings.etcd_cafile,
        certfile=settings.etcd_certfile,
        keyfile=settings.etcd_keyfile,
        username=settings.etcd_username,
        password=settings.etcd_password,
        renew_margin=settings.subnet_lease_renew_margin * 60,
    )


__all__ = ["COMMANDS", "KINDS", "Settings", "open_store", "parse"]
