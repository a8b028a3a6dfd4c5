# SPDX-License-Identifier: Apache-2.0
"""`cnitool list`: networks that are configured, attachments that are cached."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from libcni import conf
from libcni.cache import NetworkAttachment
from libcni.cnitool import settings
from libcni.types.errors import IO_FAILURE, CniError
from libcni.types.result import Result


def networks(directory: str) -> list[dict[str, Any]]:
    """Every configuration file, in the order runtimes take them, the broken ones with `error`."""
    found: list[dict[str, Any]] = []
    for file in conf.conf_files(directory, [".conflist", ".conf", ".json"]):
        entry: dict[str, Any] = {"file": str(file)}
        try:
            if file.suffix == ".conflist":
                network = conf.network_conf_from_file(file)
            else:
                network = conf.conf_list_from_conf(conf.conf_from_file(file))
            entry |= {
                "name": network.name,
                "cniVersion": network.cni_version or "0.1.0",
                "plugins": [plugin.type for plugin in network.plugins],
            }
        except CniError as error:
            entry["error"] = str(error).removeprefix(f"{file}: ")
        found.append(entry)
    return found


def attachments(cache_dir: str) -> list[dict[str, Any]]:
    """Every cached attachment with its addresses and whether its namespace is still there.

    `netns` and `netnsExists` are None where the cache does not name the namespace: older
    releases of Go's libcni did not note it, that of podman 4 for one.
    """
    return [_attachment(a) for a in settings.cache(cache_dir).attachments()]


def damaged(cache_dir: str) -> list[str]:
    """A sentence for each file among the cached results that cannot be read or understood.

    Raises CniError 5 when the directory cannot be listed.
    """
    results = settings.cache(cache_dir).results
    found = []
    try:
        names = sorted(os.listdir(results))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot list {results}: {error.strerror}") from None
    for name in names:
        path = results / name
        # What `fs.write_atomic` has not renamed was never an attachment.
        if name.endswith(".tmp"):
            continue
        try:
            NetworkAttachment.decode(path.read_bytes(), str(path))
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            found.append(f"cached result {path} cannot be read: {error.strerror}")
        except CniError as error:
            found.append(str(error))
    return found


def _attachment(attachment: NetworkAttachment) -> dict[str, Any]:
    try:
        addresses = [ip.address for ip in Result.from_json(attachment.result, "").ips]
    except CniError:
        addresses = []
    return {
        "network": attachment.network,
        "containerID": attachment.container_id,
        "ifname": attachment.if_name,
        "netns": attachment.netns or None,
        "netnsExists": os.path.exists(attachment.netns) if attachment.netns else None,
        "addresses": addresses,
    }


def _namespace(entry: dict[str, Any]) -> str:
    """The cell of a table; that it is gone is said only where it is known which it is."""
    if entry["netns"] is None:
        return "unknown"
    return str(entry["netns"]) if entry["netnsExists"] else f"{entry['netns']} (gone)"


def show(output: str, cache_dir: str) -> int:
    """Print all of it as tables (plain where stdout is no terminal), JSON, or mere names.

    What is wrong with a file goes to stderr. 1 when attachments are not all known, else 0.
    """
    directory = settings.configuration_directory()
    configured = networks(directory)
    if output == "names":
        for entry in configured:
            if "name" in entry:
                print(entry["name"])
        return 0
    attached: list[dict[str, Any]] = []
    try:
        attached = attachments(cache_dir)
        problems = damaged(cache_dir)
    except CniError as error:
        problems = [str(error)]
    _print_all(output, cache_dir, configured, attached, bool(problems))
    for problem in problems:
        print(f"Error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _print_all(
    output: str,
    cache_dir: str,
    configured: list[dict[str, Any]],
    attached: list[dict[str, Any]],
    is_partial: bool,
) -> None:
    directory = settings.configuration_directory()
    if output == "json":
        document = {"directory": directory, "networks": configured, "attachments": attached}
        print(json.dumps(document, indent=4, ensure_ascii=False))
        return
    for entry in configured:
        if "error" in entry:
            print(f"{entry['file']}: {entry['error']}", file=sys.stderr)
    _table(
        f"Networks in {directory}",
        ("NAME", "VERSION", "PLUGINS", "FILE"),
        [
            (
                entry.get("name", "-"),
                entry.get("cniVersion", "-"),
                ", ".join(entry.get("plugins", ())) or "unusable: see `cnitool validate`",
                os.path.basename(entry["file"]),
            )
            for entry in configured
        ],
    )
    print()
    _table(
        f"Attachments in {settings.cache(cache_dir).directory}",
        ("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "NAMESPACE"),
        [
            (
                entry["network"],
                entry["containerID"],
                entry["ifname"],
                " ".join(entry["addresses"]) or "-",
                _namespace(entry),
            )
            for entry in attached
        ],
        "none that can be read" if is_partial else "none",
    )


def _table(
    title: str, head: tuple[str, ...], rows: list[tuple[str, ...]], nothing: str = "none"
) -> None:
    if not rows:
        print(f"{title}: {nothing}")
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left")
        for name in head:
            table.add_column(name)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    print(title)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
