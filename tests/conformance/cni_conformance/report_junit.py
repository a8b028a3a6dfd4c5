# SPDX-License-Identifier: Apache-2.0
"""JUnit XML, as continuous integration systems read it: a suite per plugin."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from cni_conformance.verdict import Verdict

#: What XML cannot hold at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def write(verdicts: Sequence[Verdict], path: pathlib.Path) -> None:
    """One testsuite per plugin, one testcase per case and version. Raises OSError.

    A required case that does not hold is a failure, and so is a recommended one: which of them
    it is, the failure's type says.
    """
    root = ElementTree.Element("testsuites", name="cni-conformance")
    for plugin in dict.fromkeys(verdict.plugin for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.plugin == plugin]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=plugin,
            tests=str(len(group)),
            failures=str(sum(verdict.status == "fail" for verdict in group)),
            errors=str(sum(verdict.status == "error" for verdict in group)),
            skipped=str(sum(verdict.status == "skip" for verdict in group)),
            time=f"{sum(verdict.seconds for verdict in group):.3f}",
        )
        for verdict in group:
            _append(suite, verdict)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _append(suite: ElementTree.Element, verdict: Verdict) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{verdict.plugin}.{verdict.version}",
        name=verdict.case,
        time=f"{verdict.seconds:.3f}",
    )
    if verdict.status == "skip":
        ElementTree.SubElement(case, "skipped", message=_clean(verdict.came))
    elif verdict.is_finding:
        kind = "failure" if verdict.status == "fail" else "error"
        failure = ElementTree.SubElement(
            case, kind, type=verdict.level, message=_clean(verdict.title)
        )
        failure.text = _clean(
            f"section: {verdict.section}\nexpected: {verdict.expected}\n"
            f"came: {verdict.came}\nrepeat: {verdict.repeat}\n"
        )
