# SPDX-License-Identifier: Apache-2.0
"""The way from the bare interpreter of an exec'd plugin to the whole standard library.

A frozen plugin starts with the built-in modules and ours alone, which is what makes it start in
a few milliseconds. Cold paths (explaining a rejected configuration, the tools) call `full_boot`
first; from source it has nothing to do.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Set by the frozen entry: puts the bundled libraries on the import path.
_hook: Callable[[], None] | None = None
#: Directory with `spec/` and `plugins/*/schema.json` when frozen; None from source.
data_directory: str | None = None
#: The file that runs under every plugin's name: the frozen executable or the source launcher.
program: str = "/proc/self/exe"


def full_boot() -> None:
    """Make every bundled library importable. Idempotent; costs about 3 ms the first time."""
    global _hook
    if _hook is not None:
        hook, _hook = _hook, None
        hook()


def configure(hook: Callable[[], None] | None, data: str | None, executable: str) -> None:
    """Tell what the launcher knows. Called once, before anything else of libcni runs."""
    global _hook, data_directory, program
    _hook, data_directory, program = hook, data, executable


def is_frozen() -> bool:
    """True inside a frozen executable."""
    return bool(getattr(sys, "frozen", False)) or data_directory is not None


#: Tools beside the plugins, by the name of their executable: the module whose main() to run.
TOOLS = {"cnitool": "libcni.cnitool.__main__", "cni-conformance": "cni_conformance.cli"}


def load_tool(name: str) -> Any:
    """The module of a tool of TOOLS. Raises ImportError where it is not installed."""
    full_boot()
    if data_directory is not None and TOOLS[name].partition(".")[0] not in sys.modules:
        # The conformance suite is a package of its own: files, with its data beside it.
        sys.path.append(data_directory + "/conformance")
    return __import__(TOOLS[name], fromlist=("main",))


def run_tool(name: str) -> int:
    """Run a tool of TOOLS with the process's arguments; the exit status is returned."""
    import sys

    full_boot()
    import gc

    gc.enable()  # off in plugins, which end too soon to make garbage worth collecting
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us: nobody wants to read it
            setattr(sys, stream, open("/dev/null", "w"))
    status: int = load_tool(name).main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    return status
