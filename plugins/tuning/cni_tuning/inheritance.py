# SPDX-License-Identifier: Apache-2.0
"""Sysctls that several attachments of one container set: they are the whole namespace's.

The backup of the first of them has the value from before all; when that one goes, the next one
inherits it. Until the last has gone, the value in force is one that an attachment asked for.
"""

from __future__ import annotations

import posix

from cni_tuning import backup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Heir:
    """Another attachment's backup that has sysctls: where it is, and what it says."""

    __slots__ = ("noted", "path")

    def __init__(self, path: str, noted: dict[str, Any]) -> None:
        self.path = path
        self.noted = noted


def find_heirs(path: str, container_id: str) -> list[Heir]:
    """The container's attachments but the one whose backup is at `path`, the first one first."""
    directory, _, own = path.rpartition("/")
    try:
        names = posix.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        if (
            name == own
            or not name.startswith(f"{container_id}_")
            or not name.endswith(backup.SUFFIX)
        ):
            continue
        noted = backup.load(f"{directory}/{name}")
        # Container a_b's begin like container a's.
        if noted.get("container", container_id) == container_id and backup.sysctls_of(noted):
            found.append(Heir(f"{directory}/{name}", noted))
    found.sort(key=lambda heir: backup.since(heir.noted))
    return found


def value_after(name: str, noted: dict[str, Any], heirs: list[Heir]) -> str:
    """What a sysctl shall be when the attachment of `noted` has gone: what the last one of the
    others asked for, and without others what it was before all."""
    for heir in reversed(heirs):
        values = backup.written_of(heir.noted).get(name)
        if values:
            return values[-1]
    return backup.sysctls_of(noted)[name]


def hand_on(noted: dict[str, Any], heirs: list[Heir]) -> None:
    """Give the values from before `noted`, if it was the first, to the next one. Idempotent.

    Raises CniError 5.
    """
    changed: list[Heir] = []
    for name, value in backup.sysctls_of(noted).items():
        heir = next((heir for heir in heirs if name in backup.sysctls_of(heir.noted)), None)
        if heir is not None and backup.since(noted) <= backup.since(heir.noted):
            heir.noted["sysctl"][name] = value
            if heir not in changed:
                changed.append(heir)
    for heir in changed:
        backup.replace(heir.path, heir.noted)
