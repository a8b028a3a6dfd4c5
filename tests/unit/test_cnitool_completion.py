# SPDX-License-Identifier: Apache-2.0
"""Shell completion: what is offered at a place of the command line, by each shell itself."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Callable

import pytest

from libcni.cnitool.__main__ import main
from libcni.cnitool.completion import SHELLS

#: What a shell offers for the last of these words, the others being there already.
Complete = Callable[..., list[str]]

_HARNESS = {
    "bash": """{script}
COMP_WORDS=({words}); COMP_CWORD={last}
_cnitool; printf "%s\\n" "${{COMPREPLY[@]}}"
""",
    # What is builtin within the completion system alone, as functions.
    "zsh": """compdef() {{ }}
compadd() {{ [[ $1 == -f ]] && shift; shift; print -rl -- ${{(M)@:#$PREFIX*}} }}
_files() {{ print -rl -- $PREFIX*(N) }}
{script}
words=({words}); CURRENT=$(({last} + 1)); PREFIX=$words[CURRENT]
_cnitool
""",
    "fish": """{script}
complete -C {line}
""",
}


@pytest.fixture(params=SHELLS)
def complete(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Complete:
    """Completion by a shell, with a program at bin/cnitool that is not on PATH."""
    shell: str = request.param
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/cnitool"
    tool.write_text('#!/bin/sh\n[ "$*" = "list -o names" ] && echo net && echo other\n')
    tool.chmod(0o755)
    (tmp_path / "netfile").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out

    def run(*words: str, typed: str = "bin/cnitool") -> list[str]:
        # Typed as it is, so that what the shell would expand is still in it.
        quoted = " ".join(shlex.quote(word) for word in (typed, *words))
        line = shlex.quote(" ".join((typed, *words)))
        code = _HARNESS[shell].format(script=script, words=quoted, last=len(words), line=line)
        done = subprocess.run(
            [program, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "HOME": str(tmp_path), "CNI_PATH": str(tmp_path / "bin")},
        )
        assert done.stderr == ""
        return sorted(line.partition("\t")[0] for line in done.stdout.split("\n") if line)

    return run


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_verb(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capfd.readouterr().out
    for verb in ("add", "check", "del", "gc", "status", "validate", "list", "version"):
        assert verb in text
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=text.encode(), check=True)


@pytest.mark.parametrize("typed", ["bin/cnitool", "~/bin/cnitool", "$CNI_PATH/cnitool"])
def test_networks_are_asked_of_the_program_that_was_typed(complete: Complete, typed: str) -> None:
    assert complete("add", "n", typed=typed) == ["net"]
    assert complete("-i", "eth1", "del", "", typed=typed) == ["net", "other"]


def test_nothing_that_was_typed_is_executed(complete: Complete, tmp_path: pathlib.Path) -> None:
    assert complete("add", "n", typed="$(touch${IFS}made)/cnitool") == []
    assert not (tmp_path / "made").exists()


def test_verbs(complete: Complete) -> None:
    assert complete("st") == ["status"]
    assert complete("help", "val") == ["validate"]
    assert complete("completion", "b") == ["bash"]


def test_options_are_those_of_the_verb(complete: Complete) -> None:
    assert complete("list", "-o", "j") == ["json"]
    assert complete("add", "--if") == ["--ifname"]
    assert complete("--v") == ["--version"]
    assert complete("validate", "--") == ["--help", "--plugins"]
    assert complete("gc", "net", "--") == ["--cache-dir", "--help"]
    offered = complete("conformance", "--")
    assert "--junit" in offered and "--explain" in offered and "--cache-dir" not in offered


def test_files_where_there_are_any(complete: Complete) -> None:
    assert complete("validate", "netf") == ["netfile"]
    assert complete("validate", "other", "netf") == ["netfile"]
    assert complete("add", "net", "netf") == ["netfile"]
    assert complete("conformance", "--json", "netf") == ["netfile"]


@pytest.mark.parametrize(
    "words",
    [
        ["gc", "net"],
        ["status", "net"],
        ["add", "net", "/run/netns/blue"],
        ["list"],
        ["version"],
        ["completion", "bash"],
        ["help", "add"],
        ["add", "-i"],
    ],
)
def test_nothing_where_no_argument_is_taken(complete: Complete, words: list[str]) -> None:
    assert complete(*words, "") == []
