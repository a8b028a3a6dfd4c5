# SPDX-License-Identifier: Apache-2.0
"""Print the requirements that pyproject.toml names, for `pip install -r`."""

import pathlib
import tomllib

project = tomllib.loads(
    (pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
)["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["dev"]))
