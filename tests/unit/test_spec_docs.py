# SPDX-License-Identifier: Apache-2.0
"""The configuration reference is that of the schemas, and the pages' examples are valid."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from libcni.schema import explain
from libcni.types import errors
from tools import generate_docs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT.glob("plugins/*/README.md"))


def test_pages_are_current() -> None:
    for path, text in generate_docs.generate(ROOT).items():
        assert path.read_text() == text, f"{path} is stale: run make generate"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_examples_of_the_pages_are_valid(page: pathlib.Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        document = json.loads(block)
        assert explain.explain("conflist", document) == ("", "")
        for plugin in document["plugins"]:
            request = plugin | {"name": document["name"], "cniVersion": document["cniVersion"]}
            assert explain.explain(plugin["type"], request) == ("", "")
            if "ipam" in plugin:
                assert explain.explain(plugin["ipam"]["type"], request) == ("", "")


def test_markers_are_required() -> None:
    with pytest.raises(ValueError, match="page"):
        generate_docs.replaced("no markers", "table", "page")


def test_error_codes_are_documented() -> None:
    text = (ROOT / "spec/README.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    codes = {
        value for name, value in vars(errors).items() if name.isupper() and type(value) is int
    }
    assert codes == documented


def test_lists_are_named_in_the_plural() -> None:
    for path in (ROOT / "README.md", *PAGES):
        assert not re.search(r"list of \w+( \w+)* (address|prefix)s ", path.read_text()), path
    assert generate_docs._plural("IP address") == "IP addresses"
    assert generate_docs._plural("string") == "strings"
