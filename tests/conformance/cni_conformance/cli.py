# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments in, reports and exit status out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fnmatch
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cni_conformance import (
    VERSION,
    data,
    expected,
    profiles,
    report_text,
    reports,
    runner,
    surroundings,
)
from cni_conformance.case import VERSIONS, Case, discover
from cni_conformance.profiles import Profile
from cni_conformance.runner import Subject
from cni_conformance.runtime import session
from cni_conformance.surroundings import Examined, Surroundings
from cni_conformance.verdict import Verdict, conforms

_T = TypeVar("_T")

_EPILOG = """exit status:
  0  every required case holds (with --expect: the findings are exactly the expected ones)
  1  some do not
  2  wrong usage, a plugin that cannot be tested, or none that this kernel can test

Each case runs as root in network and mount namespaces of its own, which end with it.
"""

#: What to do about a type that has no profile; a profile of three keys does for many.
_UNKNOWN = """{program}: no profile for this type; give one by --profile FILE, such as
  {{"type": "{program.name}", "kind": "interface", "config": {{}}}}
(kind: interface, ipam or chained; config: the plugin's own part of the network configuration);
every key is described in {schema}"""
_SCHEMA = data.VECTORS / "schema/profile.json"

#: What the files of options hold, by the option.
_FORMS = {
    "expect": """findings by plugin and case, such as
  {"my-type": {"add-twice": {"versions": ["1.0.0"], "reason": "why that is so"}}}""",
    "profile": f"""how to configure a type, such as
  {{"type": "my-type", "kind": "interface", "config": {{}}}}
every key is described in {_SCHEMA}""",
}


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="cni-conformance",
        description="Hold CNI plugins to the specification.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write all verdicts")
    top.add_argument("--junit", metavar="FILE", type=pathlib.Path, help="write JUnit XML")
    top.add_argument("--html", metavar="FILE", type=pathlib.Path, help="write a page to look at")
    top.add_argument(
        "--only",
        metavar="CASE[@VERSION]",
        action="append",
        default=[],
        help="run this case alone (for one version); may be repeated, and hold *",
    )
    top.add_argument("--explain", metavar="CASE", help="say what a case does and why, and exit")
    top.add_argument("--list", action="store_true", help="list the cases and exit")
    top.add_argument(
        "--profile", metavar="FILE", help="how to configure the plugin, for types not known here"
    )
    top.add_argument(
        "--expect", metavar="FILE", type=pathlib.Path, help="findings that are known, with reasons"
    )
    top.add_argument(
        "--runtime",
        metavar="cnitool:PATH",
        help="hold a runtime to its side instead; also package.module:Class, a driver for another",
    )
    processors = len(os.sched_getaffinity(0))
    top.add_argument(
        "--jobs",
        metavar="N",
        type=_at_least_one,
        default=processors,
        help=f"cases to run at once; by default one for each CPU, {processors} here",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    top.add_argument("plugins", metavar="BIN_DIR_OR_PLUGIN", nargs="*", type=pathlib.Path)
    return top


def _at_least_one(text: str) -> int:
    """A number of --jobs. Raises ArgumentTypeError for what is none."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite; the exit status is returned."""
    if argv is None:
        argv = sys.argv[1:]
    if list(argv) == ["version"]:
        argv = ["--version"]  # what installers ask every tool, cnitool too
    try:
        status = _command(argv)
        sys.stdout.flush()  # here, where a reader that has gone away is understood
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        status = 1
    except (OSError, ValueError, runner.Unusable) as error:
        status = 2
        with contextlib.suppress(OSError):
            print(f"cni-conformance: {error}", file=sys.stderr)
    _drop_output()
    return status


def _drop_output() -> None:
    """Let what cannot be written go nowhere: at its end, the interpreter would try once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _command(argv: Sequence[str]) -> int:
    top = parser()
    try:
        options = top.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    return _run(top, options)


def _run(top: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    scenarios = session.select(options.only) if options.runtime else []
    cases = [session.as_case(each) for each in scenarios] if options.runtime else discover()
    if options.list:
        print(report_text.table(cases))
        return 0
    if options.explain:
        return _explain(cases, options.explain)
    if not options.plugins and not options.runtime:
        top.print_usage(sys.stderr)
        print("cni-conformance: name a plugin, or a directory of plugins", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("cni-conformance: needs root, to make network namespaces", file=sys.stderr)
        return 2
    files = {name: path for name in reports.WRITERS if (path := getattr(options, name))}
    reports.ensure_writable(files)
    known = _read("expect", options.expect, expected.load)
    profile = _read("profile", options.profile, profiles.load)
    jobs: int = options.jobs
    if options.runtime:
        where = surroundings.take()
        progress = report_text.Progress(len(scenarios))
        try:
            verdicts = session.run(options.runtime, scenarios, jobs, progress)
        finally:
            progress.close()
        names = dict.fromkeys(verdict.plugin for verdict in verdicts)
        led = tuple(Examined(name, options.runtime) for name in names)
        return _report(verdicts, dataclasses.replace(where, plugins=led), known, files)
    for pattern in options.only:
        if not any(fnmatch.fnmatchcase(case.id, pattern.partition("@")[0]) for case in cases):
            print(f"cni-conformance: no case {pattern!r}; see --list", file=sys.stderr)
            return 2
        if not runner.versions_wanted(pattern):
            version = pattern.partition("@")[2]
            print(
                f"cni-conformance: --only {pattern}: there is no version {version!r} of the "
                f"specification; there are {', '.join(VERSIONS)}",
                file=sys.stderr,
            )
            return 2
    subjects = _subjects(options.plugins, profile)
    for pattern in options.only:
        if not runner.plan(subjects, cases, [pattern]):
            why = report_text.unselected(subjects, cases, pattern)
            print(f"cni-conformance: --only {pattern} selects nothing: {why}", file=sys.stderr)
            return 2
    tasks = runner.plan(subjects, cases, options.only)
    where = surroundings.take(
        Examined(each.name, str(each.program), each.answered, each.obstacle) for each in subjects
    )
    progress = report_text.Progress(len(tasks))
    try:
        verdicts = runner.run(tasks, jobs, progress, options.profile)
    finally:
        progress.close()
    status = _report(verdicts, where, known, files)
    if len(where.obstacles) == len(subjects):
        print("cni-conformance: no plugin could be tested here", file=sys.stderr)
        return 2
    return status


def _read(option: str, file: str | None, load: Callable[[pathlib.Path], _T]) -> _T | None:
    """What an option's file says, None without one.

    Raises ValueError that names both, and what such a file holds.
    """
    if file is None:
        return None
    try:
        return load(pathlib.Path(file))
    except OSError as error:
        raise ValueError(f"--{option} {file}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--{option} {error}\nexpected is {_FORMS[option]}") from None


def _explain(cases: Sequence[Case], name: str) -> int:
    for case in cases:
        if case.id == name.partition("@")[0]:
            print(report_text.explain(case))
            return 0
    print(f"cni-conformance: no case {name!r}; see --list", file=sys.stderr)
    return 2


def _subjects(paths: Sequence[pathlib.Path], profile: Profile | None) -> list[Subject]:
    """The plugins to test. In a directory, those of a type without a profile are passed over."""
    known = profiles.well_known()
    if profile:
        known[profile.type] = profile
    found: list[Subject] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or directory")
        # Not a link's target: ours are links to one executable, which goes by its name.
        whole = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
        for program in runner.programs(whole):
            if any(program == subject.program for subject in found):
                continue  # named twice, as by its directory and by itself
            if program.name in known:
                found.append(runner.identify(program, known[program.name]))
            elif path.is_dir():
                print(f"{program.name}: no profile, not tested", file=sys.stderr)
            else:
                raise ValueError(_UNKNOWN.format(program=program, schema=_SCHEMA))
    if not found:
        raise ValueError(f"no plugin to test in {', '.join(map(str, paths))}")
    return runner.told_apart(found)


def _report(
    verdicts: list[Verdict],
    where: Surroundings,
    known: expected.Expected | None,
    files: Mapping[str, pathlib.Path],
) -> int:
    """Write all reports; the exit status."""
    obstacles = where.obstacles
    try:
        if known is None:
            report_text.write(verdicts, obstacles=obstacles)
            status = 0 if conforms(verdicts) else 1
        else:
            for name, obstacle in obstacles.items():
                print(f"{name}: not testable here: {obstacle}", file=sys.stderr)
            tested = [verdict for verdict in verdicts if verdict.plugin not in obstacles]
            wrong = expected.differences(known, tested)
            print("\n".join(wrong) or "the findings are those that were expected")
            if others := expected.not_compared(known, tested):
                print(f"not compared: {others} of cases and versions that the file does not cover")
            status = 1 if wrong else 0
        sys.stdout.flush()
    finally:
        # After the text, which is not lost with a full disk; and whatever becomes of the text.
        reports.write(verdicts, where, files)
    return status
