# SPDX-License-Identifier: Apache-2.0
"""The example documents: those of spec/, and those that a plugin's folder carries."""

from __future__ import annotations

import pathlib
from typing import Literal

ROOT = pathlib.Path(__file__).resolve().parents[2]


def paths(
    kind: Literal["valid", "invalid"], begins: str = "", root: pathlib.Path = ROOT
) -> list[pathlib.Path]:
    """The examples that are what `kind` says; `begins`: of this schema alone, such as "bridge"."""
    pattern = f"{begins}.*.json" if begins else "*.json"
    folders = [root / "spec/examples" / kind, *root.glob(f"plugins/*/examples/{kind}")]
    return sorted(
        (path for folder in folders for path in folder.glob(pattern)), key=lambda path: path.name
    )
