# SPDX-License-Identifier: Apache-2.0
"""An attachment of which nothing may be left after its DEL, and finding out."""

from __future__ import annotations

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding


class Trial:
    """An attachment ready for ADD, and what there was before it.

    What a chained plugin does to an interface may go with that, which the plugin before it in the
    list removes after the DEL: so there the interface goes before the comparison.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._is_chained = bench.profile.kind == "chained"
        before = bench.state()
        self.pod: Attachment = bench.attachment()
        self._before = before if self._is_chained else bench.state()

    def renew(self) -> None:
        """Ready for another ADD, after a DEL; what is compared with stays.

        The interface of a chained plugin is not as it was: there is a new one.
        """
        if self._is_chained:
            self.pod.discard()
            self.pod = self._bench.attachment()

    def expect_clean(self, when: str = "after DEL") -> None:
        """Nothing is left on the host, nor in the sandbox, or a Finding."""
        if self._is_chained:
            self.pod.discard()
        self._bench.expect_unchanged(self._before, f"{when} nothing left on the host")
        if not self._is_chained:
            self.pod.expect_inside_unchanged()

    def is_clean(self) -> bool:
        """`expect_clean` as a question."""
        try:
            self.expect_clean()
        except Finding:
            return False
        return True
