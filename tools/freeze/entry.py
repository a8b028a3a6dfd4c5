# SPDX-License-Identifier: Apache-2.0
"""The one program behind every executable: picks plugin or tool by the name it was called by.

This module runs in the core phase of the interpreter: there are built-in and frozen modules (ours
are frozen into the executable), and C extensions through the finder below; no files, no codecs
but UTF-8, no sys.stdout. `boot` brings the rest when a cold path asks for it.
"""

import _imp
import posix
import sys

import _adder
from adder_build import EXTENSIONS, WARM

_Spec = type(sys.__spec__)


class _Extensions:
    """Finder and loader of the C extensions that hot paths use, by a fixed table."""

    def find_spec(self, name, path=None, target=None):
        file = EXTENSIONS.get(name)
        if file is None:
            return None
        return _Spec(name, self, origin=f"{_adder.contents}/{file}")

    def create_module(self, spec):
        return _imp.create_dynamic(spec)

    def exec_module(self, module):
        _imp.exec_dynamic(module)


def _boot():
    """Finish the interpreter, then install PyInstaller's importer over the bundled libraries."""
    _adder.initialize()
    import time

    # It is in the picture, with the time zone of the build.
    time.tzset()
    sys.argv = _adder.argv
    sys._MEIPASS = _adder.contents
    sys._pyinstaller_pyz = _adder.contents + "/libraries.pyz?0"
    sys._stdlib_dir = _adder.contents
    # It asks every frozen module for its spec; this one was started without any.
    sys.modules.pop("adder_entry", None)
    import pyimod02_importers

    pyimod02_importers.install()
    sys.frozen = True


def _report(path):
    """Write the names of the loaded modules, for the test that holds them to a list."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o644)
    posix.write(fd, ("\n".join(sorted(sys.modules)) + "\n").encode())
    posix.close(fd)


def warm():
    """Import all that plugins use on their hot paths: at build time, for the picture."""
    for name in WARM:
        __import__(name)


def main():
    """Be the plugin or tool that the process was started as. Does not return."""
    posix._exit(_run())


def _run():
    from libcni import boot

    sys.argv = _adder.argv
    boot.configure(_boot, _adder.contents + "/data", "/proc/self/exe")
    name = sys.argv[0].rpartition("/")[2]
    if name in boot.TOOLS:
        return boot.run_tool(name)
    from libcni.skel.main import run

    status = run(name)
    report = posix.environ.get(b"ADDER_MODULES")
    if report is not None:
        _report(report)
    return status


sys.meta_path.append(_Extensions())
