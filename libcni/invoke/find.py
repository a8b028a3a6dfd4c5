# SPDX-License-Identifier: Apache-2.0
"""Finding a plugin's executable on CNI_PATH, in the reference's words, which people search for."""

from __future__ import annotations

import posix

from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

_S_IFMT = 0o170000
_S_IFREG = 0o100000


def find_in_path(name: str, path: list[str]) -> str:
    """The first regular file `name` in the directories of `path`; symbolic links are followed.

    Empty entries are skipped. Whether it can be executed is not looked at: the one that is
    meant must be the one that fails. Raises CniError 7; a name that could lead out of the
    directories (CVE-2021-20206) is refused.
    """
    if not name:
        raise CniError(INVALID_NETWORK_CONFIG, "no plugin name provided")
    if "/" in name or "\\" in name or "\0" in name:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"invalid plugin name: {name[:64]!r}",
            "the type of a plugin is the name of a file on CNI_PATH, without slashes",
        )
    directories = [directory for directory in path if directory]
    if not directories:
        raise CniError(INVALID_NETWORK_CONFIG, "no paths provided", f"looking for plugin {name!r}")
    for directory in directories:
        found = f"{directory.rstrip('/')}/{name}"
        try:
            if posix.stat(found).st_mode & _S_IFMT == _S_IFREG:
                return found
        except (OSError, ValueError):
            pass
    raise CniError(
        INVALID_NETWORK_CONFIG,
        f'failed to find plugin "{name}" in path [{" ".join(directories)}]',
    )
