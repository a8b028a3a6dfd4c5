# SPDX-License-Identifier: Apache-2.0
"""Running plugins for cnitool: as libcni does, but it is noticed what a failed one has left."""

from __future__ import annotations

from libcni.api import DefaultExecutor
from libcni.invoke.exec import answer, exec_plugin
from libcni.invoke.installation import is_ours
from libcni.invoke.spawn import spawn
from libcni.types.errors import CniError

#: How our plugins begin a line on stderr about what they could not take back.
_NOT_UNDONE = b"undo: "


class UndoneError(CniError):
    """The error of a plugin that has taken back whatever it had begun."""


class WatchingExecutor(DefaultExecutor):
    """From disk; raises UndoneError for a plugin of this installation that has undone its ADD.

    Another's plugin does not say it, nor does one of ours that was ended or could not undo all.
    """

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        """See `libcni.invoke.exec.exec_plugin`."""
        if overrides.get("CNI_COMMAND") != "ADD" or not is_ours(path):
            return exec_plugin(path, overrides, stdin, timeout)
        outcome = spawn(path, (), overrides, stdin, timeout)
        try:
            return answer(path, outcome)
        except CniError as error:
            is_told = outcome.status > 0 and outcome.stdout.strip()  # not if it was killed
            is_left = any(line.startswith(_NOT_UNDONE) for line in outcome.stderr.splitlines())
            if is_told and not is_left:
                raise UndoneError(error.code, error.msg, error.details) from error
            raise
