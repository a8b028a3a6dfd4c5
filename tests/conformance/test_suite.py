# SPDX-License-Identifier: Apache-2.0
"""The suite itself: its data, its reports, what it says to wrong use, and how it is packaged."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from cni_conformance import (
    cli,
    data,
    expected,
    explanation,
    kernel,
    profiles,
    report_html,
    report_json,
    report_junit,
    report_text,
    reports,
    runner,
    state,
    surroundings,
    vectors,
)
from cni_conformance.case import VERSIONS, discover
from cni_conformance.outcome import Outcome
from cni_conformance.surroundings import Examined, Surroundings
from cni_conformance.verdict import Verdict, conforms

from tests.rig import conformance

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def verdict(**changes: Any) -> Verdict:
    """One that holds, but for the changes."""
    fields = {
        "plugin": "bridge",
        "case": "add-del",
        "version": "1.1.0",
        "level": "required",
        "section": "SPEC",
        "title": "it <works>",
        "status": "pass",
        "repeat": "cni-conformance --only add-del@1.1.0 ./bridge",
        **changes,
    }
    return Verdict(**fields)


MIXED = [
    verdict(),
    verdict(
        case="a-b",
        status="fail",
        level="recommended",
        expected="<1>",
        came="\x1b & 2",
        about="What is <lost> is lost.",
    ),
    verdict(case="c-d", status="skip", came="nothing to do"),
]


WHERE = Surroundings(
    suite="0.1.0",
    began="2026-01-31T12:00:00Z",
    kernel="6.1.0-9",
    python="3.11.2",
    plugins=(Examined("bridge", "/opt/cni/bin/bridge", ("1.0.0", "1.1.0")),),
)


def test_every_case_says_where_it_comes_from() -> None:
    for case in discover():
        assert case.section and case.title and not case.title.endswith(".")
        assert case.level in ("required", "recommended")
        assert set(case.versions) <= set(VERSIONS) and case.versions


@pytest.mark.parametrize("kind", ["cases", "scenarios"])
def test_every_case_that_is_data_says_what_goes_wrong_without_it(kind: str) -> None:
    paths = data.VECTORS.glob("*.json" if kind == "cases" else "runtime/*.json")
    found = {each["id"]: each.get("why", "") for path in paths for each in data.read(path)[kind]}
    assert len(found) > 50
    for id, why in found.items():
        assert why.endswith(".") and len(why) > 60, id
    assert len(set(found.values())) == len(found), "a reason is of one case"


def test_every_profile_is_named_by_its_type() -> None:
    for path in (ROOT / "spec/vectors/profiles").glob("*.json"):
        assert profiles.load(path).type == path.stem


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"cases": [{"id": "x"}]}, "cases.0: 'title' is a required property"),
        ({"cases": {}}, 'cases: {} is not of type "array"'),
    ],
)
def test_a_mistake_in_a_vector_is_named(document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vectors.check(document, pathlib.Path("x.json"))


def test_a_key_that_is_there_twice_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text('{"cases": [{"id": "a", "why": "one", "why": "two"}]}')
    with pytest.raises(ValueError, match=r'cases.json: the key "why" is there twice'):
        data.read(path)


def test_a_mistake_in_a_profile_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"type": "x", "kind": "router", "config": {}}')
    with pytest.raises(ValueError, match=r'x\.json: kind: "router" is not one of "interface"'):
        profiles.load(path)


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, merged: Any) -> None:
    assert profiles.merge_patch(target, patch) == merged


def test_what_conforms() -> None:
    assert conforms(MIXED)
    assert not conforms([verdict(status="fail")])
    assert not conforms([verdict(status="error", level="recommended")])


def test_expected_findings_are_compared_in_both_directions() -> None:
    failed = verdict(status="fail", expected="1", came="2")
    known = expected.Expected(
        {"bridge": {"add-del": {"versions": ["1.1.0"], "reason": "so it is"}}}
    )
    assert expected.differences(known, [failed]) == []
    (new,) = expected.differences(expected.Expected({}), [failed])
    assert new.startswith("not expected: bridge add-del 1.1.0: expected 1; came 2")
    (mended,) = expected.differences(known, [verdict()])
    assert mended == "expected, but it holds: bridge add-del 1.1.0"


def test_only_what_a_file_covers_is_compared_with_it(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "known.json"
    entry = {"add-del": {"versions": ["1.0.0"], "reason": "so it is"}}
    file.write_text(json.dumps({"$covers": ["*@1.0.0", "add-*@0.4.0"], "bridge": entry}))
    known = expected.load(file)
    failed = [verdict(status="fail", version=each) for each in ("0.3.1", "0.4.0", "1.0.0")]
    (new,) = expected.differences(known, failed)
    assert new.startswith("not expected: bridge add-del 0.4.0: ")
    assert expected.not_compared(known, failed) == 1
    file.write_text(json.dumps({"$covers": ["*@0.4.0"], "bridge": entry}))
    with pytest.raises(ValueError, match=r"bridge\.add-del: \$covers leaves out 1\.0\.0"):
        expected.load(file)


def test_reports(tmp_path: pathlib.Path) -> None:
    report_json.write(MIXED, WHERE, tmp_path / "json")
    document = json.loads((tmp_path / "json").read_text())
    assert document["conforms"] and [v["status"] for v in document["verdicts"]] == [
        *("pass", "fail", "skip")
    ]
    assert [v["about"] for v in document["verdicts"]] == ["", "What is <lost> is lost.", ""]
    report_junit.write(MIXED, WHERE, tmp_path / "junit")
    (suite,) = ElementTree.parse(tmp_path / "junit").getroot()
    assert [suite.attrib[key] for key in ("tests", "failures", "skipped")] == ["3", "0", "2"]
    found = suite.find("testcase[@name='a-b']/skipped")
    assert found is not None
    assert found.attrib["message"] == (
        "recommended, does not hold: it <works>: expected <1>; came \ufffd & 2"
    )
    said = suite.findtext("testcase[@name='a-b']/system-out")
    assert said and "expected: <1>\ncame: \ufffd & 2\n" in said
    page = report_html.page(MIXED, WHERE)
    assert "&lt;1&gt;" in page and "<1>" not in page
    assert 'href="#bridge--a-b--1.1.0"' in page and 'id="bridge--a-b--1.1.0"' in page
    assert "<dt>about</dt><dd>What is &lt;lost&gt; is lost.</dd>" in page
    assert "http" not in page, "the page needs no network"


@pytest.mark.parametrize("level", ["required", "recommended"])
@pytest.mark.parametrize("status", ["pass", "fail", "skip", "error"])
def test_junit_has_failures_where_the_exit_status_says_so(
    tmp_path: pathlib.Path, status: str, level: str
) -> None:
    one = verdict(status=status, level=level, expected="1", came="2")
    report_junit.write([one], WHERE, tmp_path / "junit")
    (suite,) = ElementTree.parse(tmp_path / "junit").getroot()
    wrong = [*suite.iterfind("testcase/failure"), *suite.iterfind("testcase/error")]
    assert conforms([one]) == (not wrong)
    assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) == len(wrong)
    assert all(each.text and "came: 2" in each.text for each in wrong)


def test_two_plugins_of_a_type_are_told_apart() -> None:
    known = profiles.well_known()
    subjects = [
        runner.Subject(pathlib.Path(path), known[pathlib.Path(path).name], (), (), "")
        for path in ("/go/bridge", "/ours/bridge")
    ] + [runner.Subject(pathlib.Path("/ours/tuning"), known["tuning"], (), (), "tuning")]
    names = [subject.name for subject in runner.told_apart(subjects)]
    assert names == ["/go/bridge", "/ours/bridge", "tuning"]


@pytest.mark.root
def test_the_kernel_is_asked_what_devices_it_has() -> None:
    assert kernel.has("veth") and kernel.has("bridge") and kernel.has("tun")
    assert not kernel.has("nosuchkind")


@pytest.fixture
def strange(tmp_path: pathlib.Path) -> list[str]:
    """The words for a plugin that makes links of a kind that no kernel has."""
    program, profile = tmp_path / "strange", tmp_path / "strange.json"
    answer = {"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    profile.write_text(
        '{"type": "strange", "kind": "interface", "config": {}, "linkKind": "nosuchkind"}'
    )
    return ["--profile", str(profile), "--only", "add-twice", "--only", "add-del", str(program)]


@pytest.mark.root
def test_a_plugin_whose_devices_the_kernel_lacks_is_not_tested(
    capsys: pytest.CaptureFixture[str],
    strange: list[str],
    bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    file = tmp_path / "verdicts.json"
    words = ["--json", str(file), *strange]
    assert cli.main([*words, str(bin_dir / "loopback")]) == 0
    assert "strange:  not testable here: this kernel has no nosuchkind devices\n" in (
        capsys.readouterr().out
    )
    found = [v for v in json.loads(file.read_text())["verdicts"] if v["plugin"] == "strange"]
    assert {(v["case"], v["status"]) for v in found} == {
        *[("add-twice", "skip"), ("add-del", "skip")]
    }
    assert {v["came"] for v in found} == {"this kernel has no nosuchkind devices"}


@pytest.mark.root
def test_a_plugin_that_was_not_tested_is_neither_right_nor_as_expected(
    capsys: pytest.CaptureFixture[str], strange: list[str], tmp_path: pathlib.Path
) -> None:
    assert cli.main(strange) == 2
    assert "no plugin could be tested here" in capsys.readouterr().err
    known = tmp_path / "known.json"
    known.write_text('{"strange": {"add-del": {"versions": ["1.1.0"], "reason": "it is new"}}}')
    assert cli.main(["--expect", str(known), *strange]) == 2
    assert "expected, but" not in capsys.readouterr().out


def test_the_page_has_the_cases_in_the_order_in_which_they_were_run() -> None:
    first, second = MIXED[0], dataclasses.replace(MIXED[0], case="zz")
    other = dataclasses.replace(first, plugin="tuning")
    page = report_html.page([first, second, other], WHERE)
    assert page.index(f">{first.case}") < page.index(">zz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a plugin"),
        (["/nowhere"], "/nowhere: no such file"),
        (["--only", "no-such-case", "/usr/bin"], "no case 'no-such-case'"),
        (["--explain", "no-such-case"], "no case 'no-such-case'"),
        (["--only", "add-twice@9.9.9", "/usr/bin"], "there is no version '9.9.9' of"),
        (["--only", "add-*@2.*", "/usr/bin"], f"there are {', '.join(VERSIONS)}\n"),
        (["--jobs", "0", "/usr/bin"], "argument --jobs: '0' is no number of 1 or more"),
        (["--jobs", "few", "/usr/bin"], "argument --jobs: 'few' is no number of 1 or more"),
        (["--html", "/nope/x.html", "/usr/bin/env"], "--html /nope/x.html: No such file"),
        (["--json", "/proc", "/usr/bin/env"], "--json /proc: Is a directory"),
        (["--expect", "/nope.json", "/usr/bin/env"], "--expect /nope.json: No such file"),
        (["--profile", "/nope.json", "/usr/bin/env"], "--profile /nope.json: No such file"),
        (["/usr/bin/env"], "no profile for this type; give one by --profile"),
        (["/usr/bin/env"], '{"type": "env", "kind": "interface", "config": {}}'),
        (["/usr/bin/env"], "schema/profile.json"),
    ],
)
@pytest.mark.root
def test_wrong_use(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_how_many_cases_are_run_at_once_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"one for each CPU, {len(os.sched_getaffinity(0))} here" in said


def test_the_page_counts_in_the_right_number() -> None:
    link = '<a href="#findings">{}</a>'
    page = report_html.page(MIXED, WHERE)
    assert f"1 plugin, 3 cases, 3 runs, {link.format('1 finding')}: the plugin conforms." in page
    both = [*MIXED, verdict(plugin="tap", status="fail")]
    page = report_html.page(both, WHERE)
    many = f"2 plugins, 3 cases, 4 runs, {link.format('2 findings')}"
    assert f"{many}: the plugins do not all conform." in page
    assert "1 plugin, 1 case, 1 run: the plugin conforms." in report_html.page(MIXED[:1], WHERE)


def test_a_card_says_what_is_required_and_leads_to_the_first_finding() -> None:
    wrong = verdict(case="e-f", status="fail")
    page = report_html.page([*MIXED, wrong], WHERE)
    link = '<a href="#bridge--a-b--1.1.0">1 required, 1 recommended do not hold</a>'
    assert f"1 hold, {link}" in page
    assert '">1 recommended do not hold, 1 error of the suite</a>' in report_html.page(
        [*MIXED, verdict(status="error", level="recommended")], WHERE
    )


def test_the_page_lists_what_is_the_same_in_several_versions_once() -> None:
    def failed(version: str, came: str) -> Verdict:
        return verdict(status="fail", version=version, expected="1", came=came)

    same = [failed(each, f"{each} of 02:00:00:00:00:0{each[0]}") for each in ("0.4.0", "1.0.0")]
    page = report_html.page([*same, failed("1.1.0", "another")], WHERE)
    assert page.count("<details") == 2 and "<em>0.4.0, 1.0.0: it" in page
    for version in ("0.4.0", "1.0.0", "1.1.0"):
        anchor = f"bridge--add-del--{version}"
        assert page.count(f'id="{anchor}"') == 1 and f'href="#{anchor}"' in page


def test_cells_say_their_versions() -> None:
    page = report_html.page([*MIXED, verdict(version="1.0.0"), verdict(version="0.4.0")], WHERE)
    assert '<div class="cells" title="0.4.0, 1.0.0, 1.1.0: holds">' in page
    assert page.count(f"<span>{VERSIONS[0]}</span>") == 1


def test_the_page_does_not_say_that_an_untested_plugin_conforms() -> None:
    untested = Examined("vlan", "/x/vlan", ("1.1.0",), "this kernel has no vlan devices")
    where = dataclasses.replace(WHERE, plugins=(*WHERE.plugins, untested))
    skipped = verdict(plugin="vlan", status="skip", came=untested.obstacle)
    page = report_html.page([skipped], where)
    assert "1 run: nothing could be tested here." in page
    assert "not testable here: this kernel has no vlan devices" in page
    page = report_html.page([verdict(), skipped], where)
    assert "the plugins conform; 1 could not be tested here." in page


def test_every_report_says_what_was_tested_and_where(tmp_path: pathlib.Path) -> None:
    page = report_html.page(MIXED, WHERE)
    head = "cni-conformance 0.1.0 · 2026-01-31 12:00:00 UTC · Linux 6.1.0-9 · Python 3.11.2"
    assert head in page
    assert "<code>/<wbr>opt/<wbr>cni/<wbr>bin/<wbr>bridge</code>" in page
    assert "claims 1.0.0, 1.1.0" in page
    report_json.write(MIXED, WHERE, tmp_path / "json")
    document = json.loads((tmp_path / "json").read_text())
    assert [document[key] for key in ("suite", "began", "kernel", "python")] == [
        *("0.1.0", "2026-01-31T12:00:00Z", "6.1.0-9", "3.11.2")
    ]
    path = "/opt/cni/bin/bridge"
    (plugin,) = document["plugins"]
    assert plugin == {
        "name": "bridge",
        "path": path,
        "versions": ["1.0.0", "1.1.0"],
        "obstacle": "",
    }
    report_junit.write(MIXED, WHERE, tmp_path / "junit")
    (suite,) = ElementTree.parse(tmp_path / "junit").getroot()
    assert {e.attrib["name"]: e.attrib["value"] for e in suite.iterfind("properties/*")} == {
        "suite": "0.1.0",
        "began": "2026-01-31T12:00:00Z",
        "kernel": "6.1.0-9",
        "python": "3.11.2",
        "path": path,
        "versions": "1.0.0, 1.1.0",
    }


def test_the_name_of_the_host_is_in_no_report() -> None:
    where = surroundings.take()
    assert where.kernel == os.uname().release
    assert [f.name for f in dataclasses.fields(where)] == [
        *("suite", "began", "kernel", "python", "plugins")
    ]


def test_what_a_plugin_said_is_shown_as_text() -> None:
    failed = Outcome("ADD", 1, b'{\n "code": 7\n}\n', b"it's")
    assert failed.came() == 'exit status 1\nstdout:\n  {\n   "code": 7\n  }\nstderr: it\'s'
    assert Outcome("DEL", 0, b"", b"").came() == "exit status 0, nothing on stdout"


def test_the_settings_of_an_interface_that_is_left_are_not_listed() -> None:
    left = ["+ link: veth0 kind=veth", "+ sysctl: ipv4/conf/veth0/forwarding=1"]
    other = ["+ sysctl: ipv4/conf/all/forwarding=1", "+ sysctl: ipv4/conf/eth1/forwarding=1"]
    assert state.collapsed([*left, *other]) == [left[0], *other]
    changed = ["- link: veth0 mtu=1", "+ link: veth0 mtu=2", "+ sysctl: ipv4/conf/veth0/x=1"]
    assert state.collapsed(changed) == changed


def test_an_explanation_is_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--explain", "del-twice"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("del-twice: A second DEL succeeds\n\nlevel     required: ")
    assert "section   SPEC 1.1.0, section 2, DEL: Remove container" in text
    assert "why       A runtime repeats a DEL whose answer got lost" in text
    assert "1. ADD\n    expected: exit status 0, and on stdout a result" in text
    assert "the host is as it was before the first step" in text
    assert "another container was attached and detached" in text


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ({"env": {"CNI_ARGS": "A=1;B=2"}}, "CNI_ARGS='A=1;B=2'"),
        ({"env": {"CNI_CONTAINERID": "a\n'"}}, r"CNI_CONTAINERID=$'a\x0a\''"),
        ({"env": {"CNI_NETNS": None}}, "unset CNI_NETNS"),
        ({"config": {"mtu": None}}, 'the configuration changed by {"mtu": null}'),
        ({"prevResult": {"ips": [True]}}, 'prevResult: {"ips": [true]}'),
        ({"stdin": "{"}, "stdin, all of it: {\n"),
        ({"valid": []}, "cni.dev/valid-attachments: []"),
    ],
)
def test_what_a_step_changes_is_said_as_a_shell_and_json_have_it(
    step: dict[str, Any], line: str
) -> None:
    vector = {"steps": [{"call": "ADD", **step, "expect": {"stdout": "error", "codes": [4, 7]}}]}
    text = explanation.in_words(vector)
    assert f"      {line}" in text
    assert (
        "expected: another exit status than 0, and on stdout an error object of code 4 or 7"
        in text
    )


def test_every_explanation_is_free_of_pythons_words() -> None:
    for case in discover():
        text = report_text.explain(case)
        assert case.title in text and " ".join(case.section.split()) in " ".join(text.split())
        assert "None" not in text and "True" not in text and "['" not in text, case.id


@pytest.mark.root
@pytest.mark.parametrize("option", ["--expect", "--profile"])
def test_a_broken_file_is_noticed_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, option: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text("{")
    assert cli.main([option, str(path), "/usr/bin/env"]) == 2
    said = capsys.readouterr().err
    assert f"{option} {path}: not JSON: Expecting property name" in said
    example = {"--expect": '"reason": ', "--profile": '"kind": "interface"'}[option]
    assert "\nexpected is " in said and example in said


def test_a_file_that_is_not_even_text_is_not_json(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\x7fELF\xff")
    with pytest.raises(ValueError, match=r"x\.json: not JSON: no text in UTF-8"):
        expected.load(path)


@pytest.mark.root
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("version-echo@0.1.0", "for loopback it is run with 0.2.0, 0.3.0, "),
        ("result-abbreviated", "it does not apply to loopback"),
    ],
)
def test_only_that_selects_nothing_is_wrong_use(
    capsys: pytest.CaptureFixture[str], bin_dir: pathlib.Path, pattern: str, words: str
) -> None:
    assert cli.main(["--only", pattern, str(bin_dir / "loopback")]) == 2
    assert f"--only {pattern} selects nothing: {words}" in capsys.readouterr().err


@pytest.mark.root
def test_the_files_are_tried_without_leaving_any(tmp_path: pathlib.Path) -> None:
    words = [f"--{name}={tmp_path / name}" for name in reports.WRITERS]
    assert cli.main([*words, "/usr/bin/env"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_the_text_is_not_lost_with_a_full_disk(
    capsys: pytest.CaptureFixture[str], bin_dir: pathlib.Path
) -> None:
    words = ["--only", "version-answer", "--json", "/dev/full", str(bin_dir / "loopback")]
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert "loopback:" in shown.out and "No space left" in shown.err


@pytest.mark.root
@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_host_without_nft_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch,
    bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    mode: int | None,
) -> None:
    """Absent, or not executable: what needs it does not apply, and says so."""
    if mode is not None:
        (tmp_path / "nft").write_text("#!/bin/sh\n")
        (tmp_path / "nft").chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    verdicts = conformance.run([bin_dir / "bridge"], ["check-rule-removed", "check-link-down"])
    assert [verdict.status for verdict in verdicts] == ["skip", "pass"]
    assert verdicts[0].came.startswith("nft cannot be run: ")


def test_a_reader_that_goes_away_hears_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "cni_conformance", "--list"]
    ended = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, cwd=HERE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_the_package_holds_its_data(tmp_path: pathlib.Path) -> None:
    """As `pip install ./tests/conformance` builds it, links and all."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    command += ["egg_info", "--egg-base", str(tmp_path)]
    command += ["build", "--build-base", str(tmp_path), "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, check=True, capture_output=True, cwd=HERE)
    package = tmp_path / "lib/cni_conformance"
    for folder in ("schemas", "vectors"):
        for path in (ROOT / "spec" / folder).rglob("*.json"):
            built = package / "spec" / path.relative_to(ROOT / "spec")
            assert built.read_bytes() == path.read_bytes()
    assert (package / "cases/delegation.py").is_file()
