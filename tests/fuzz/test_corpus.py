# SPDX-License-Identifier: Apache-2.0
"""Every input ever kept still holds; and so do some new ones, the same in every run."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.fuzz import mutation
from tests.fuzz.target import CORPUS, all_targets, corpus

TARGETS = all_targets()
#: Seconds after which an input counts as a hang: the largest takes a tenth of one.
_PATIENCE = 120


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """An input that never ends fails instead of stopping the suite."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError("an input has not ended")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_seeds_hold(name: str) -> None:
    target = TARGETS[name]
    inputs = {**corpus(name), **{f"seed {n}": seed for n, seed in enumerate(target.seeds())}}
    assert inputs
    for file, data in inputs.items():
        try:
            target.run(data)
        except BaseException as error:
            raise AssertionError(f"{name}: {file}: {data[:500]!r}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_hold(name: str) -> None:
    target = TARGETS[name]
    draw = random.Random(name)
    inputs = [*corpus(name).values(), *target.seeds()]
    for _ in range(target.budget):
        data = draw.choice(inputs)
        for _ in range(draw.choice((1, 1, 2, 5))):
            data = target.mutate(data, draw)
        try:
            target.run(data)
        except BaseException as error:
            raise AssertionError(f"{name}: {data!r}") from error


def test_corpus_has_a_folder_for_each_target_and_no_other() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_corpus_is_small() -> None:
    sizes = {path: path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()}
    assert max(sizes.values()) <= 4096, max(sizes, key=sizes.__getitem__)
    assert sum(sizes.values()) < 1 << 20


def test_mutation_repeats_itself() -> None:
    data = b'{"name": "net", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}]]}}'
    once = [mutation.of_json(data, random.Random(seed)) for seed in range(50)]
    assert once == [mutation.of_json(data, random.Random(seed)) for seed in range(50)]
    assert len(set(once)) > 40
