# SPDX-License-Identifier: Apache-2.0
"""How a type of plugin is configured, and what it needs: spec/vectors/profiles/<type>.json."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from typing import Any, Literal

import jsonschema

from cni_conformance import data, wording
from cni_conformance.case import VERSIONS

Kind = Literal["interface", "ipam", "chained"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """What the suite knows of a type.

    type: name of the executable. kind: "interface" makes or moves one into the sandbox, "ipam"
    manages addresses for others, "chained" works on what prevResult describes. config: the
    plugin's part of the network configuration; "${device}" in it is the name of a link that is
    made for each attachment, "${master}" of one for the host. since: the first version of the
    specification that can use it. ifname: what CNI_IFNAME has to be, where it has to be
    something. volatile: regular expressions of state lines that differ after every ADD and DEL,
    such as the address given last. bookkeeping: the same of lines that nothing depends on, which
    CHECK need not miss: an index, say, without which DEL searches. exhaust: a merge patch for
    the configuration with room for one attachment, if resources can run out. variants: merge
    patches for further configurations, in which CHECK has to notice as much. stateless: nothing
    outlives the sandbox. creates: an interface is made, so that there must be none of its name
    before. link_kind: the kind of link that the kernel has to have for it, as `ip link add type`
    names it, None for none. files: what has to be on the host, by path.
    """

    type: str
    kind: Kind
    config: dict[str, Any]
    since: str = "0.1.0"
    ifname: str | None = None
    volatile: tuple[str, ...] = ()
    bookkeeping: tuple[str, ...] = ()
    exhaust: dict[str, Any] | None = None
    variants: tuple[dict[str, Any], ...] = ()
    stateless: bool = False
    creates: bool = True
    link_kind: str | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def delegates(self) -> bool:
        """True for a plugin that hands address management to another one."""
        return self.kind != "ipam" and bool(self.config.get("ipam", {}).get("type"))

    def versions(self) -> tuple[str, ...]:
        """The versions of the specification that the type can be used with."""
        return VERSIONS[VERSIONS.index(self.since) :]


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, anything else replaces. Changes nothing."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def load(path: pathlib.Path) -> Profile:
    """A profile from a file. Raises OSError, or ValueError that says what is wrong with it."""
    document = data.read(path)
    schema = data.read(data.VECTORS / "schema/profile.json")
    wrong = wording.complaints(jsonschema.Draft7Validator(schema).iter_errors(document))
    if wrong:
        raise ValueError(f"{path}: {'; '.join(wrong)}")
    document.pop("$schema", None)
    link_kind = document.pop("linkKind", None)
    lists = {key: tuple(document.get(key, ())) for key in ("volatile", "bookkeeping", "variants")}
    return Profile(**{**document, **lists, "link_kind": link_kind})


def well_known() -> dict[str, Profile]:
    """The profiles that come with the suite, by type."""
    found = [load(path) for path in sorted(data.PROFILES.glob("*.json"))]
    return {profile.type: profile for profile in found}
