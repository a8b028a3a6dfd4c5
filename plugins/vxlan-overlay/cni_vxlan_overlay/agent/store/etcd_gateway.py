# SPDX-License-Identifier: Apache-2.0
"""etcd's JSON gateway by HTTP: several endpoints, TLS, users, and one meaning for each failure.

Source: etcd's documentation, "gRPC gateway" and "API reference"; numbers are text in it, keys and
values base64, and what is zero is left out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx2

from cni_vxlan_overlay.agent.store import StoreError, Unavailable
from cni_vxlan_overlay.agent.store.api_client import KEEPALIVE

#: google.golang.org/grpc/codes
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, OUT_OF_RANGE = 3, 5, 7, 11
FAILED_PRECONDITION, UNAUTHENTICATED = 9, 16
_REFUSALS = (
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    FAILED_PRECONDITION,
    OUT_OF_RANGE,
    UNAUTHENTICATED,
)
#: Of a token that was issued before users or roles changed; its code is INVALID_ARGUMENT.
_OLD_TOKEN = "revision of auth store is old"
#: Makes etcd end a watch at a member that has lost its leader, and would tell of nothing.
_REQUIRE_LEADER = {"Grpc-Metadata-hasleader": "true"}
#: Bytes of one line of a watch; etcd itself sends at most 1.5 MiB at once unless told otherwise.
_LINE = 64 << 20


class Refused(StoreError):
    """etcd understood and refused. code: gRPC's."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


class Gateway:
    """The endpoints as one server. To be used in one event loop; connects when it is used."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        cafile: str = "",
        certfile: str = "",
        keyfile: str = "",
        username: str = "",
        password: str = "",
        timeout: float = 10.0,
    ) -> None:
        """timeout: seconds until an endpoint answers, after which the next is tried.

        Raises StoreError for no endpoints, or certificates and keys that cannot be used.
        """
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        if not self._endpoints:
            raise StoreError("--etcd-endpoints names no endpoint")
        for endpoint in self._endpoints:
            _check_url(endpoint)
        self._user = (username, password)
        self._timeout = timeout
        self._token = ""
        self._client: httpx2.AsyncClient | None = None
        self._verify = _tls(cafile, certfile, keyfile)

    async def close(self) -> None:
        """Close connections. Idempotent; they are opened again when needed."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, method: str, document: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request. method: as in the path, "kv/range".

        Raises Refused, or Unavailable when none of the endpoints answers; both name endpoints,
        method and key.
        """
        failures = []
        for endpoint in list(self._endpoints):
            try:
                found = await self._ask(endpoint, method, document)
            except Unavailable as error:
                failures.append(str(error))
                # The next request begins with another one.
                self._endpoints.remove(endpoint)
                self._endpoints.append(endpoint)
            else:
                return found
        raise Unavailable("; ".join(failures))

    async def _ask(self, endpoint: str, method: str, document: dict[str, Any]) -> dict[str, Any]:
        what = f"{endpoint}: {_about(method, document)}"
        for attempt in (1, 2):
            headers = await self._headers(endpoint)
            response = await self._post(what, f"{endpoint}/v3/{method}", document, headers)
            try:
                return _answer(what, response.status_code, response.content)
            except Refused as error:
                expired = error.code == UNAUTHENTICATED or _OLD_TOKEN in str(error)
                if not expired or attempt == 2 or not self._user[0]:
                    raise
                self._token = ""
        raise AssertionError("unreachable")

    async def _post(
        self, what: str, url: str, document: dict[str, Any], headers: dict[str, str]
    ) -> httpx2.Response:
        """The whole response. what: for messages. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connected().post(url, json=document, headers=headers)
        except TimeoutError as error:
            raise Unavailable(f"{what}: no answer within {self._timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise Unavailable(f"{what}: {_said(error)}") from error

    async def stream(
        self, method: str, document: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answers to a request that has many, one line each, until the connection ends.

        From the endpoint that answered last. Raises Unavailable, Refused.
        """
        endpoint = self._endpoints[0]
        what = f"{endpoint}: {method}"
        headers = await self._headers(endpoint) | _REQUIRE_LEADER
        forever = httpx2.Timeout(self._timeout, read=None)
        # Nothing may happen for hours, but etcd says at once that it watches.
        begin = asyncio.timeout(self._timeout)
        try:
            async with (
                begin,
                self._connected().stream(
                    "POST",
                    f"{endpoint}/v3/{method}",
                    json=document,
                    headers=headers,
                    timeout=forever,
                ) as response,
            ):
                if response.status_code != 200:
                    content = await response.aread()
                    _answer(what, response.status_code, content)
                    raise Unavailable(f"{what}: status {response.status_code}")
                rest = b""
                async for chunk in response.aiter_bytes():
                    begin.reschedule(None)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _answer(what, 200, line)
                    if len(rest) > _LINE:
                        raise Unavailable(f"{what}: a line of more than {_LINE} bytes")
        except TimeoutError as error:
            raise Unavailable(f"{what}: no answer within {self._timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise Unavailable(f"{what}: {_said(error)}") from error
        raise Unavailable(f"{what}: the connection ended")

    async def _headers(self, endpoint: str) -> dict[str, str]:
        name, password = self._user
        if not name:
            return {}
        if not self._token:
            what, document = f"{endpoint}: user {name!r}", {"name": name, "password": password}
            response = await self._post(what, f"{endpoint}/v3/auth/authenticate", document, {})
            try:
                found = _answer(what, response.status_code, response.content)
            except Refused as error:
                if error.code != FAILED_PRECONDITION:
                    raise
                return {}  # users are not enabled (yet), so everybody may
            self._token = str(found.get("token", ""))
        return {"Authorization": self._token}

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            # Proxies of the environment are for the world outside.
            transport = httpx2.AsyncHTTPTransport(
                verify=self._verify, trust_env=False, socket_options=KEEPALIVE
            )
            self._client = httpx2.AsyncClient(
                transport=transport, timeout=self._timeout, trust_env=False
            )
        return self._client


def _tls(cafile: str, certfile: str, keyfile: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cafile or None)
        if certfile:
            context.load_cert_chain(certfile, keyfile or None)
    except (OSError, ValueError) as error:
        files = ", ".join(filter(None, (cafile, certfile, keyfile)))
        raise StoreError(f"certificates for etcd ({files}): {error}") from error
    return context


def _check_url(endpoint: str) -> None:
    """Raise StoreError for what is no URL of a server."""
    if not endpoint.startswith(("http://", "https://")):
        raise StoreError(f"--etcd-endpoints: {endpoint!r} does not begin with http(s)://")
    try:
        url = httpx2.URL(endpoint)
    except httpx2.InvalidURL as error:
        raise StoreError(f"--etcd-endpoints: {endpoint!r}: {error}") from None
    if not url.host or not 0 < (url.port or 1) < 65536:
        raise StoreError(f"--etcd-endpoints: {endpoint!r} names no host, or no port there can be")


def _about(method: str, document: dict[str, Any]) -> str:
    """The method, and the key it is about, if any; for messages."""
    compared = document.get("compare") or [document]
    key = compared[0].get("key")
    return f"{method} {decoded(key).decode(errors='replace')}" if key else method


def _answer(what: str, status: int, content: bytes) -> dict[str, Any]:
    """The JSON object of an answer. what: was asked, for messages.

    Raises Refused or Unavailable for anything else.
    """
    document = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(content)
    if not isinstance(document, dict):
        raise Unavailable(f"{what}: the answer (status {status}) is not etcd's")
    error = document.get("error")
    if status == 200 and not error:
        return document
    details = error if isinstance(error, dict) else document
    code = details.get("grpc_code", details.get("code"))
    words = str(details.get("message") or details.get("error") or f"status {status}")
    if code in _REFUSALS:
        raise Refused(f"{what}: {words}", int(code))
    raise Unavailable(f"{what}: {words}")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def encoded(value: str | bytes) -> str:
    """A key or value as the gateway has it."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def decoded(value: object) -> bytes:
    """The inverse. Raises Unavailable for what is no base64."""
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except ValueError:
        raise Unavailable(f"etcd's answer has {value!r} where base64 belongs") from None


def number(value: object) -> int:
    """A number, which is text in the gateway's answers, 0 when it is not there."""
    try:
        return int(value) if isinstance(value, str | int) else 0
    except ValueError:
        raise Unavailable(f"etcd's answer has {value!r} where a number belongs") from None
