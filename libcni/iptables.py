# SPDX-License-Identifier: Apache-2.0
"""iptables by its tools: one `iptables-restore --noflush` per change, one `-save` per look.

One process per operation instead of one per rule, and all of the operation or nothing. Used
where iptables was asked for, or for what iptables-legacy holds; both its variants understand
what is sent here.
"""

from __future__ import annotations

import posix

from libcni.invoke.spawn import spawn
from libcni.types.errors import KERNEL, TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: The variant that is not a front end of nftables; "" is the system's choice.
LEGACY = "-legacy"
#: Runtimes may call plugins without PATH, or without the directories of system tools.
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
#: Seconds to wait for the lock that all users of iptables-legacy share; then code 11.
_LOCK_WAIT = 5
#: Seconds for the whole process.
_TIMEOUT = 30.0
#: Exit status RESOURCE_PROBLEM of iptables: mostly the lock.
_RESOURCE_PROBLEM = 4
#: Looks at a table whose shared chains others make at the same time.
_LOOKS = 5


def _path() -> str:
    own = posix.environ.get(b"PATH", b"").decode("utf-8", "replace")
    return f"{own}:{_SYSTEM_DIRECTORIES}" if own else _SYSTEM_DIRECTORIES


def program(version: int) -> str:
    """What iptables is called for a version of IP, 4 or 6."""
    return "iptables" if version == 4 else "ip6tables"


def find(version: int, tool: str, variant: str = "") -> str:
    """The path of `iptables-restore` (version 4, tool "restore") and the like, or "".

    Where there is no tool of the variant by name the plain one serves.
    """
    family = program(version)
    for name in dict.fromkeys((f"{family}{variant}-{tool}", f"{family}-{tool}")):
        for directory in _path().split(":"):
            path = f"{directory}/{name}"
            if directory.startswith("/") and posix.access(path, posix.X_OK):
                return path
    return ""


def _run(version: int, tool: str, variant: str, arguments: list[str], stdin: bytes) -> bytes:
    path = find(version, tool, variant)
    if not path:
        raise CniError(
            KERNEL, f"{program(version)}-{tool} is not installed", f"looked for it in {_path()}"
        )
    outcome = spawn(path, arguments, {"PATH": _path()}, stdin, _TIMEOUT)
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").strip()
        locked = outcome.status == _RESOURCE_PROBLEM or "xtables lock" in said
        raise CniError(
            TRY_AGAIN_LATER if locked else KERNEL,
            f"{path}: {outcome.describe()}" + (": " + said.split("\n")[0] if said else ""),
            said,
        )
    return outcome.stdout


def quoted(text: str) -> str:
    """A word for `restore`, as `save` shows it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def restore(version: int, table: str, lines: list[str], variant: str = "") -> None:
    """Do the lines ("-A CHAIN ...") in one transaction; all other rules stay.

    Raises CniError 11 when the lock is not to be had in time, 102 when the tool refuses or is
    not there.
    """
    text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
    _run(version, "restore", variant, ["--noflush", "-w", str(_LOCK_WAIT)], text.encode())


def save(version: int, table: str, variant: str = "") -> list[str]:
    """The chains (":NAME ...") and rules ("-A CHAIN ...") of a table. Raises as `restore`."""
    text = _run(version, "save", variant, ["-t", table], b"").decode("utf-8", "replace")
    return [line for line in text.split("\n") if line.startswith((":", "-A "))]


def ensure(
    version: int,
    table: str,
    missing: Callable[[list[str]], list[str]],
    saved: list[str] | None = None,
) -> None:
    """Make in one transaction what is missing. Idempotent.

    missing: the lines for `restore`, given what `save` shows; saved: that, if it is known. Who
    makes what containers share holds the lock on the host's namespace (`netns_lock`); plugins
    that do not know it, Go's, may still make a chain first, and then it is looked at again.
    Raises as `restore`, with nothing changed.
    """
    if saved is None:
        saved = save(version, table)
    for left in range(_LOOKS - 1, -1, -1):
        lines = missing(saved)
        if not lines:
            return
        try:
            restore(version, table, lines)
            return
        except CniError:
            later = save(version, table)
            if later == saved or not left:
                raise
            saved = later
