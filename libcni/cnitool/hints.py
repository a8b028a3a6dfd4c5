# SPDX-License-Identifier: Apache-2.0
"""Errors for people: what failed, the details, and what to do about it."""

from __future__ import annotations

import os
import sys
from typing import Any

from libcni.cnitool import settings
from libcni.conf import NoConfigsFoundError, NotFoundError
from libcni.types.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_NETNS,
    INVALID_NETWORK_CONFIG,
    TRY_AGAIN_LATER,
    CniError,
)


def report(error: CniError, verb: str, options: dict[str, Any]) -> None:
    """Write the error to stderr, with a hint where there is one."""
    print(f"Error: {error.msg}", file=sys.stderr)
    if error.details:
        print(f"Details: {error.details}", file=sys.stderr)
    for line in hints(error, verb, options):
        print(f"Hint: {line}", file=sys.stderr)


def hints(error: CniError, verb: str, options: dict[str, Any]) -> list[str]:
    """What may mend it, likeliest first."""
    found = []
    text = str(error)
    if isinstance(error, NoConfigsFoundError | NotFoundError):
        origin = "from" if os.environ.get("NETCONFPATH") else "the default of"
        found.append(f"that directory is {origin} NETCONFPATH; `cnitool list` shows its networks")
    elif "failed to find plugin" in text or "no paths provided" in text:
        where = ":".join(settings.plugin_path())
        found.append(f"set CNI_PATH to the directories with plugins; it is {where}")
    elif "duplicate allocation" in text or "already exists" in text:
        found.append(f"detach it first: cnitool del {_arguments(options)}")
    elif "CNI_NETNS" in text or error.code == INVALID_NETNS or "unknown FS magic" in text:
        found.append("`ip netns add NAME` makes a namespace at /run/netns/NAME")
    elif error.code == TRY_AGAIN_LATER:
        found.append("the cause passes by itself: try again")
    elif error.code == INCOMPATIBLE_VERSION:
        found.append("change cniVersion in the network's configuration")
    elif error.code in (DECODING_FAILURE, INVALID_NETWORK_CONFIG):
        found.append("`cnitool validate` checks the configuration files")
    elif os.geteuid() and ("not permitted" in text or "denied" in text):
        found.append("plugins need root's rights")
    if verb == "add" and "failed (add)" in error.msg:
        found.append(f"whatever is left of it goes with: cnitool del {_arguments(options)}")
    return list(dict.fromkeys(found))


def _arguments(options: dict[str, Any]) -> str:
    words = [str(options.get("network")), str(options.get("netns"))]
    if options.get("ifname"):
        words += ["-i", str(options["ifname"])]
    return " ".join(words)
