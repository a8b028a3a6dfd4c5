# SPDX-License-Identifier: Apache-2.0
"""Every verdict, for programs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from cni_conformance.verdict import Verdict, conforms


def write(verdicts: Sequence[Verdict], path: pathlib.Path) -> None:
    """{"conforms": bool, "verdicts": [one object per plugin, case and version]}. OSError."""
    document = {
        "conforms": conforms(verdicts),
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
