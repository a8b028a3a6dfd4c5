# SPDX-License-Identifier: Apache-2.0
"""Write the configuration reference from the schemas, between the markers in the READMEs.

    python -m tools.generate_docs [--check]

README.md has a table for each plugin, `plugins/<type>/README.md` that of its own. Plugins are
the folders with a schema.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from libcni.skel.plugin import VERB_MODULES, package_of
from tools.generate_validators import Files

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN = "<!-- generated: configuration -->"
END = "<!-- /generated -->"
PLUGINS = "<!-- generated: plugins -->"

Schema = dict[str, Any]


def table(files: Files, path: str) -> str:
    """The Markdown table of the keys that the plugin schema at `path` has of its own."""
    rows = list(_rows(files, files.load(path), path, ""))
    if not rows:
        return "No keys of its own.\n"
    lines = ["| key | type | default | meaning | example |", "|---|---|---|---|---|"]
    lines += [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def _rows(files: Files, schema: Schema, base: str, above: str) -> Iterator[tuple[str, ...]]:
    for key, inner in schema.get("properties", {}).items():
        name = f"{above}{key}"
        target, file = _follow(files, inner, base)
        # What stands beside a $ref is about this key, so it goes before what the target says.
        described = target | inner
        if "examples" in described:
            default = described.get("default")
            if default is None and key in schema.get("required", ()):
                default_cell = "required"
            elif default is None:
                default_cell = "none"
            else:
                default_cell = _code(default)
            yield (
                f"`{name}`",
                _type(files, target, file),
                default_cell,
                described["description"],
                _code(described["examples"][0]),
            )
        suffix = ""
        while target.get("type") == "array" and "items" in target:
            suffix += "[]"
            target, file = _follow(files, target["items"], file)
        yield from _rows(files, target, file, f"{name}{suffix}.")


def _follow(files: Files, schema: Schema, base: str) -> tuple[Schema, str]:
    while "$ref" in schema:
        base, _, schema = files.follow(schema["$ref"], base)
    return schema, base


def _type(files: Files, schema: Schema, base: str) -> str:
    """The type in a few words."""
    kind = schema.get("type")
    if kind == "array":
        item, file = _follow(files, schema.get("items", {}), base)
        return f"list of {_plural(_type(files, item, file))}"
    if "enum" in schema:
        return " or ".join(_code(value) for value in schema["enum"])
    if kind == "integer":
        return f"integer {schema['minimum']} to {schema['maximum']}"
    if kind == "string" and "title" in schema:
        title: str = schema["title"]
        return title.removeprefix("an ").removeprefix("a ")
    return str(kind)


def _plural(text: str) -> str:
    words = {"IP address or a prefix in CIDR notation": "IP addresses or prefixes"}
    if text.startswith("list of"):
        return "lists" + text.removeprefix("list")
    return words.get(text, f"{text}es" if text.endswith("s") else f"{text}s")


def _code(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def overview(root: pathlib.Path) -> str:
    """The Markdown table of the plugins: the first sentence of each one's page, and its verbs."""
    lines = ["| plugin | what it does | verbs |", "|---|---|---|"]
    for page in sorted((root / "plugins").glob("*/README.md")):
        type = page.parent.name
        _, text, *_ = page.read_text().split("\n\n")
        does = " ".join(text.split()).partition(". ")[0].rstrip(".")
        package = page.parent / package_of(type)
        verbs = [v for v, module in VERB_MODULES.items() if (package / f"{module}.py").exists()]
        link = page.relative_to(root).as_posix()
        lines.append(f"| [`{type}`]({link}) | {does} | {' '.join(verbs)} |")
    return "\n".join(lines) + "\n"


def replaced(text: str, content: str, path: str, begins: str = BEGIN) -> str:
    """`text` with what is between the markers replaced. Raises ValueError without markers."""
    head, begin, rest = text.partition(begins)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no {begins} … {END}")
    return f"{head}{begins}\n{content}{END}{tail}"


def generate(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Text of every file with generated parts by its path."""
    files = Files(root)
    texts: dict[pathlib.Path, str] = {}
    sections = []
    for schema in sorted((root / "plugins").glob("*/schema.json")):
        content = table(files, schema.relative_to(root).as_posix())
        page = schema.parent / "README.md"
        texts[page] = replaced(page.read_text(), content, str(page))
        sections.append(f"### `{schema.parent.name}`\n\n{content}")
    page = root / "README.md"
    text = replaced(page.read_text(), overview(root), "README.md", PLUGINS)
    texts[page] = replaced(text, "\n" + "\n".join(sections) + "\n", "README.md")
    return texts


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check say which are stale (exit status 1)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    check = parser.parse_args(arguments).check
    stale = 0
    for path, text in generate().items():
        if path.read_text() == text:
            continue
        stale += 1
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
