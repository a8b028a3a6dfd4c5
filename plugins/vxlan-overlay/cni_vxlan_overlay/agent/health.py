# SPDX-License-Identifier: Apache-2.0
"""What the agent says of itself over HTTP: /healthz, /readyz and /metrics.

Alive is who reconciles; a store that is away makes no agent sick, as restarting it would not
bring the store back. Ready is who has its subnet and has had the whole data path, unless it has
not been able to keep it for a while.
"""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from http import HTTPStatus

from cni_vxlan_overlay.agent.metrics import Metrics

#: Seconds without a sign of life after which the agent is not alive.
PATIENCE = 60.0
#: Seconds for which reconciliation may fail before the node is not ready any more: a device that
#: somebody removed is back long before.
FAILING = 30.0
#: Seconds that a client may take for its question.
_CLIENT_TIMEOUT = 5.0


class Health:
    """ready: the data path was whole once. reason: why it is not. degraded: what is wrong with
    the store, "" when nothing is."""

    def __init__(self) -> None:
        self.ready = False
        self.reason = "starting"
        self.degraded = ""
        self._beaten = time.monotonic()
        #: What the last passes failed by, and since when; "" when the last did not.
        self._failure, self._failing_since = "", 0.0

    def passed(self, failure: str = "") -> None:
        """A pass of the reconciler ended: "" when all is in the kernel, else what is not."""
        if failure and not self._failure:
            self._failing_since = time.monotonic()
        self._failure = failure

    def beat(self) -> None:
        """Give a sign of life."""
        self._beaten = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._beaten

    def healthz(self) -> tuple[int, str]:
        """HTTP status and words: is it alive?"""
        if self.silence > PATIENCE:
            words = f"no reconciliation for {self.silence:.0f} s"
            return HTTPStatus.SERVICE_UNAVAILABLE, words
        return HTTPStatus.OK, f"ok; {self.degraded}" if self.degraded else "ok"

    def readyz(self) -> tuple[int, str]:
        """HTTP status and words: can pods be attached?"""
        if not self.ready:
            return HTTPStatus.SERVICE_UNAVAILABLE, self.reason or "not ready"
        failure, seconds = self._failure, time.monotonic() - self._failing_since
        if failure and seconds > FAILING:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"for {seconds:.0f} s: {failure}"
        return HTTPStatus.OK, f"ok; {self.degraded}" if self.degraded else "ok"


class HealthServer:
    """Answers in threads of its own, so that what it says of the agent does not depend on it."""

    def __init__(self, health: Health, metrics: Metrics, address: str, port: int) -> None:
        """port: 0 for no server at all."""
        self._health = health
        self._metrics = metrics
        self._where = (address, port)
        self._server: http.server.ThreadingHTTPServer | None = None

    async def start(self) -> None:
        """Listen. Raises OSError, which says where it could not."""
        address, port = self._where
        if not port:
            return
        handler = type("Handler", (_Handler,), {"health": self._health, "metrics": self._metrics})
        kind = _Server6 if ":" in address else _Server
        try:
            self._server = kind((address, port), handler)
        except OSError as error:
            words = f"--healthz-ip {address} --healthz-port {port}: {error.strerror}"
            raise OSError(error.errno, words) from None
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(http.server.BaseHTTPRequestHandler):
    health: Health
    metrics: Metrics
    timeout = _CLIENT_TIMEOUT
    server_version = "vxlan-overlayd"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, self.metrics.text(), "text/plain; version=0.0.4")
        elif path in ("/healthz", "/readyz"):
            asked = self.health.healthz if path == "/healthz" else self.health.readyz
            status, words = asked()
            self._answer(status, f"{words}\n".encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/healthz, /readyz, /metrics\n")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: not for the log."""
