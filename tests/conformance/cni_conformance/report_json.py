# SPDX-License-Identifier: Apache-2.0
"""Every verdict, for programs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from cni_conformance.surroundings import Surroundings
from cni_conformance.verdict import Verdict, conforms


def write(verdicts: Sequence[Verdict], surroundings: Surroundings, path: pathlib.Path) -> None:
    """{"conforms": bool, "suite", "began", "kernel", "python": text, "plugins": [name, path,
    versions and obstacle of each], "verdicts": [one object per plugin, case and version]}.

    The README of the suite says what each of them is. Raises OSError.
    """
    document = {
        "conforms": conforms(verdicts),
        **dataclasses.asdict(surroundings),
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
