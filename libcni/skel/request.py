# SPDX-License-Identifier: Apache-2.0
"""One call of a plugin: who asks, for which attachment, with which configuration."""

from __future__ import annotations

from libcni.attachment import Attachment
from libcni.skel.undo import Undo
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.netns import Namespace
    from libcni.types.result import Result


class Request:
    """The parameters of a verb, already checked.

    config: the network configuration, keys in canonical spelling, nulls dropped. version: its
    cniVersion ("0.1.0" when absent). path: the directories of CNI_PATH. stdin: the bytes as
    they came, for delegates. For GC and STATUS container_id, ifname and netns_path are "".
    """

    __slots__ = (
        "_namespace",
        "allow_own_netns",
        "args",
        "attachment",
        "callers",
        "command",
        "config",
        "netns_path",
        "path",
        "stdin",
        "type",
        "undo",
        "version",
    )

    def __init__(
        self,
        command: str,
        type: str,
        config: dict[str, Any],
        version: str,
        attachment: Attachment,
        netns_path: str = "",
        args: str = "",
        path: list[str] | None = None,
        stdin: bytes = b"",
        undo: Undo | None = None,
        allow_own_netns: bool = False,
    ) -> None:
        self.command = command
        self.type = type
        self.config = config
        self.version = version
        self.attachment = attachment
        self.netns_path = netns_path
        self.args = args
        self.path = path or []
        self.stdin = stdin
        self.undo = undo or Undo()
        self.allow_own_netns = allow_own_netns
        #: The plugins in this process that led here, each the delegate of the one before.
        self.callers: tuple[str, ...] = ()
        self._namespace: Namespace | None = None

    @property
    def network(self) -> str:
        """The network's name."""
        return self.attachment.network

    @property
    def container_id(self) -> str:
        """CNI_CONTAINERID."""
        return self.attachment.container_id

    @property
    def ifname(self) -> str:
        """CNI_IFNAME."""
        return self.attachment.ifname

    def child(self, command: str, type: str, config: dict[str, Any]) -> Request:
        """The same call for a delegate in this process, with an undo stack of its own."""
        request = Request(
            command,
            type,
            config,
            self.version,
            self.attachment,
            self.netns_path,
            self.args,
            self.path,
            self.stdin,
            allow_own_netns=self.allow_own_netns,
        )
        request.callers = (*self.callers, self.type)
        request._namespace = self._namespace
        return request

    def prev_result(self) -> Result | None:
        """The result of the plugins before (ADD) or of the whole ADD (CHECK, DEL), if given.

        Raises CniError 6 or 7 when it is malformed.
        """
        document = self.config.get("prevResult")
        if document is None:
            return None
        from libcni.types.result import Result

        return Result.from_json(document, self.version)

    def require_prev_result(self) -> Result:
        """`prev_result`, which CHECK may not do without (CniError 7)."""
        result = self.prev_result()
        if result is None:
            raise CniError(
                INVALID_NETWORK_CONFIG, "prevResult is missing", f"{self.command} requires it"
            )
        return result

    def chained_result(self) -> Result:
        """`prev_result` of an ADD that changes what an earlier plugin of the list made.

        Raises CniError 7 when there is none.
        """
        result = self.prev_result()
        if result is None:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"{self.type} must be called as chained plugin",
                "prevResult is missing; list it after the plugin that makes the interface",
            )
        return result

    def netns(self) -> Namespace:
        """The container's namespace, opened and verified once.

        Raises CniError 4 or 8, see `libcni.netns.open_netns`.
        """
        if self._namespace is None:
            from libcni.netns import open_netns

            self._namespace = open_netns(self.netns_path, self.allow_own_netns)
        return self._namespace

    def netns_or_none(self) -> Namespace | None:
        """The namespace for DEL: None when CNI_NETNS is empty or nothing is there any more."""
        if not self.netns_path:
            return None
        from libcni.netns import is_gone

        try:
            return self.netns()
        except CniError as error:
            if is_gone(error):
                return None
            raise

    def valid_attachments(self) -> set[tuple[str, str]]:
        """The (container ID, ifname) pairs that GC has to keep.

        Accepts `cni.dev/valid-attachments` and its older name `cni.dev/attachments`. Raises
        CniError 7 when neither is there or one is malformed: absence is not an empty list, and
        partial knowledge never deletes.
        """
        for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
            entries = self.config.get(key)
            if entries is not None:
                break
        else:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                "cni.dev/valid-attachments is missing",
                "GC removes nothing unless it is told what is valid; an empty list is accepted",
            )
        valid: set[tuple[str, str]] = set()
        if not isinstance(entries, list):
            raise CniError(INVALID_NETWORK_CONFIG, f"{key} is not a list", f"it is {entries!r}")
        for entry in entries:
            container = entry.get("containerID") if isinstance(entry, dict) else None
            ifname = entry.get("ifname") if isinstance(entry, dict) else None
            if not isinstance(container, str) or not isinstance(ifname, str):
                raise CniError(
                    INVALID_NETWORK_CONFIG,
                    f"{key}: {entry!r} is not an attachment",
                    "expected an object with the strings containerID and ifname",
                )
            valid.add((container, ifname))
        return valid
