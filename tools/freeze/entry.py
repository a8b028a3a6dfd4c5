# SPDX-License-Identifier: Apache-2.0
"""The one program behind every executable: picks plugin or tool by the name it was called by.

This module runs in the core phase of the interpreter: there are built-in and frozen modules (ours
are frozen into the executable), and C extensions through the finder below; no files, no codecs
but UTF-8, no sys.stdout. `boot` brings the rest when a cold path asks for it.
"""

import _imp
import marshal
import posix
import sys

import _adder
from adder_build import EXTENSIONS

_Spec = type(sys.__spec__)
_FROZEN = next(finder for finder in sys.meta_path if finder.__name__ == "FrozenImporter")


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


class _Warm:
    """Finder and loader of what goes into the picture, from warm/ in the working directory.

    Their code is not in the executable as well: they are never imported again.
    """

    def __init__(self):
        self.codes = {}
        #: One buffer for all, since what is freed here leaves a hole in the picture.
        self.buffer = bytearray(1 << 16)

    def find_spec(self, name, path=None, target=None):
        try:
            fd = posix.open("warm/" + name, posix.O_RDONLY)
        except FileNotFoundError:
            return None
        size = posix.readv(fd, [self.buffer])
        posix.close(fd)
        if size == len(self.buffer):
            raise ImportError(name + " is larger than the buffer")
        with memoryview(self.buffer) as content:
            self.codes[name] = marshal.loads(content[1:size])
        return _Spec(name, self, origin="frozen", is_package=bool(self.buffer[0]))

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.codes.pop(module.__name__), module.__dict__)
        # To PyInstaller's importer it is a frozen module as the others are.
        module.__spec__.loader = module.__loader__ = _FROZEN


def warm():
    """Import all that plugins use on their hot paths: at build time, for the picture."""
    finder = _Warm()
    sys.meta_path.insert(0, finder)
    for name in sorted(posix.listdir("warm")):
        __import__(name)
    sys.meta_path.remove(finder)


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
