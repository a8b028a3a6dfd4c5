# SPDX-License-Identifier: Apache-2.0
"""Print the requirements that pyproject.toml names, for `pip install -r`.

python tools/requirements.py [EXTRA]     those of an extra alone; without, all of development
"""

import pathlib
import sys
import tomllib

project = tomllib.loads(
    (pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
)["project"]
extras = project["optional-dependencies"]
named = extras[sys.argv[1]] if sys.argv[1:] else project["dependencies"] + extras["dev"]
print("\n".join(named))
