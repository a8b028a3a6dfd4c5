# SPDX-License-Identifier: Apache-2.0
"""A program is run before anybody depends on it: does it work here, and what does it speak?"""

from __future__ import annotations

import json
import os
import pathlib

from libcni.boot import TOOLS
from libcni.invoke.spawn import spawn
from libcni.types.errors import CniError

#: Exit status when a program is broken, of another architecture, or without what it needs.
UNUSABLE = 5
#: Seconds for one run of a program that has nothing to do.
_RUN_TIMEOUT = 30.0


class InstallError(Exception):
    """Something that a person has to mend. status: the exit status of the installer."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def verify(path: pathlib.Path) -> list[str]:
    """Run a plugin or tool of ours, or anybody's plugin; the versions it speaks ([] for a tool).

    Raises InstallError (UNUSABLE) that says what is wrong with it.
    """
    is_tool = path.name in TOOLS
    try:
        if is_tool:
            outcome = spawn(str(path), ["version"], {"CNI_COMMAND": ""}, timeout=_RUN_TIMEOUT)
        else:
            asked = b'{"cniVersion":"1.0.0"}'
            overrides = {"CNI_COMMAND": "VERSION"}
            outcome = spawn(str(path), (), overrides, asked, timeout=_RUN_TIMEOUT)
    except CniError as error:
        raise InstallError(f"{error.msg}{_hint(path)}", UNUSABLE) from None
    if outcome.status:
        said = (outcome.stderr or outcome.stdout)[:400].decode("utf-8", "replace").strip()
        raise InstallError(f"{path} does not work: {outcome.describe()}: {said}", UNUSABLE)
    if is_tool:
        return []
    try:
        versions = json.loads(outcome.stdout)["supportedVersions"]
    except (ValueError, LookupError, TypeError):
        versions = None
    if not isinstance(versions, list) or not all(isinstance(v, str) for v in versions):
        said = outcome.stdout[:200].decode("utf-8", "replace")
        raise InstallError(f"{path} is no CNI plugin: to VERSION it answers {said!r}", UNUSABLE)
    return versions


def _hint(path: pathlib.Path) -> str:
    """Why a program could not be executed, as far as a look at it tells."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return ""
    if head[:4] == b"\x7fELF":
        # elf.h: e_machine, after the identification and e_type; EI_DATA is 2 for big endian
        machine = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
        names = {3: "i386", 40: "arm", 22: "s390x", 21: "ppc64", 62: "x86_64", 183: "aarch64"}
        names |= {243: "riscv64"}
        name = names.get(machine, f"machine {machine}")
        if name != os.uname().machine:
            return f": it is built for {name}, and this machine is {os.uname().machine}"
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return f": the file system of {path.parent} is mounted with noexec"
    return ""
