# SPDX-License-Identifier: Apache-2.0
"""What happens when there is no room left."""

from __future__ import annotations

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import NotApplicable, case
from cni_conformance.profiles import Profile, merge_patch


def _can_run_out(profile: Profile) -> bool:
    return profile.exhaust is not None


def _pods(bench: Bench) -> tuple[Attachment, Attachment]:
    """Two containers and room for one."""
    pods = bench.attachment(), bench.attachment()
    for pod in pods:
        if pod.config.get("ipam", {}).get("type") == bench.recorder.type:
            raise NotApplicable("the IPAM plugin of its profile is not beside it")
        pod.config = merge_patch(pod.config, bench.profile.exhaust)
    return pods


@case(
    "add-exhausted",
    "When there is no room left ADD fails and leaves nothing",
    section="SPEC 1.1.0, section 2, ADD; section 5, Error",
    applies=_can_run_out,
)
def add_exhausted(bench: Bench) -> None:
    """And works again after a DEL."""
    bench.warm_up()
    first, second = _pods(bench)
    first.attach_for_result()
    before = bench.state()
    second.add().expect_error()
    bench.expect_unchanged(before, "the host as before the ADD that failed")
    second.expect_inside_unchanged()
    first.delete().expect_silence()
    second.add().expect_result(bench.version)


@case(
    "status-exhausted",
    "STATUS says that there is no room left, with code 50 or 51",
    section="SPEC 1.1.0, section 2, STATUS; section 5, Error, codes 50 and 51",
    level="recommended",
    since="1.1.0",
    applies=_can_run_out,
)
def status_exhausted(bench: Bench) -> None:
    """And that there is again after a DEL."""
    first, second = _pods(bench)
    first.attach_for_result()
    bench.call("STATUS", config=second.config).expect_error([50, 51])
    first.delete().expect_silence()
    bench.call("STATUS", config=second.config).expect_silence()
