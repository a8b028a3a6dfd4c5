# SPDX-License-Identifier: Apache-2.0
"""`install-cni`: place the plugins and the network configuration on this node, or take them away.

What the init container of the DaemonSet runs. Order is all: the configuration is checked before
anything is touched, the programs are run before they take their places, and the configuration is
written last, as from then on the runtime starts pods. `uninstall` goes the other way round.
"""

from __future__ import annotations

import argparse
import errno
import os
import pathlib
import sys
from collections.abc import Mapping

from cni_vxlan_overlay.agent import binaries, conflist
from cni_vxlan_overlay.agent.trial import InstallError
from libcni.about import VERSION
from libcni.types.errors import CniError

READ_ONLY, FULL = 3, 4

_EPILOG = """environment, for those options that are not given (empty is as good as absent):
  CNI_BIN_DIR, CNI_CONF_DIR, CNI_CONF_NAME, CNI_CONF_FILE, CNI_NETWORK_CONFIG,
  CNI_SOURCE_DIR, SKIP_CNI_BINARIES, CNI_PLUGINS_ELSEWHERE

exit status:
  0  done, or nothing to do       4  the file system is full
  1  another failure              5  a program is broken, or of another architecture
  2  wrong usage                  6  the network configuration cannot be used
  3  the file system is read-only
"""

#: Option, variable, default, explanation.
_OPTIONS = (
    ("bin-dir", "CNI_BIN_DIR", "/opt/cni/bin", "where the runtime looks for plugins"),
    ("conf-dir", "CNI_CONF_DIR", "/etc/cni/net.d", "where the runtime looks for networks"),
    ("conf-name", "CNI_CONF_NAME", "10-vxlan-overlay.conflist", "the file to write there"),
    ("conf-file", "CNI_CONF_FILE", "", "file with its content; there is a default"),
    ("network-config", "CNI_NETWORK_CONFIG", "", "its content itself"),
    ("source-dir", "CNI_SOURCE_DIR", "", "where the set is; by default beside this program"),
    ("skip", "SKIP_CNI_BINARIES", "", "names not to install, parted by commas"),
    (
        "elsewhere",
        "CNI_PLUGINS_ELSEWHERE",
        "",
        "plugins that the runtime finds in another directory, parted by commas",
    ),
)


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line, with the environment's values as defaults."""
    top = argparse.ArgumentParser(
        prog="install-cni",
        description="Install the CNI plugins and the overlay's network configuration, or "
        "uninstall them. Safe while pods start; does nothing the second time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"install-cni {VERSION}")
    top.add_argument("verb", choices=("install", "uninstall"))
    for option, variable, value, text in _OPTIONS:
        if value:
            text += f" (default {value})"
        default = environment.get(variable) or value
        top.add_argument(f"--{option}", default=default, metavar="X", help=text)
    return top


def main(argv: list[str]) -> int:
    """Run `install-cni` with these arguments; the exit status, as the help says.

    Raises SystemExit for --help, --version and wrong usage.
    """
    options = parser(os.environ).parse_args(argv)
    run = _install if options.verb == "install" else _uninstall
    try:
        done = run(options)
    except InstallError as error:
        return _fail(str(error), error.status)
    except CniError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(*_explain(error))
    sys.stdout.write("\n".join(done or ["nothing to do"]) + "\n")
    return 0


def _install(options: argparse.Namespace) -> list[str]:
    bin_dir, path = pathlib.Path(options.bin_dir), _conf_path(options)
    data = _given(options)
    network = conflist.check(data) if data is not None else None
    frozen = binaries.find_set(_source(options))
    skip = _names(options.skip)
    for name in skip:
        if name not in frozen.executables:
            _remark(f"SKIP_CNI_BINARIES names {name}, which is not in {frozen.source}")
    done = binaries.place(frozen, bin_dir, skip)
    if data is None:
        data, remarks = conflist.default(bin_dir)
        for remark in remarks:
            _remark(remark)
    if network is None:
        network = conflist.check(data)
    conflist.check_plugins(network, bin_dir, _names(options.elsewhere))
    done += conflist.write(path, data)
    for name in conflist.before(path):
        _remark(f"{path.with_name(name)} comes before {path.name}: runtimes use the first")
    return done


def _uninstall(options: argparse.Namespace) -> list[str]:
    # In this order: a runtime that still had the configuration would start pods without plugins.
    done = conflist.remove(_conf_path(options))
    return done + binaries.remove(pathlib.Path(options.bin_dir))


def _conf_path(options: argparse.Namespace) -> pathlib.Path:
    name: str = options.conf_name
    if "/" in name or name.startswith(".") or not name.endswith(".conflist"):
        raise InstallError(
            f"CNI_CONF_NAME {name!r} is not the name of a file that ends in .conflist",
            conflist.INVALID,
        )
    return pathlib.Path(options.conf_dir) / name


def _given(options: argparse.Namespace) -> bytes | None:
    """The configuration's content as the operator gave it, None without."""
    if options.conf_file and options.network_config:
        raise InstallError(
            "both CNI_CONF_FILE and CNI_NETWORK_CONFIG are given: leave one of them empty",
            conflist.INVALID,
        )
    if options.conf_file:
        return pathlib.Path(options.conf_file).read_bytes()
    if options.network_config:
        text: str = options.network_config
        return text.encode() + b"\n"
    return None


def _source(options: argparse.Namespace) -> pathlib.Path:
    if options.source_dir:
        return pathlib.Path(options.source_dir)
    return pathlib.Path("/proc/self/exe").resolve().parent


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _explain(error: OSError) -> tuple[str, int]:
    """What to say about a failure of the system, and the exit status."""
    where = error.filename2 or error.filename or ""
    text = f"{where}: {error.strerror}" if where else str(error)
    match error.errno:
        case errno.EROFS:
            hint = "choose a CNI_BIN_DIR (or CNI_CONF_DIR) that can be written, and name it to "
            hint += "the runtime too; hosts with a read-only /opt use /run/cni/bin"
            return f"{text}; {hint}", READ_ONLY
        case errno.ENOSPC | errno.EDQUOT:
            return f"{text}; what was installed before is as it was", FULL
        case errno.EACCES | errno.EPERM:
            return f"{text}; it has to be run as root, the owner of the directory", 1
    return text, 1


def _remark(text: str) -> None:
    sys.stderr.write(f"install-cni: note: {text}\n")


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"install-cni: {text}\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
