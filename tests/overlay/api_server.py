# SPDX-License-Identifier: Apache-2.0
"""A test server that stands in for a Kubernetes API server, for Nodes and nothing else.

It is: a real HTTP/1.1 server on a real socket that speaks the documented semantics which a client
of nodes can observe: GET, LIST with pages (limit, continue, one consistent snapshot), WATCH from a
resourceVersion (chunked JSON lines, ADDED, MODIFIED, DELETED, BOOKMARK, ERROR, timeoutSeconds),
410 Gone after compaction, merge and strategic merge PATCH of nodes/NAME and nodes/NAME/status (a
patch that changes nothing makes no new version; the status subresource leaves `spec` alone), 409,
bearer tokens (401), verbs that are refused (403), and Status objects for errors. And it fails in
every way that a test asks for: see `Faults` and the methods of `ApiServer` below `# Faults`.

It is not: an API server. It validates no objects, has no admission, no RBAC rules, no field
managers, no selectors but metadata.name, no protobuf, no HTTP/2, no watch cache of limited
size, and its versions count from 1000. A client that works against it is not thereby shown to work
against Kubernetes; it is shown to survive what Kubernetes is documented to do, and worse.

State may be changed from any thread. Run it in the test's event loop (`async with`), or in a
thread of its own on a socket bound elsewhere, say in another network namespace (`in_thread`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import datetime
import json
import socket
import ssl
import struct
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]

#: patchMergeKey of the lists in a Node that are merged (k8s.io/api/core/v1); others are replaced.
_MERGE_KEYS = {"conditions": "type", "addresses": "type", "taints": "key"}
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"


def node(
    name: str,
    *pod_cidrs: str,
    annotations: dict[str, str] | None = None,
    internal_ips: tuple[str, ...] = (),
) -> Object:
    """A Node object as a kubelet registers it, for `ApiServer.add`."""
    spec: Object = {}
    if pod_cidrs:
        spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)}
    addresses = [{"type": "InternalIP", "address": address} for address in internal_ips]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
            | (annotations or {}),
        },
        "spec": spec,
        "status": {
            "addresses": addresses + [{"type": "Hostname", "address": name}],
            "conditions": [
                {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"},
                {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            ],
            "nodeInfo": {"kernelVersion": "6.1.0", "operatingSystem": "linux"},
        },
    }


@dataclasses.dataclass(frozen=True)
class Seen:
    """A request as it came. verb: get, list, watch, patch, or "" for anything else."""

    verb: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass
class Failure:
    """An answer that is given instead of the right one, `times` times.

    code 200 with `event` is a watch that begins and says ERROR. body: sent as it is instead of a
    Status object. content_type: "" sends none.
    """

    verb: str
    code: int
    times: int = 1
    message: str = "injected"
    event: bool = False
    body: bytes | None = None
    content_type: str = "application/json"


@dataclasses.dataclass
class Faults:
    """Switches; all may be changed at any time.

    delay: seconds before the answer to a verb begins. drip: seconds between single bytes of an
    answer. mute_watches: a watch begins, and nothing ever comes. duplicate: each event is sent
    twice. end_watches: each watch is ended, cleanly, as soon as it begins. bookmarks_unasked: send
    them to who has not asked. listing: what a listing has instead of all nodes. no_version: a
    listing without resourceVersion.
    """

    delay: dict[str, float] = dataclasses.field(default_factory=dict)
    drip: float = 0.0
    mute_watches: bool = False
    duplicate: bool = False
    end_watches: bool = False
    bookmarks_unasked: bool = False
    listing: Callable[[list[Object]], list[Object]] | None = None
    no_version: bool = False


class _Answer(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = status(code, reason, message)


def status(code: int, reason: str, message: str) -> Object:
    """A Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def merge(target: Any, patch: Any, strategic: bool, key: str = "") -> Any:
    """`target` after a merge patch (RFC 7396), or a strategic merge patch of a Node."""
    if isinstance(patch, dict):
        result = dict(target) if isinstance(target, dict) else {}
        for name, value in patch.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = merge(result.get(name), value, strategic, name)
        return result
    merge_key = _MERGE_KEYS.get(key)
    if strategic and isinstance(patch, list) and isinstance(target, list) and merge_key:
        merged = list(target)
        for item in patch:
            at = next(
                (i for i, old in enumerate(merged) if old.get(merge_key) == item.get(merge_key)),
                None,
            )
            if item.get("$patch") == "delete":
                merged = [old for i, old in enumerate(merged) if i != at]
            elif at is None:
                merged.append(item)
            else:
                merged[at] = merge(merged[at], item, strategic)
        return merged
    return patch


class _Watcher:
    """One watch: what is to be sent on it, in order. None ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bookmarks: bool) -> None:
        self._loop = loop
        self.bookmarks = bookmarks
        self.queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()

    def put(self, item: bytes | BaseException | None) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.queue.put_nowait, item)


class _Drop(Exception):
    """The connection is to be cut: by RST, or by FIN in the midst of the answer."""

    def __init__(self, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class ApiServer:
    """The server. Its `faults` and most methods may be used while it serves."""

    def __init__(self, *, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        """token: the bearer token that requests must have; "" for none. tls: serve https."""
        self.faults = Faults()
        self.token = token
        self._tls = tls
        #: Verbs that are refused with 403.
        self.forbidden: set[str] = set()
        #: Every request, in the order of arrival.
        self.requests: list[Seen] = []
        self._lock = threading.RLock()
        self._version = 1000
        self._compacted = 0
        self._nodes: dict[str, Object] = {}
        self._history: list[tuple[int, str, Object]] = []
        self._snapshots: dict[int, list[Object]] = {}
        self._failures: list[Failure] = []
        self._watchers: set[_Watcher] = set()
        self._held: list[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] = ("127.0.0.1", 0)
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    # Life

    @property
    def url(self) -> str:
        """Where it listens, "http://127.0.0.1:40001"."""
        host, port = self._address
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self, host: str = "127.0.0.1", sock: socket.socket | None = None) -> None:
        """Listen on a port of the kernel's choice (the same again after `stop`), or on a bound
        socket."""
        self._loop = asyncio.get_running_loop()
        if sock is not None:
            self._server = await asyncio.start_server(self._serve, sock=sock, ssl=self._tls)
        else:
            port = self._address[1]
            self._server = await asyncio.start_server(self._serve, host, port, ssl=self._tls)
        self._address = self._server.sockets[0].getsockname()[:2]

    async def stop(self) -> None:
        """Refuse connections and cut those there are; the nodes stay. `start` begins anew."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = dict(self._connections)
        for writer in connections.values():
            writer.transport.abort()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    async def __aenter__(self) -> ApiServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # State

    @property
    def version(self) -> int:
        """The resourceVersion of the whole."""
        return self._version

    def get(self, name: str) -> Object:
        """A copy of a node. Raises KeyError."""
        with self._lock:
            return copy.deepcopy(self._nodes[name])

    def annotations(self, name: str) -> dict[str, str]:
        """The annotations of a node."""
        found: dict[str, str] = self.get(name)["metadata"].get("annotations", {})
        return found

    def add(self, new: Object, created: str = "") -> Object:
        """Create a node; uid, creationTimestamp and resourceVersion are the server's."""
        with self._lock:
            name = new["metadata"]["name"]
            assert name not in self._nodes, f"node {name} exists"
            made = copy.deepcopy(new)
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            made["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": created or now}
            return self._commit("ADDED", made)

    def change(self, name: str, patch: Object) -> Object:
        """Change a node as by a strategic merge patch, status and all."""
        with self._lock:
            return self._commit("MODIFIED", merge(self.get(name), patch, strategic=True))

    def annotate(self, name: str, annotations: dict[str, str | None]) -> Object:
        """Set and (None) remove annotations of a node."""
        return self.change(name, {"metadata": {"annotations": annotations}})

    def delete(self, name: str) -> Object:
        """Delete a node; returns its last state, which has the version of the deletion."""
        with self._lock:
            return self._commit("DELETED", self.get(name))

    def _commit(self, kind: str, new: Object) -> Object:
        """Make `new` the state, with a new version, and tell the watchers."""
        self._version += 1
        new["metadata"]["resourceVersion"] = str(self._version)
        name = new["metadata"]["name"]
        if kind == "DELETED":
            del self._nodes[name]
        else:
            self._nodes[name] = new
        self._history.append((self._version, kind, new))
        self._send(event_line(kind, new))
        return copy.deepcopy(new)

    def _send(self, line: bytes) -> None:
        if self._held is not None:
            self._held.append(line)
            return
        for watcher in self._watchers:
            for _ in range(2 if self.faults.duplicate else 1):
                watcher.put(line)

    # Faults

    def fail(self, verb: str, code: int, times: int = 1, **how: Any) -> None:
        """Answer the next `times` requests of a verb so; see `Failure`."""
        with self._lock:
            self._failures.append(Failure(verb, code, times, **how))

    def compact(self) -> None:
        """Forget all history and all begun listings: older watches and continues get 410."""
        with self._lock:
            self._history.clear()
            self._snapshots.clear()
            self._compacted = self._version

    def skip_versions(self, count: int) -> None:
        """As if other objects had changed `count` times."""
        with self._lock:
            self._version += count

    def hold(self) -> None:
        """Keep events back from the watches there are, until `release`."""
        with self._lock:
            self._held = []

    def release(self, order: Callable[[list[bytes]], list[bytes]] = lambda lines: lines) -> None:
        """Send what was held back; in another order, or with some left out or repeated."""
        with self._lock:
            lines, self._held = self._held or [], None
            for line in order(lines):
                self._send(line)

    def send_raw(self, data: bytes) -> None:
        """Send bytes to all watches, as one chunk: half a line, nonsense, an old event."""
        with self._lock:
            for watcher in self._watchers:
                watcher.put(data)

    def send_event(self, kind: str, what: Object) -> None:
        """Send an event that is not part of the state."""
        self.send_raw(event_line(kind, what))

    def send_gone(self) -> None:
        """Say 410 Gone on all watches, as an ERROR event."""
        self.send_event(
            "ERROR", status(410, "Expired", f"too old resource version ({self.version})")
        )

    def bookmark(self) -> None:
        """Send a BOOKMARK to the watches that asked for them."""
        with self._lock:
            line = bookmark_line(self._version)
            for watcher in self._watchers:
                if watcher.bookmarks or self.faults.bookmarks_unasked:
                    watcher.put(line)

    def drop_watches(self, before: bytes = b"", *, reset: bool = False) -> None:
        """Send these bytes on all watches, then cut their connections in the midst of the answer.

        reset: by RST, which may overtake the bytes, rather than FIN.
        """
        with self._lock:
            for watcher in self._watchers:
                watcher.put(before)
                watcher.put(_Drop(reset))

    def end_watches(self, before: bytes = b"") -> None:
        """Send these bytes on all watches, then end them cleanly."""
        with self._lock:
            for watcher in self._watchers:
                watcher.put(before)
                watcher.put(None)

    def watching(self) -> int:
        """How many watches there are."""
        return len(self._watchers)

    def count(self, verb: str) -> int:
        """How many requests of this verb came."""
        return sum(seen.verb == verb for seen in self.requests)

    # HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while (seen := await self._receive(reader)) is not None:
                self.requests.append(seen)
                await self._respond(seen, reader, writer)
        except _Drop as drop:
            if drop.reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # by `stop`, which waits for us
        finally:
            del self._connections[task]
            writer.close()

    @staticmethod
    async def _receive(reader: asyncio.StreamReader) -> Seen | None:
        """The next request, None at the end of the connection."""
        head = await reader.readline()
        if not head:
            return None
        method, target, _ = head.decode().split()
        headers: dict[str, str] = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        verb = ""
        if parts[:3] == ["api", "v1", "nodes"]:
            if len(parts) == 3 and method == "GET":
                verb = "watch" if query.get("watch") in ("true", "1") else "list"
            elif method in ("GET", "PATCH"):
                verb = method.lower()
        return Seen(verb, method, "/".join(parts), query, headers, body)

    async def _respond(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await asyncio.sleep(self.faults.delay.get(seen.verb, 0.0))
        failure = self._failure(seen.verb)
        try:
            if failure is not None and not failure.event:
                if failure.body is not None:
                    await self._write(writer, failure.code, failure.body, failure.content_type)
                    return
                raise _Answer(failure.code, _REASONS[failure.code], failure.message)
            self._authorize(seen)
            if seen.verb == "watch":
                await self._watch(seen, reader, writer, failure)
                return
            answer = {"list": self._list, "get": self._get, "patch": self._patch}.get(seen.verb)
            if answer is None:
                raise _Answer(404, "NotFound", "the server could not find the requested resource")
            code, document = 200, answer(seen)
        except _Answer as other:
            code, document = other.code, other.body
        await self._write(writer, code, json.dumps(document).encode() + b"\n", "application/json")

    def _failure(self, verb: str) -> Failure | None:
        with self._lock:
            for failure in self._failures:
                if failure.verb == verb and failure.times > 0:
                    failure.times -= 1
                    return failure
        return None

    def _authorize(self, seen: Seen) -> None:
        if self.token and seen.headers.get("authorization") != f"Bearer {self.token}":
            raise _Answer(401, "Unauthorized", "Unauthorized")
        if seen.verb in self.forbidden:
            message = f'nodes is forbidden: User "test" cannot {seen.verb} resource "nodes"'
            raise _Answer(403, "Forbidden", message)

    async def _write(
        self, writer: asyncio.StreamWriter, code: int, body: bytes, content_type: str
    ) -> None:
        head = f"HTTP/1.1 {code} {_REASONS.get(code, 'OK')}\r\nContent-Length: {len(body)}\r\n"
        if content_type:
            head += f"Content-Type: {content_type}\r\n"
        await self._transmit(writer, head.encode() + b"\r\n" + body)

    async def _transmit(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.faults.drip:
            for at in range(len(data)):
                writer.write(data[at : at + 1])
                await writer.drain()
                await asyncio.sleep(self.faults.drip)
            return
        writer.write(data)
        await writer.drain()

    # Verbs

    def _find(self, seen: Seen) -> Object:
        name = seen.path.split("/")[3]
        if name not in self._nodes:
            raise _Answer(404, "NotFound", f'nodes "{name}" not found')
        return self.get(name)

    def _get(self, seen: Seen) -> Object:
        with self._lock:
            return self._find(seen)

    def _list(self, seen: Seen) -> Object:
        with self._lock:
            first, version = "", self._version
            if token := seen.query.get("continue"):
                version, first = json.loads(base64.urlsafe_b64decode(token))
                if version not in self._snapshots:
                    raise _Answer(
                        410, "Expired", "The provided continue parameter is too old to continue"
                    )
            else:
                self._snapshots[version] = [self.get(name) for name in sorted(self._nodes)]
            nodes = [n for n in self._snapshots[version] if n["metadata"]["name"] >= first]
            selector = seen.query.get("fieldSelector", "")
            if selector.startswith("metadata.name="):
                nodes = [n for n in nodes if n["metadata"]["name"] == selector[14:]]
            if self.faults.listing is not None:
                nodes = self.faults.listing(nodes)
            limit = int(seen.query.get("limit", "0")) or len(nodes)
            meta: Object = {} if self.faults.no_version else {"resourceVersion": str(version)}
            if len(nodes) > limit:
                following = json.dumps([version, nodes[limit]["metadata"]["name"]])
                meta["continue"] = base64.urlsafe_b64encode(following.encode()).decode()
                meta["remainingItemCount"] = len(nodes) - limit
            # As Kubernetes has it: the items of a typed list do not say their kind.
            inner = ("metadata", "spec", "status")
            items = [{k: n[k] for k in inner if k in n} for n in nodes[:limit]]
            return {"kind": "NodeList", "apiVersion": "v1", "metadata": meta, "items": items}

    def _patch(self, seen: Seen) -> Object:
        with self._lock:
            old = self._find(seen)
            kind = seen.headers.get("content-type")
            if kind not in (_MERGE, _STRATEGIC):
                raise _Answer(415, "UnsupportedMediaType", f"patch of type {kind}")
            try:
                patch = json.loads(seen.body)
            except ValueError as error:
                raise _Answer(400, "BadRequest", str(error)) from None
            meta = patch.get("metadata", {})
            for key in ("uid", "resourceVersion"):
                if meta.get(key, old["metadata"][key]) != old["metadata"][key]:
                    raise _Answer(409, "Conflict", f"the object has been modified ({key})")
            new: Object = merge(old, patch, strategic=kind == _STRATEGIC)
            if seen.path.endswith("/status"):
                new["spec"] = old.get("spec", {})
            values = new["metadata"].get("annotations", {}).values()
            if not all(isinstance(value, str) for value in values):
                raise _Answer(422, "Invalid", "metadata.annotations: strings are expected")
            return old if new == old else self._commit("MODIFIED", new)

    async def _watch(
        self,
        seen: Seen,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        failure: Failure | None,
    ) -> None:
        """Answer with events until the time is over, or a fault ends it."""
        assert self._loop is not None
        watcher = _Watcher(self._loop, seen.query.get("allowWatchBookmarks") == "true")
        since = seen.query.get("resourceVersion") or "0"
        with self._lock:
            past: list[bytes] = []
            if failure is not None:
                code = failure.code if failure.code != 200 else 410
                past = [event_line("ERROR", status(code, _REASONS[code], failure.message))]
                watcher.put(None)
            elif since == "0":
                past = [event_line("ADDED", self._nodes[name]) for name in sorted(self._nodes)]
            elif int(since) < self._compacted:
                message = f"too old resource version: {since} ({self._compacted})"
                raise _Answer(410, "Expired", message)
            else:
                past = [event_line(k, o) for v, k, o in self._history if v > int(since)]
            if self.faults.end_watches:
                watcher.put(None)
            if not self.faults.mute_watches:
                self._watchers.add(watcher)
        try:
            head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            await self._transmit(writer, (head + "Transfer-Encoding: chunked\r\n\r\n").encode())
            for line in past:
                await self._chunk(writer, line)
            seconds = float(seen.query.get("timeoutSeconds", "3600"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while (item := await self._next(watcher, reader)) is not None:
                        if isinstance(item, BaseException):
                            raise item
                        await self._chunk(writer, item)
        finally:
            with self._lock:
                self._watchers.discard(watcher)
        await self._transmit(writer, b"0\r\n\r\n")

    @staticmethod
    async def _next(
        watcher: _Watcher, reader: asyncio.StreamReader
    ) -> bytes | BaseException | None:
        """What to send next, or a _Drop when the client has gone."""
        item, gone = (
            asyncio.ensure_future(watcher.queue.get()),
            asyncio.ensure_future(reader.read(1)),
        )
        try:
            await asyncio.wait((item, gone), return_when=asyncio.FIRST_COMPLETED)
            return item.result() if item.done() else _Drop(reset=False)
        finally:
            item.cancel()
            gone.cancel()
            await asyncio.gather(item, gone, return_exceptions=True)

    async def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            await self._transmit(writer, b"%x\r\n%s\r\n" % (len(data), data))


def event_line(kind: str, what: Object) -> bytes:
    """An event as a watch sends it."""
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def bookmark_line(version: int) -> bytes:
    """A BOOKMARK: a Node that has nothing but a version."""
    meta = {"resourceVersion": str(version), "creationTimestamp": None}
    empty = {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": {}, "status": {}}
    return event_line("BOOKMARK", empty)


@contextlib.contextmanager
def in_thread(server: ApiServer, sock: socket.socket | None = None) -> Iterator[ApiServer]:
    """Serve from a thread of its own until the block ends.

    sock: bound, not listening yet; made in the network namespace where the server is to be.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="api-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(sock=sock), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition is true. Raises TimeoutError after these seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
