# SPDX-License-Identifier: Apache-2.0
"""What came of one call of a plugin, and the usual demands on it."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cni_conformance import data, wording
from cni_conformance.case import Finding

#: More characters than any result has.
_WHOLE = 1 << 30


def _quoted(name: str, stream: bytes) -> str:
    said = wording.shorten(wording.text(stream).rstrip("\n"))
    if "\n" in said:
        return f"\n{name}:\n{textwrap.indent(said, '  ')}"
    if said:
        return f"\n{name}: {said}"
    return "" if name == "stderr" else f", nothing on {name}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a plugin process.

    command: CNI_COMMAND. status: exit status, negative for a signal, None if it had to be killed
    for not ending. stdout, stderr: all that it wrote. seconds: how long it took.
    """

    command: str
    status: int | None
    stdout: bytes
    stderr: bytes
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.command}: {self.came()}"

    def came(self) -> str:
        """The ending in words, with what both streams say, on lines of its own if it has some."""
        if self.status is None:
            words = f"no end within {self.seconds:.0f} s"
        elif self.status < 0:
            words = f"killed by signal {-self.status}"
        else:
            words = f"exit status {self.status}"
        return words + _quoted("stdout", self.stdout) + _quoted("stderr", self.stderr)

    @property
    def succeeded(self) -> bool:
        """Exit status 0."""
        return self.status == 0

    def document(self) -> Any:
        """The one JSON document on stdout. Raises Finding for anything else or more."""
        try:
            return json.loads(self.stdout.decode())
        except ValueError:
            raise Finding(
                f"one JSON document in UTF-8 on stdout of {self.command}",
                self.came(),
                self._cause("no JSON", [wording.text(self.stdout)]),
            ) from None

    def expect_success(self) -> None:
        """Exit status 0, or a Finding."""
        if not self.succeeded:
            raise Finding(
                f"{self.command} to succeed (exit status 0)", self.came(), self._failure()
            )

    def _failure(self) -> str:
        """The cause of a failure: how it ended, and its error without what differs each time."""
        how = f"exit status {self.status}" if self.status is not None else "no end"
        try:
            error = json.loads(self.stdout)
            said = [f"code {error['code']}", error["msg"]]
        except (ValueError, TypeError, KeyError):
            said = [wording.text(self.stdout)]
        return self._cause(how, map(str, said))

    def _cause(self, how: str, said: Iterable[str]) -> str:
        # The code is kept: of an error, it is what says most about the kind.
        kept = [each if each.startswith("code ") else wording.without_names(each) for each in said]
        return ": ".join([self.command, how, *dict.fromkeys(kept)])

    def expect_silence(self) -> None:
        """Success and nothing on stdout but white space, as of DEL, CHECK, GC and STATUS."""
        self.expect_success()
        if self.stdout.strip():
            raise Finding(
                f"nothing on stdout after a successful {self.command}",
                self.came(),
                self._cause("not silent", [wording.text(self.stdout)]),
            )

    def expect_result(self, version: str) -> dict[str, Any]:
        """Success and a result that is valid for this version; it is returned."""
        self.expect_success()
        document = self.document()
        schema = f"result.{version}"
        wrong = data.complaints(schema, document)
        if wrong:
            raise Finding(
                f"a result as version {version} describes it",
                f"{'; '.join(wrong[:3])} in {wording.show(document)}",
                # Whole, as the length of names would change where values are cut off.
                self._cause("invalid result", data.complaints(schema, document, limit=_WHOLE)),
            )
        assert isinstance(document, dict)
        return document

    def expect_error(
        self, codes: Collection[int] = (), names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Failure with an error object that has one of the codes and whose text has the names.

        No codes: any. Returns the object.
        """
        if self.status is None or self.status <= 0:
            raise Finding(f"{self.command} to fail with a non-zero exit status", self.came())
        document = self.document()
        wrong = data.complaints("error", document)
        if wrong:
            raise Finding("an error object on stdout", f"{'; '.join(wrong[:3])}: {self.came()}")
        assert isinstance(document, dict)
        if codes and document["code"] not in codes:
            wanted = " or ".join(map(str, sorted(codes)))
            raise Finding(f"error code {wanted}", f"code {document['code']}: {document['msg']}")
        text = f"{document['msg']} {document.get('details', '')}"
        missing = [name for name in names if name not in text]
        if missing:
            raise Finding(f"an error message that names {', '.join(missing)}", text.strip())
        return document
