# SPDX-License-Identifier: Apache-2.0
"""`vxlan-overlayd [run] [OPTIONS]`, `status`, `check`, `cleanup`; and `install-cni`.

The command may follow the options too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys


def main(argv: list[str] | None = None) -> int:
    """The exit status of the command: 0, 1 for a failure, 2 for wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if getattr(sys, "frozen", False):
        from libcni import boot

        # Where the build puts the schemas, which explain what is wrong with a configuration.
        boot.configure(None, f"{sys._MEIPASS}/data", sys.executable)  # type: ignore[attr-defined]
    if os.path.basename(sys.argv[0]) == "install-cni":
        from cni_vxlan_overlay.agent import install

        return install.main(arguments)
    from cni_vxlan_overlay.agent import command_line

    try:
        command, arguments = command_line.split(arguments)
    except command_line.UnknownCommand as error:
        print(f"vxlan-overlayd: {error}", file=sys.stderr)
        return 2
    if command == "status":
        from cni_vxlan_overlay.agent import status_command

        return status_command.run(arguments)
    if command == "check":
        from cni_vxlan_overlay.agent import check_command

        return check_command.run(arguments)
    if command == "install-cni":
        from cni_vxlan_overlay.agent import install

        return install.main(arguments)
    if command in ("version", "help"):
        command, arguments = "", [f"--{command}"]
    from cni_vxlan_overlay.agent import logs, settings

    found = settings.parse(arguments, os.environ, command)
    logs.setup(found.log_format, found.log_level)
    if command == "cleanup":
        from cni_vxlan_overlay.agent.cleanup import cleanup

        return asyncio.run(cleanup(found))
    return asyncio.run(_run(found))


async def _run(found: object) -> int:
    from cni_vxlan_overlay.agent import settings
    from cni_vxlan_overlay.agent.agent import Agent
    from cni_vxlan_overlay.agent.health import Health, HealthServer
    from cni_vxlan_overlay.agent.memory import take_lock
    from cni_vxlan_overlay.agent.metrics import Metrics
    from cni_vxlan_overlay.agent.store import StoreError

    assert isinstance(found, settings.Settings)
    log = logging.getLogger(__name__)
    try:
        lock = take_lock(found.state_file)
    except BlockingIOError as error:
        log.error("%s", error)
        return 1
    try:
        store = settings.open_store(found)
    except StoreError as error:
        log.error("%s", error)
        return 1
    health = Health()
    metrics = Metrics(lambda: agent.usage())
    agent = Agent(found, store, health, metrics)
    server = HealthServer(health, metrics, found.healthz_ip, found.healthz_port)
    try:
        await server.start()
        await agent.run()
    except OSError as error:
        log.error("%s", error.strerror or error)
        return 1
    finally:
        await server.stop()
        if lock is not None:
            os.close(lock)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
