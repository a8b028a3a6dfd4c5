# SPDX-License-Identifier: Apache-2.0
"""Making a broken plugin: a directory with an executable that spoils what a correct one does."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

from broken.call import Call, Reply

_SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {path!r})
from broken.plugin import main
main({case!r}, {correct!r}, {steps!r})
"""


def make(
    directory: pathlib.Path, bin_dir: pathlib.Path, type: str, case: str, steps: Any
) -> pathlib.Path:
    """The broken plugin of a case, beside unbroken delegates. steps: of a vector, or None."""
    directory.mkdir(parents=True)
    program = directory / type
    program.write_text(
        _SCRIPT.format(
            python=sys.executable,
            path=str(pathlib.Path(__file__).resolve().parents[1]),
            case=case,
            correct=str(bin_dir / type),
            steps=None if steps is None else json.dumps(steps),
        )
    )
    program.chmod(0o755)
    for sibling in ("host-local", "bridge"):
        if not (directory / sibling).exists():
            (directory / sibling).symlink_to(bin_dir / sibling)
    return program


def main(case: str, correct: str, steps: str | None) -> None:
    """Be that plugin for this process."""
    call = Call(correct)
    if steps is None:
        from broken.faults import FAULTS

        reply = FAULTS[case](call)
    else:
        from broken.vectors import opposite

        reply = opposite(call, json.loads(steps), case)
    # Not sys.exit, which would try once more to write what could not be written.
    os._exit(_write(call, reply))


def _write(call: Call, reply: Reply) -> int:
    try:
        for descriptor, data in ((2, reply.stderr), (1, reply.stdout)):
            while data:
                data = data[os.write(descriptor, data) :]
    except OSError:
        return call.on_broken_stdout()
    return reply.status
