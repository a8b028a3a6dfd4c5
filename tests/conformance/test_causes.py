# SPDX-License-Identifier: Apache-2.0
"""One cause is one finding; what it kept from being reached is told apart; nothing gets lost."""

from __future__ import annotations

import json
import pathlib
from typing import Any
from xml.etree import ElementTree

import pytest
from cni_conformance import causes, cli, expected, report_html, report_junit, report_text
from cni_conformance.case import Finding, discover, preparation
from cni_conformance.outcome import Outcome
from cni_conformance.surroundings import Surroundings
from cni_conformance.verdict import Verdict, conforms

WHERE = Surroundings(suite="0.1.0", began="", kernel="6.1", python="3.11")
CAUSE = "ADD: exit status 1: code 11"


def failed(case: str, **changes: Any) -> Verdict:
    """A required case that does not hold of CAUSE, which is its own, but for the changes."""
    fields = {
        "plugin": "bridge",
        "case": case,
        "version": "0.4.0",
        "level": "required",
        "section": "SPEC",
        "title": f"{case} holds",
        "status": "fail",
        "expected": "ADD to succeed",
        "came": "exit status 1\nstdout: no",
        "cause": CAUSE,
        **changes,
    }
    return Verdict(**fields)


def unreached(case: str, **changes: Any) -> Verdict:
    """The same of one that failed in what prepares it."""
    return failed(case, reached=False, **changes)


def shown(verdicts: list[Verdict], *bases: str) -> list[tuple[str, str]]:
    """(status, because) of each."""
    return [(each.status, each.because) for each in causes.attribute(verdicts, bases)]


def test_a_case_that_was_not_reached_names_the_finding_in_its_way() -> None:
    assert shown([unreached("del-twice"), failed("add-again")]) == [
        *[("unreached", "add-again"), ("fail", "")]
    ]


def test_what_no_case_shows_as_its_own_stays_a_finding() -> None:
    verdicts = [unreached("a", level="recommended"), unreached("b"), unreached("c")]
    assert shown(verdicts) == [("unreached", "b"), ("fail", ""), ("unreached", "b")]
    assert shown([unreached("a")]) == [("fail", "")]


def test_without_a_known_cause_each_is_a_finding() -> None:
    assert shown([unreached("a", cause=""), failed("b", cause="")]) == [("fail", "")] * 2


@pytest.mark.parametrize("change", ["plugin", "version", "cause"])
def test_only_the_same_is_the_same(change: str) -> None:
    other = failed("b", **{change: "1.0.0"})
    assert shown([unreached("a"), other]) == [("fail", "")] * 2


def test_cases_about_the_same_step_each_stay_a_finding() -> None:
    """Unless a plain ADD fails of the same cause, which is then in the way of all."""
    verdicts = [failed("config-args-ignored"), failed("config-unknown"), failed("plain")]
    assert shown(verdicts) == [("fail", "")] * 3
    assert shown(verdicts, "plain") == [*[("unreached", "plain")] * 2, ("fail", "")]


@pytest.mark.parametrize("bases", [(), ("mild",)])
def test_a_recommended_case_does_not_stand_for_a_required_one(bases: tuple[str, ...]) -> None:
    verdicts = [failed("mild", level="recommended"), unreached("strict")]
    assert not conforms(causes.attribute(verdicts, bases))


def test_one_case_is_about_a_plain_add_alone() -> None:
    assert [case.id for case in discover() if case.is_basis] == ["version-consistent"]


def raised(outcome: Outcome) -> Finding:
    with pytest.raises(Finding) as caught, preparation():
        outcome.expect_result("0.4.0")
    return caught.value


def result(sandbox: str, mac: str, **more: Any) -> Outcome:
    interface = {"name": "eth0", "mac": mac, "sandbox": sandbox}
    document = {"cniVersion": "0.4.0", "interfaces": [interface], **more}
    return Outcome("ADD", 0, json.dumps(document).encode(), b"")


def test_names_and_numbers_make_no_other_cause() -> None:
    ips = [{"address": "10.1.2.3/24"}, {"address": "10.1.2.4/24"}]
    one = raised(result("/run/netns/cnf1", "0a:bc:de:fa:bc:de", ips=ips[:1]))
    other = raised(result("/run/netns/cnf10", "0a:bc:de:ff:ff:ff", ips=ips))
    assert one.cause == other.cause and "'version' is a required property" in one.cause
    assert not one.reached


def failure(code: int, message: str) -> Outcome:
    return Outcome("ADD", 1, json.dumps({"code": code, "msg": message}).encode(), b"")


def test_another_error_is_another_cause() -> None:
    first = raised(failure(11, "no room for cnf-1 of veth3f"))
    assert first.cause == raised(failure(11, "no room for cnf-20 of vethaa0")).cause
    others = [
        raised(failure(7, "no room for cnf-1 of veth3f")),
        raised(failure(11, "no room")),
        raised(Outcome("ADD", 1, b"", b"")),
        raised(Outcome("ADD", None, b"", b"")),
        raised(Outcome("ADD", 0, b"{", b"")),
        raised(result("a", "b", ips=[{"version": "4"}])),
        raised(result("a", "b", ips=[{"address": "10.1.2.3/24"}])),
    ]
    assert len({first.cause, *(other.cause for other in others)}) == 1 + len(others)


SETTLED = causes.attribute(
    [failed("base"), unreached("x-y"), unreached("z"), failed("w")], ["base"]
)


def test_the_text_counts_them_apart(capsys: pytest.CaptureFixture[str]) -> None:
    report_text.write(SETTLED)
    said = capsys.readouterr().out
    assert said.count("REQUIRED") == 1 and "REQUIRED  bridge  base  (0.4.0)" in said
    assert "hinders  3 not reached: x-y, z, w\n" in said
    assert "0 hold, 1 required do not, 0 recommended do not, " in said
    assert "3 not reached because of 1 finding\n" in said


def test_one_that_had_to_be_a_finding_is_not_called_a_violation_of_its_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_text.write([unreached("x-y")])
    assert "\n             Not reached, for its preparation failed: x-y holds\n" in (
        capsys.readouterr().out
    )


def test_junit_fails_once_and_says_of_what(tmp_path: pathlib.Path) -> None:
    report_junit.write(SETTLED, WHERE, tmp_path / "junit")
    (suite,) = ElementTree.parse(tmp_path / "junit").getroot()
    assert [suite.attrib[key] for key in ("tests", "failures", "skipped")] == ["4", "1", "3"]
    came = "expected ADD to succeed; came exit status 1 stdout: no"
    (failure,) = suite.iterfind("testcase/failure")
    assert failure.attrib["message"] == f"base holds: {came}"
    skipped = [each.attrib["message"] for each in suite.iterfind("testcase/skipped")]
    assert skipped == [f"not reached because of base: {came}"] * 3


def test_the_page_leads_from_each_to_what_is_in_its_way() -> None:
    page = report_html.page(SETTLED, WHERE)
    assert "3 not reached because of 1 finding: the plugin does not conform." in page
    assert page.count("<details") == 1
    assert "<dt>hinders</dt><dd>3 not reached: x-y, z, w</dd>" in page
    assert page.count('<a class="unreached" href="#bridge--base--0.4.0"') == 3


def test_expected_findings_need_not_list_what_was_not_reached() -> None:
    entry = {"base": {"versions": ["0.4.0"], "reason": "so it is"}}
    assert expected.differences(expected.Expected({"bridge": entry}), SETTLED) == []
    (new,) = expected.differences(expected.Expected({}), SETTLED)
    assert new.startswith("not expected: bridge base 0.4.0")


def test_what_is_not_reached_because_of_something_not_compared_is_not_lost() -> None:
    known = expected.Expected({}, covers=("x-*@0.4.0",))
    assert expected.differences(known, SETTLED) == [
        "not expected: bridge x-y 0.4.0: not reached because of base"
    ]


#: Its results lack the `version` of an address, and that is all that is wrong with ADD.
HOLLOW = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}' ;;
ADD)
    version=$(sed 's/.*"cniVersion": "\\([0-9.]*\\)".*/\\1/')
    echo '{"cniVersion": "'$version'", "ips": [{"address": "10.1.2.3/24"}]}' ;;
esac
"""


@pytest.fixture
def hollow(tmp_path: pathlib.Path) -> list[str]:
    program, profile = tmp_path / "hollow", tmp_path / "hollow.json"
    program.write_text(HOLLOW)
    program.chmod(0o755)
    profile.write_text('{"type": "hollow", "kind": "interface", "config": {}}')
    return ["--profile", str(profile), "--json", str(tmp_path / "json"), str(program)]


def run(words: list[str], *cases: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and by case and version what became of it."""
    only = [word for case in cases for word in ("--only", case)]
    status = cli.main([*only, *words])
    document = json.loads(pathlib.Path(words[3]).read_text())
    return status, {
        f"{v['case']}@{v['version']}": (v["status"], v["because"]) for v in document["verdicts"]
    }


@pytest.mark.root
def test_an_invalid_result_is_one_finding_for_each_version(hollow: list[str]) -> None:
    cases = ["check-sandbox-vanished", "del-twice", "config-args-ignored", "add-twice"]
    hidden = {f"{case}@0.4.0": ("unreached", "version-consistent") for case in cases}
    for case in ("del-twice", "add-twice"):
        hidden[f"{case}@0.3.1"] = ("unreached", "version-consistent")
    own = {f"version-consistent@{version}": ("fail", "") for version in ("0.3.1", "0.4.0")}
    status, found = run(hollow, *cases, "version-consistent")
    assert (status, found) == (1, {**hidden, **own})


@pytest.mark.root
def test_alone_it_is_a_finding_of_the_case_that_it_kept_from_being_reached(
    hollow: list[str],
) -> None:
    status, found = run(hollow, "check-sandbox-vanished")
    assert (status, found) == (1, {"check-sandbox-vanished@0.4.0": ("fail", "")})


#: Its DEL always fails; ADD and CHECK are right.
STUCK = HOLLOW.replace('"ips": [{', '"ips": [{"version": "4", ').replace(
    "esac", """DEL) echo '{"code": 11, "msg": "busy"}'; exit 1 ;;\nesac"""
)


@pytest.mark.root
def test_a_del_that_fails_is_a_finding_of_the_cases_about_it(hollow: list[str]) -> None:
    """Those that only have to get to another DEL, or to a CHECK, are not reached."""
    pathlib.Path(hollow[-1]).write_text(STUCK)
    own = {f"{case}@0.4.0": ("fail", "") for case in ("add-del", "del-netns-empty")}
    other = {
        f"{case}@0.4.0": ("unreached", "add-del")
        for case in ("check-after-del", "del-twice", "add-after-del", "check-after-add")
    }
    cases = [*own, *other, "version-consistent@0.4.0"]
    assert run(hollow, *cases) == (1, {**own, **other, "version-consistent@0.4.0": ("pass", "")})
