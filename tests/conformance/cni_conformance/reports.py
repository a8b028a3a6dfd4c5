# SPDX-License-Identifier: Apache-2.0
"""The reports that go to files: whether they can be written, before an hour of cases is run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

from cni_conformance import report_html, report_json, report_junit
from cni_conformance.surroundings import Surroundings
from cni_conformance.verdict import Verdict

#: By the name of the option.
WRITERS: dict[str, Callable[[Sequence[Verdict], Surroundings, pathlib.Path], None]] = {
    "json": report_json.write,
    "junit": report_junit.write,
    "html": report_html.write,
}


def ensure_writable(files: Mapping[str, pathlib.Path]) -> None:
    """Hold files, by the name of their option, to being writable; none is made or changed.

    Raises ValueError that names option and file.
    """
    for option, path in files.items():
        if path.exists() and not path.is_file() and not path.is_dir():
            continue  # a pipe, whose reader would take our closing it for the end
        is_new = not path.is_symlink() and not path.exists()
        try:
            with path.open("a"):
                pass
            if is_new:
                path.unlink()
        except OSError as error:
            raise ValueError(f"--{option} {path}: {error.strerror}") from None


def write(
    verdicts: Sequence[Verdict],
    surroundings: Surroundings,
    files: Mapping[str, pathlib.Path],
) -> None:
    """Write each report to its file. Raises OSError."""
    for option, path in files.items():
        WRITERS[option](verdicts, surroundings, path)
