# SPDX-License-Identifier: Apache-2.0
"""A target: something that reads an input, and inputs to begin with."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import pkgutil
from collections.abc import Callable, Iterable

from tests.fuzz import mutation, targets
from tests.rig.examples import paths

CORPUS = pathlib.Path(__file__).parent / "corpus"
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Target:
    """run: tries one input; raises for a violated property. seeds: inputs besides the corpus.

    mutate: makes another input of one. budget: mutated inputs that the test suite tries.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]] = tuple
    mutate: mutation.Mutator = mutation.of_bytes
    budget: int = 400


def all_targets() -> dict[str, Target]:
    """Every target by name: the modules of `targets`, underscores as hyphens."""
    found = {}
    for module in pkgutil.iter_modules(targets.__path__):
        loaded = importlib.import_module(f"{targets.__name__}.{module.name}")
        found[module.name.replace("_", "-")] = loaded.TARGET
    return found


def corpus(name: str) -> dict[str, bytes]:
    """The inputs kept for a target, by file name."""
    directory = CORPUS / name
    if not directory.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def examples(*kinds: str) -> list[bytes]:
    """The example documents whose file name begins with one of these kinds and a dot."""
    return [
        path.read_bytes()
        for path in paths("valid") + paths("invalid")
        if not kinds or path.name.split(".")[0] in kinds
    ]
