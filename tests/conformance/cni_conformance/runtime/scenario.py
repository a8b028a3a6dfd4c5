# SPDX-License-Identifier: Apache-2.0
"""Scenarios as data: what a runtime is asked in turn, and what the plugins must then have seen.

They lie in spec/vectors/runtime; spec/vectors/schema/scenarios.json says what each key means.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jsonschema

from cni_conformance import data, wording
from cni_conformance.case import VERSIONS, Level
from cni_conformance.runtime.driver import FEATURES, Runtime


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One thing that a runtime must or should do.

    id, title, section, level, text, why: as in a case for plugins. since: the oldest version that
    a runtime must speak; version: the one that the network is written in, else the newest that
    the runtime speaks. needs: those of FEATURES that it must have. document: all of it.
    """

    id: str
    title: str
    section: str
    level: Level
    text: str
    why: str
    since: str
    version: str
    needs: tuple[str, ...]
    document: dict[str, Any]

    def version_for(self, runtime: Runtime) -> str:
        """The version in which this runtime's network is written."""
        return self.version or runtime.newest

    def obstacle(self, runtime: Runtime) -> str:
        """Why this runtime cannot be asked; "" if it can."""
        lacking = [FEATURES[need] for need in self.needs if need not in runtime.features]
        if lacking:
            return f"{runtime.name} does not offer {'; '.join(lacking)}"
        wanted = max(self.since, self.version or self.since, key=VERSIONS.index)
        if VERSIONS.index(runtime.newest) < VERSIONS.index(wanted):
            return f"{runtime.name} speaks {runtime.newest}, and this is of {wanted}"
        if self.document.get("second_directory") and len(runtime.plugin_dirs) < 2:
            return f"{runtime.name} searches one directory"
        return ""


def load() -> list[Scenario]:
    """Every scenario, by file name and in the order in which they are written.

    Raises ValueError for a file that is not as the schema says, or an id that is there twice.
    """
    schema = jsonschema.Draft7Validator(data.read(data.VECTORS / "schema/scenarios.json"))
    found: list[Scenario] = []
    for path in sorted((data.VECTORS / "runtime").glob("*.json")):
        document = data.read(path)
        wrong = wording.complaints(schema.iter_errors(document))
        if wrong:
            raise ValueError(f"{path}: {'; '.join(wrong)}")
        found += map(_scenario, document["scenarios"])
    ids = [scenario.id for scenario in found]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise ValueError(f"two scenarios of one name: {', '.join(twice)}")
    return found


def _scenario(document: dict[str, Any]) -> Scenario:
    return Scenario(
        document["id"],
        document["title"],
        document["section"],
        document["level"],
        document["text"],
        document.get("why", ""),
        document.get("since", VERSIONS[0]),
        document.get("version", ""),
        tuple(document.get("needs", ())),
        document,
    )
