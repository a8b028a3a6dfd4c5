# SPDX-License-Identifier: Apache-2.0
"""The one program behind every executable: picks plugin or tool by the name it was called by.

This script runs in the barest interpreter that PyInstaller's bootloader can start: no importer
of PyInstaller, no standard library. Our own modules come from one marshalled file through the
finder below (0.02 ms a module instead of 0.15 from single files); everything else is put on the
import path by `boot` only when a cold path asks for it.
"""

import marshal
import posix
import sys

_CONTENTS = sys._MEIPASS
_Spec = type(sys.__spec__)


class _Modules:
    """Finder and loader in one, over {name: (is package, marshalled code)} and C extensions."""

    def __init__(self, path):
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        size = posix.fstat(fd).st_size
        data = posix.read(fd, size)
        posix.close(fd)
        self.modules, self.extensions = marshal.loads(data)

    def find_spec(self, name, path=None, target=None):
        entry = self.modules.get(name)
        if entry is not None:
            spec = _Spec(name, self, origin=name, is_package=entry[0])
            return spec
        file = self.extensions.get(name)
        if file is not None:
            from _frozen_importlib_external import ExtensionFileLoader

            place = f"{_CONTENTS}/{file}"
            return _Spec(name, ExtensionFileLoader(name, place), origin=place)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(marshal.loads(self.modules[module.__name__][1]), module.__dict__)


def _boot():
    """Install PyInstaller's importer over the bundled libraries, as its bootstrap would have."""
    sys.path.insert(0, _CONTENTS + "/stdlib.zip")
    sys.path_importer_cache.clear()
    import encodings

    encodings.__path__.append(_CONTENTS + "/stdlib.zip/encodings")
    sys._pyinstaller_pyz = _CONTENTS + "/libraries.pyz?0"
    import pyimod02_importers

    pyimod02_importers.install()
    sys.frozen = True
    sys._stdlib_dir = _CONTENTS


def _main():
    sys.meta_path.insert(0, _Modules(_CONTENTS + "/modules.bin"))
    from libcni import boot

    boot.configure(_boot, _CONTENTS + "/data", "/proc/self/exe")
    name = sys.argv[0].rpartition("/")[2]
    if name in boot.TOOLS:
        _boot()
        return boot.run_tool(name)
    from libcni.skel.main import run

    status = run(name)
    report = posix.environ.get(b"ADDER_MODULES")
    if report is not None:
        _report(report)
    return status


def _report(path):
    """Write the names of the loaded modules, for the test that holds them to a list."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o644)
    posix.write(fd, ("\n".join(sorted(sys.modules)) + "\n").encode())
    posix.close(fd)


# The interpreter's own tear-down and the bootloader's would cost 2 ms and free nothing.
posix._exit(_main())
