# SPDX-License-Identifier: Apache-2.0
"""One target under libFuzzer, guided by the coverage of our modules.

    python -m tests.fuzz.engine TARGET [libFuzzer's options and directories]

Ends the process as libFuzzer does. Inputs are changed by the target's own mutator and by
libFuzzer's in turn. A target whose property is violated leaves the input where -artifact_prefix
says.
"""

from __future__ import annotations

import importlib
import random
import sys

import atheris

from tools.freeze import hot


def main() -> None:
    """Fuzz the target that the first argument names."""
    name, *options = sys.argv[1:]
    from pathlib import Path

    modules = hot.our_modules(Path(__file__).resolve().parents[2])
    packages = sorted({module.split(".")[0] for module in modules})
    with atheris.instrument_imports(include=packages):
        for module in modules:
            if not module.endswith("__main__"):
                importlib.import_module(module)
    from tests.fuzz.target import all_targets

    target = all_targets()[name]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 3 == 0:
            changed: bytes = atheris.Mutate(data, most)
            return changed
        return target.mutate(data, random.Random(seed))[:most]

    atheris.Setup([sys.argv[0], *options], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
