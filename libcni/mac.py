# SPDX-License-Identifier: Apache-2.0
"""MAC addresses: those that a configuration asks for, and random ones."""

from __future__ import annotations

import posix

from libcni.types.errors import INVALID_ENVIRONMENT, INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def parse_mac(text: str, source: str, code: int = INVALID_NETWORK_CONFIG) -> str:
    """The address in lower case with colons, from any form that Go's net.ParseMAC reads.

    source: where the text stands. Raises CniError `code` naming both; also for an address that
    no interface can have (multicast or all zero), which the kernel would refuse later and less
    clearly.
    """
    try:
        if len(text) == 17 and text[2] in ":-":
            parts, width = text.split(text[2]), 2
        else:
            parts, width = text.split("."), 4
        if len(parts) * width != 12 or any(len(p) != width or not p.isalnum() for p in parts):
            raise ValueError
        mac = bytes.fromhex("".join(parts))
        if mac[0] & 1 or mac == b"\0" * 6:
            raise ValueError
    except ValueError:
        raise CniError(
            code,
            f"{source}: failed to parse MAC address {text!r}",
            "a unicast address such as 0a:58:0a:f4:01:02 is expected",
        ) from None
    return mac.hex(":")


def requested_mac(request: Request, argument: str = "") -> str:
    """What args.cni.mac, runtimeConfig.mac, CNI_ARGS MAC, or else `mac` asks for; "" for nothing.

    argument: args.cni.mac, of a plugin that has it. Raises CniError 7, or 4 for CNI_ARGS.
    """
    source, text = "mac", request.config.get("mac")
    if request.args:
        from libcni.types.args import load_args

        asked = load_args(request.args, ("MAC",)).get("MAC")
        if asked:
            source, text = "CNI_ARGS MAC", asked
    runtime = (request.config.get("runtimeConfig") or {}).get("mac")
    if runtime:
        source, text = "runtimeConfig.mac", runtime
    if argument:
        source, text = "args.cni.mac", argument
    if not text:
        return ""
    code = INVALID_ENVIRONMENT if source.startswith("CNI_ARGS") else INVALID_NETWORK_CONFIG
    return parse_mac(text, source, code)


def random_mac() -> str:
    """A locally administered unicast MAC address."""
    octets = posix.getrandom(6)
    return bytes((octets[0] & 0xFC | 0x02, *octets[1:])).hex(":")
