# SPDX-License-Identifier: Apache-2.0
"""JUnit XML, as continuous integration systems read it: a suite per plugin."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from cni_conformance.surroundings import Surroundings
from cni_conformance.verdict import Verdict

#: What XML cannot hold at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def write(verdicts: Sequence[Verdict], surroundings: Surroundings, path: pathlib.Path) -> None:
    """One testsuite per plugin, one testcase per case and version. Raises OSError.

    The surroundings are the testsuite's properties.

    There are failures and errors exactly when the plugins do not conform: a required case that
    does not hold is a failure, a recommended one is skipped, with what came in its system-out.
    One that was not reached is skipped, and its message names the case whose finding is the cause.
    """
    root = ElementTree.Element("testsuites", name="cni-conformance")
    for plugin in dict.fromkeys(verdict.plugin for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.plugin == plugin]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=plugin,
            tests=str(len(group)),
            failures=str(sum(_kind(verdict) == "failure" for verdict in group)),
            errors=str(sum(_kind(verdict) == "error" for verdict in group)),
            skipped=str(sum(_kind(verdict) == "skipped" for verdict in group)),
            time=f"{sum(verdict.seconds for verdict in group):.3f}",
        )
        _describe(suite, plugin, surroundings)
        for verdict in group:
            _append(suite, verdict)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _kind(verdict: Verdict) -> str:
    """The element that says how it went, "" for none."""
    if verdict.status == "fail":
        return "failure" if verdict.level == "required" else "skipped"
    return {"skip": "skipped", "unreached": "skipped", "error": "error"}.get(verdict.status, "")


def _describe(suite: ElementTree.Element, plugin: str, surroundings: Surroundings) -> None:
    tested = surroundings.of(plugin)
    values = {
        "suite": surroundings.suite,
        "began": surroundings.began,
        "kernel": surroundings.kernel,
        "python": surroundings.python,
        "path": tested.path,
        "versions": ", ".join(tested.versions),
        "obstacle": tested.obstacle,
    }
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in values.items():
        if value:
            ElementTree.SubElement(properties, "property", name=name, value=_clean(value))


def _append(suite: ElementTree.Element, verdict: Verdict) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{verdict.plugin}.{verdict.version}",
        name=verdict.case,
        time=f"{verdict.seconds:.3f}",
    )
    kind = _kind(verdict)
    if verdict.status == "skip":
        ElementTree.SubElement(case, kind, message=_clean(verdict.came))
    elif verdict.status == "unreached":
        message = f"not reached because of {verdict.because}: {verdict.summary}"
        ElementTree.SubElement(case, kind, message=_clean(message))
    elif kind == "skipped":
        message = f"recommended, does not hold: {verdict.headline}: {verdict.summary}"
        ElementTree.SubElement(case, kind, message=_clean(message))
        ElementTree.SubElement(case, "system-out").text = _details(verdict)
    elif kind:
        finding = ElementTree.SubElement(
            case,
            kind,
            type=verdict.level,
            message=_clean(f"{verdict.headline}: {verdict.summary}"),
        )
        finding.text = _details(verdict)


def _details(verdict: Verdict) -> str:
    return _clean(
        f"section: {verdict.section}\nexpected: {verdict.expected}\n"
        f"came: {verdict.came}\nrepeat: {verdict.repeat}\n"
    )
