# SPDX-License-Identifier: Apache-2.0
"""What cnitool takes from the environment, as Go's tool does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

from libcni import conf
from libcni.api import DEFAULT_PATH, CNIConfig, RuntimeConf
from libcni.cache import DEFAULT_DIRECTORY as CACHE_DIRECTORY
from libcni.cache import Cache
from libcni.cnitool.execution import WatchingExecutor
from libcni.types.errors import INVALID_ENVIRONMENT, CniError

#: Where `ip netns` has its namespaces.
NAMED_NAMESPACES = "/run/netns"


def program() -> str:
    """What to type for this program: as it was called, which may be by its path."""
    called = sys.argv[0]
    return called if os.path.basename(called) == "cnitool" else "cnitool"


def configuration_directory() -> str:
    """$NETCONFPATH, or the place where runtimes look."""
    return os.environ.get("NETCONFPATH") or conf.DEFAULT_DIRECTORY


def plugin_path() -> list[str]:
    """The directories of $CNI_PATH, or the place where runtimes look."""
    return (os.environ.get("CNI_PATH") or ":".join(DEFAULT_PATH)).split(":")


def cni(cache_dir: str) -> CNIConfig:
    """The runtime API on these directories."""
    return CNIConfig(plugin_path(), cache_dir, WatchingExecutor())


def cache(cache_dir: str) -> Cache:
    """Where the results of past ADDs are: in the given directory, or where runtimes have them."""
    return Cache(cache_dir or CACHE_DIRECTORY)


def interface(ifname: str) -> str:
    """The interface that is asked for: the given one, $CNI_IFNAME, or eth0."""
    return ifname or os.environ.get("CNI_IFNAME") or "eth0"


def container_id(netns: str) -> str:
    """The container ID that stands for a namespace: made of its absolute path.

    Raises CniError 4, as `absolute` does.
    """
    return "cnitool-" + hashlib.sha512(absolute(netns).encode()).hexdigest()[:20]


def absolute(netns: str) -> str:
    """The namespace's absolute path. Raises CniError 4 when it is empty or cannot be told."""
    if not netns:
        raise CniError(
            INVALID_ENVIRONMENT,
            "the path of the namespace is empty",
            "such as /run/netns/NAME or /proc/PID/ns/net is expected",
        )
    try:
        return os.path.abspath(netns)
    except FileNotFoundError:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"cannot tell where {netns!r} is: the working directory has been removed",
            "give the namespace's absolute path",
        ) from None


def named_namespace(netns: str) -> str:
    """The namespace that is meant where only its name was given, "" where that is not so.

    A name is a path in the working directory. Something else is meant when nothing is there and
    `ip netns` knows the name.
    """
    path = f"{NAMED_NAMESPACES}/{netns}"
    is_name = bool(netns) and "/" not in netns and netns not in (".", "..")
    return path if is_name and not os.path.exists(netns) and os.path.exists(path) else ""


def runtime_conf(netns: str, ifname: str) -> RuntimeConf:
    """The attachment that arguments and environment describe. Raises CniError 4."""
    return RuntimeConf(
        container_id(netns),
        absolute(netns),
        interface(ifname),
        _arguments(os.environ.get("CNI_ARGS", "")),
        _capability_arguments(os.environ.get("CAP_ARGS", "")),
    )


def _arguments(text: str) -> list[tuple[str, str]]:
    pairs = []
    for pair in text.split(";") if text else ():
        key, _, value = pair.partition("=")
        if not key or not value or "=" in value:
            raise CniError(
                INVALID_ENVIRONMENT, f"invalid CNI_ARGS pair {pair!r}", "KEY=VALUE is expected"
            )
        pairs.append((key, value))
    return pairs


def _capability_arguments(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CniError(
            INVALID_ENVIRONMENT, f"CAP_ARGS is not valid JSON: {error}", f"it is {text[:200]!r}"
        ) from None
    if value is not None and not isinstance(value, dict):
        raise CniError(INVALID_ENVIRONMENT, "CAP_ARGS is not a JSON object", f"it is {text!r}")
    return value or {}
