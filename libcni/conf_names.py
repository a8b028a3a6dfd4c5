# SPDX-License-Identifier: Apache-2.0
"""Files that hold something else than their names say: what is to be done about it.

Runtimes, Go's too, tell lists from single plugins by the name of the file alone: *.conflist is a
list, *.conf and *.json are single plugins. Cold code of the runtime side, as `libcni.conf`.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from libcni.jsontext import loads
from libcni.types.errors import CniError


def about_plugin_file(data: bytes, path: Path) -> str:
    """How to mend what could not be read as a single plugin, if it is a list; else ""."""
    document = _object(data)
    if "plugins" not in document or "type" in document:
        return ""
    return (
        "it holds a list, `plugins`, which is read from .conflist files alone: rename it to "
        f"{path.stem}.conflist"
    )


def about_list_file(data: bytes, path: Path) -> str:
    """How to mend a list in which, and beside which, no plugins were found."""
    document = _object(data)
    if "plugins" in document:
        return ""
    text = "`plugins` is missing"
    if "type" in document:
        return f"{text}: a single plugin belongs into a .conf file: rename it to {path.stem}.conf"
    for key in get_close_matches("plugins", document, 1):
        return f'{text}; there is "{key}": did you mean "plugins"?'
    return f"{text}, and {path.parent / str(document.get('name'))} has no *.conf"


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = loads(data, "it")
    except CniError:
        return {}
    return document if isinstance(document, dict) else {}
