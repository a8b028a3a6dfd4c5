# SPDX-License-Identifier: Apache-2.0
"""How values are shown in findings, and that none of them is shown as Python writes it."""

from __future__ import annotations

import ast
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from broken.notation import expect_none
from cni_conformance import data, wording
from cni_conformance.case import Finding
from cni_conformance.outcome import Outcome

PACKAGE = pathlib.Path(wording.__file__).parent


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        ("it's", '"it\'s"'),
        ({"a": [1, None, "é"]}, '{"a": [1, null, "é"]}'),
        ([("10.1.0.0/16", None)], '[["10.1.0.0/16", null]]'),
        (b"no\nJSON\xff", '"no\\nJSON\ufffd"'),
        ("\ud800", '"\\ud800"'),
        ("x" * 1000, f'"{"x" * 599}… (1002 characters)'),
    ],
)
def test_a_value_is_shown_as_json(value: Any, shown: str) -> None:
    assert wording.show(value) == shown
    shown.encode()


@pytest.mark.parametrize(
    "value", [b"x", b"it's", {"a": 1}, ["x"], ["x", 1], None, {"a": True}, [False]]
)
def test_what_python_would_write_is_noticed(value: Any) -> None:
    with pytest.raises(AssertionError):
        expect_none(f"expected this; came {value!r}")
    expect_none(f"expected this; came {wording.show(value)}")


def test_a_list_of_names_is_none_when_it_is_empty() -> None:
    assert wording.listed(["ADD", "DEL"]) == "ADD, DEL"
    assert wording.listed(iter(())) == "none"


@pytest.mark.parametrize(
    ("schema", "document", "words"),
    [
        ({"type": "object"}, None, 'the document: null is not of type "object"'),
        ({"type": ["string", "null"]}, True, 'true is not of type "string" or "null"'),
        ({"required": ["a", "b"]}, {}, "'a' is a required property"),
        ({"properties": {"a": {"enum": ["x", None]}}}, {"a": {}}, 'a: {} is not one of "x", null'),
        ({"const": "4"}, ["6"], '["6"] is not "4"'),
        ({"pattern": r"^\d$"}, "x\n", r'"x\n" does not match ^\d$'),
        ({"minimum": 0}, -1, "-1 is less than 0"),
        ({"maximum": 9}, 10, "10 is more than 9"),
        ({"minItems": 1}, [], '[] does not fit {"minItems": 1}'),
        ({"anyOf": [{"title": "a number", "type": "number"}]}, "x", "has to be: a number"),
        ({"oneOf": [{"type": "number"}]}, {"x": None}, '{"x": null} has none of the forms'),
        ({"additionalProperties": False}, {"x": 1}, "'x' was unexpected"),
        ({"additionalProperties": {"type": "string"}}, {"x": None}, "x: null is not of type"),
    ],
)
def test_what_a_schema_has_against_a_document(schema: Any, document: Any, words: str) -> None:
    found = "; ".join(wording.complaints(jsonschema.Draft7Validator(schema).iter_errors(document)))
    assert words in found
    expect_none(found)


#: In every place of a result and of an error, what is never right there.
NEVER_RIGHT: list[Any] = [None, True, {"a": None}, ["a"], [{"a": False}], "x", -1, [None], {}]


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.1.0"])
def test_no_complaint_about_a_result_is_in_python(version: str) -> None:
    keys = ("cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6")
    members = ("name", "mac", "mtu", "sandbox", "address", "interface", "gateway", "dst", "ip")
    for wrong in NEVER_RIGHT:
        for document in (
            wrong,
            {"cniVersion": version, **dict.fromkeys(keys, wrong)},
            {"cniVersion": version, **{key: [dict.fromkeys(members, wrong)] for key in keys}},
        ):
            outcome = Outcome("ADD", 0, json.dumps(document).encode(), b"")
            with pytest.raises(Finding) as caught:
                outcome.expect_result(version)
            expect_none(str(caught.value))


def test_no_complaint_about_an_error_or_a_version_is_in_python() -> None:
    for wrong in NEVER_RIGHT:
        for keys in ("code", "code msg", "code msg details cniVersion"):
            document = json.dumps(dict.fromkeys(keys.split(), wrong))
            with pytest.raises(Finding) as caught:
                Outcome("ADD", 1, document.encode(), b"").expect_error()
            expect_none(str(caught.value))
        answer = {"cniVersion": wrong, "supportedVersions": wrong}
        expect_none("; ".join(data.complaints("version", answer)))


def _raised(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
            yield node


def test_no_finding_is_made_with_repr() -> None:
    """Also those that no broken plugin is there for."""
    count = 0
    for path in PACKAGE.rglob("*.py"):
        for call in _raised(ast.parse(path.read_text())):
            count += 1
            for node in ast.walk(call):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                assert name not in ("repr", "sorted", "set", "dict"), f"{path}:{call.lineno}"
                converted = isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
                assert not converted, f"{path}:{call.lineno}"
    assert count > 50
