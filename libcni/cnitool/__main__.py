# SPDX-License-Identifier: Apache-2.0
"""cnitool's command line: arguments in, exit status out."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from typing import NoReturn

from libcni.about import NAME, VERSION
from libcni.cnitool import grammar
from libcni.cnitool.completion import SHELLS, script
from libcni.cnitool.hints import report
from libcni.types.errors import CniError
from libcni.version import SUPPORTED

_EPILOG = """environment:
  CNI_PATH     directories with plugins, parted by colons (default /opt/cni/bin)
  NETCONFPATH  directory with network configurations (default /etc/cni/net.d)
  CNI_IFNAME   interface in the container (default eth0), as --ifname
  CNI_ARGS     arguments for plugins: KEY=VALUE;KEY=VALUE
  CAP_ARGS     capability arguments: a JSON object
"""

#: The verbs that an option means something to. The others take it without a word, and do not list
#: it: scripts for Go's tool have --ifname with every verb.
_USED_BY = {
    "ifname": ("add", "check", "del"),
    "cache_dir": ("add", "check", "del", "gc", "list"),
}

#: Verbs of the protocol: what each does, whether it needs the namespace.
_VERBS = {
    "add": ("attach the namespace to the network; prints the result", True),
    "check": ("check that the attachment is as it was made", True),
    "del": ("detach the namespace from the network", True),
    "gc": ("remove every attachment to the network that is remembered, live ones too", False),
    "status": ("ask whether the network can take attachments", False),
}


class _Parser(argparse.ArgumentParser):
    """Wrong usage exits 1, as Go's tool does."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"Error: {message}\nHint: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(
        prog="cnitool",
        description="Run CNI plugins on a network namespace as a container runtime would.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "-V", "--version", dest="verb", action="store_const", const="version",
        help="print the version",
    )  # fmt: skip
    _add_options(top, None)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for verb, (text, needs_netns) in _VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=text.capitalize())
        _add_options(sub, argparse.SUPPRESS, verb)
        sub.add_argument("network", help="name of the network")
        sub.add_argument(
            "netns",
            nargs=None if needs_netns else "?",
            default="",
            # Go's tool has it with every verb; to these it means nothing.
            help="path of the namespace, such as /run/netns/NAME"
            if needs_netns
            else argparse.SUPPRESS,
        )
    text = "check configuration files against the schemas"
    sub = verbs.add_parser("validate", help=text, description=text.capitalize())
    _add_options(sub, argparse.SUPPRESS, "validate")
    sub.add_argument(
        "paths",
        nargs="*",
        metavar="FILE",
        help="- is standard input; default: all of $NETCONFPATH",
    )
    sub.add_argument(
        "--plugins", action="store_true", help="also ask every plugin for the versions it speaks"
    )
    text = "hold plugins to the specification, as cni-conformance does"
    verbs.add_parser("conformance", help=text, description=text.capitalize(), add_help=False)
    text = "list networks and attachments"
    sub = verbs.add_parser("list", help=text, description=text.capitalize())
    _add_options(sub, argparse.SUPPRESS, "list")
    sub.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "names"),
        default="table",
        help="tables (the default), all of it as JSON, or the networks' names alone",
    )
    text = "print the version"
    sub = verbs.add_parser("version", help=text, description=text.capitalize())
    _add_options(sub, argparse.SUPPRESS, "version")
    text = "print a completion script for a shell"
    sub = verbs.add_parser("completion", help=text, description=text.capitalize())
    sub.add_argument("shell", choices=SHELLS)
    text = "print this help, or that of a verb"
    sub = verbs.add_parser("help", help=text, description=text.capitalize())
    sub.add_argument("about", nargs="?", metavar="VERB", choices=list(verbs.choices))
    return top


def _add_options(target: argparse.ArgumentParser, default: str | None, verb: str = "") -> None:
    """The options that may go before the verb and after it. verb: "" for before."""

    def help_if_used(option: str, text: str) -> str:
        return text if not verb or verb in _USED_BY[option] else argparse.SUPPRESS

    target.add_argument(
        "-i",
        "--ifname",
        type=_interface_name,
        default=default,
        metavar="NAME",
        help=help_if_used("ifname", "interface name (default $CNI_IFNAME or eth0)"),
    )
    target.add_argument(
        "--cache-dir",
        default=default,
        metavar="DIR",
        help=help_if_used("cache_dir", "where results are remembered (default /var/lib/cni)"),
    )


def _interface_name(text: str) -> str:
    """Refuses the empty name: what a script's unset variable gives would mean eth0."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def main(argv: list[str]) -> int:
    """Run one command; 0 on success, 1 on failure, 130 when interrupted.

    When nobody reads the output any more (`cnitool --help | head -1`), 1 without a word.
    """
    try:
        status = _command(argv)
        sys.stdout.flush()  # here, where a reader that has gone away is understood
        return status
    except BrokenPipeError:
        pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        with contextlib.suppress(OSError):
            print(f"Error: not all could be printed: {error.strerror}", file=sys.stderr)
    _drop_output()
    return 1


def _drop_output() -> None:
    """Let what cannot be written go nowhere: at its end, the interpreter would try once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _command(argv: list[str]) -> int:
    if argv[:1] == ["conformance"]:
        return _conformance(argv[1:])
    top = parser()
    try:
        options = top.parse_args(argv)
        if options.verb == "help" and options.about:
            return _command([options.about, "--help"])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    try:
        return _run(top, options)
    except CniError as error:
        report(error, options.verb, vars(options))
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _conformance(argv: list[str]) -> int:
    """Run the conformance suite, which has a command line of its own; its exit status."""
    from libcni.boot import load_tool

    try:
        suite = load_tool("cni-conformance")
    except ModuleNotFoundError as error:
        print(f"Error: the conformance suite is not here: {error}", file=sys.stderr)
        print("Hint: pip install ./tests/conformance, or use a build of this", file=sys.stderr)
        return 1
    status: int = suite.main(argv)
    return status


def _parser_of_conformance() -> argparse.ArgumentParser | None:
    """The parser of the suite's command line; None where the suite is not installed."""
    from libcni.boot import load_tool

    try:
        found: argparse.ArgumentParser = load_tool("cni-conformance").parser()
    except ModuleNotFoundError:
        return None
    return found


def _run(top: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    match options.verb:
        case None:
            top.print_help(sys.stderr)
            return 1
        case "help":
            top.print_help()
        case "version":
            print(f"cnitool {VERSION} ({NAME})")
            print(f"CNI protocol versions supported: {', '.join(SUPPORTED)}")
        case "completion":
            sys.stdout.write(script(options.shell, grammar.verbs(top, _parser_of_conformance())))
        case "validate":
            from libcni.cnitool.validation import validate

            return validate(options.paths, options.plugins)
        case "list":
            from libcni.cnitool.listing import show

            return show(options.output, options.cache_dir or "")
        case _:
            from libcni.cnitool.verbs import run

            run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
