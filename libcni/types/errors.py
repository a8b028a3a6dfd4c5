# SPDX-License-Identifier: Apache-2.0
"""CNI errors: the codes of the specification and ours, and the exception that carries one.

Source: CNI spec 1.1.0 section 5 "Error" (codes 1-7, 11, 50, 51; 8 is the reference
implementation's code for an invalid network namespace; 100 and above belong to the plugin).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_NETWORK_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
PLUGIN_NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
#: No free address, table or name is left.
EXHAUSTED = 100
#: Something that would have to be made exists already, or belongs to another attachment.
CONFLICT = 101
#: The kernel refused a request (netlink, nftables, sysctl).
KERNEL = 102
#: CHECK found that the kernel or the store differs from what ADD made.
CHECK_FAILED = 103
#: A delegated plugin failed without a usable error of its own.
DELEGATE_FAILED = 104
#: A fault of ours, as in the reference implementation.
INTERNAL = 999


class CniError(Exception):
    """A failure as the runtime is told of it.

    code: one of the constants above. msg: one short sentence naming the key, value, device or
    address. details: what helps to mend it; may be empty.
    """

    __slots__ = ("code", "details", "msg")

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def to_json(self, version: str) -> dict[str, Any]:
        """The error object of the specification, `version` being the request's cniVersion."""
        document: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.msg}
        if self.details:
            document["details"] = self.details
        return document
