# SPDX-License-Identifier: Apache-2.0
"""The connection to the Kubernetes API: lightkube's client, and what it leaves open around it.

lightkube lists, watches, patches and authenticates (token files are read again when they
change). Added here: an end to every wait, a pause between watches, bookmarks, the address that was
reached, and one translation of all that can go wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Any, TypeVar

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User
from lightkube.core.async_client import AsyncClient
from lightkube.core.exceptions import ApiError, ConfigError, NotReadyError
from lightkube.core.resource import ApiInfo
from lightkube.generic_resource import (
    GenericGlobalResource,
    GenericGlobalStatus,
    create_api_info,
)

from cni_vxlan_overlay.agent.store import StoreError, Unavailable

T = TypeVar("T")

_NODES = create_api_info("", "v1", "Node", "nodes")

#: The rest of an answer that has begun must come in this time, seconds.
_ANSWER_SECONDS = 60.0
#: A server may end a watch this much later than it was asked to, seconds.
_WATCH_GRACE = 30.0
#: Between the beginnings of two watches, seconds: a server that ends each at once is not run over.
_WATCH_PAUSE = 1.0
#: A server that vanished is noticed within half a minute, though a watch has nothing to send.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


class _Metadata:
    """What lightkube's watch looks at in each object: the version to go on from."""

    def __init__(self, value: object) -> None:
        found = value.get("resourceVersion") if isinstance(value, dict) else None
        self.resourceVersion = found if isinstance(found, str) else None


class NodeStatus(GenericGlobalStatus):
    """nodes/status as plain JSON."""

    _api_info = ApiInfo(
        resource=_NODES.resource,
        parent=_NODES.resource,
        plural="nodes",
        verbs=["get", "patch"],
        action="status",
    )


class NodeObject(GenericGlobalResource):
    """A Node as plain JSON: one odd field in one node must not spoil a whole listing, as it does
    with lightkube's typed models, and nothing is built of what nobody reads."""

    _api_info = _NODES

    @property
    def metadata(self) -> Any:
        """Its resourceVersion, for lightkube."""
        return _Metadata(self.get("metadata"))


#: What lightkube raises for configurations, whose structure it takes for granted.
_UNUSABLE = (ConfigError, OSError, LookupError, TypeError, AttributeError, msgspec.MsgspecError)


def load_config(api_url: str, kubeconfig: str) -> SingleConfig:
    """Where the API server is and who we are, from the first of these that there is.

    kubeconfig: a file; with api_url, its server is replaced. api_url alone: nobody in particular.
    Neither: the pod's service account, $KUBECONFIG, ~/.kube/config. Raises StoreError.
    """
    try:
        if kubeconfig:
            config = KubeConfig.from_file(kubeconfig).get()
        elif api_url:
            config = KubeConfig.from_one(cluster=Cluster(server=api_url), user=User()).get()
        else:
            config = KubeConfig.from_env().get()
    except _UNUSABLE as error:
        source = kubeconfig or "in-cluster, $KUBECONFIG or ~/.kube/config"
        raise StoreError(
            f"no usable Kubernetes configuration ({source}): {_said(error)}; run in a pod with a "
            "service account, or give a kubeconfig file or the API server's URL"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise StoreError(f"kubeconfig {kubeconfig} cannot be read: {_said(error)}") from error
    if config is None:
        raise StoreError(f"kubeconfig {kubeconfig} has no current-context")
    if kubeconfig and api_url:
        config = config._replace(cluster=msgspec.structs.replace(config.cluster, server=api_url))
    return config if config.user else config._replace(user=User())


class Transport(httpx2.AsyncHTTPTransport):
    """HTTP with an end to every wait.

    Proxies of the environment are not used: their NO_PROXY knows no networks, and the address
    of the API server in a cluster is one.
    """

    def __init__(self, verify: ssl.SSLContext, timeout: float, watch_seconds: int) -> None:
        """timeout: seconds until an answer begins. watch_seconds: length of a watch."""
        super().__init__(verify=verify, trust_env=False, socket_options=KEEPALIVE)
        self._timeout = timeout
        self._watch_seconds = watch_seconds
        self._next_watch = 0.0
        #: The address that answered last, "" before.
        self.server = ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and return the answer as it begins. Raises httpx2.HTTPError."""
        loop = asyncio.get_running_loop()
        seconds = _ANSWER_SECONDS
        if request.url.params.get("watch") == "true":
            await asyncio.sleep(self._next_watch - loop.time())
            self._next_watch = loop.time() + _WATCH_PAUSE
            seconds = self._watch_seconds + _WATCH_GRACE
            # lightkube has no parameter for it. Bookmarks keep the version to go on from fresh.
            request.url = request.url.copy_merge_params({"allowWatchBookmarks": "true"})
        try:
            async with asyncio.timeout(self._timeout):
                response = await super().handle_async_request(request)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no answer within {self._timeout:g} s") from None
        stream = response.extensions.get("network_stream")
        address = stream.get_extra_info("server_addr") if stream is not None else None
        if address:
            self.server = address[0]
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, loop.time() + seconds)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, which must be there by a time, however slowly it drips."""

    def __init__(self, stream: httpx2.AsyncByteStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx2.ReadTimeout("the answer did not come to its end") from None
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def connect(
    config: SingleConfig, timeout: float, watch_seconds: int
) -> tuple[AsyncClient, Transport]:
    """A client, and its transport. Connects when it is used. Raises StoreError for unusable keys
    or certificates."""
    assert config.user is not None
    try:
        verify = verify_cluster(config.cluster, config.user, config.abs_file)
        transport = Transport(verify, timeout, watch_seconds)
        client = AsyncClient(
            config, timeout=httpx2.Timeout(timeout), trust_env=False, transport=transport
        )
    except (*_UNUSABLE, ValueError) as error:
        raise StoreError(
            f"certificates, keys or user of the Kubernetes configuration: {_said(error)}"
        ) from error
    return client, transport


class Expired(Unavailable):
    """410 Gone: the version asked for is not kept any more."""


class NotFound(StoreError):
    """404: there is no such object."""


class Conflict(Unavailable):
    """409: somebody else wrote at the same time."""


_BY_CODE: dict[int, type[StoreError]] = {404: NotFound, 409: Conflict, 410: Expired}
_HINTS = {
    401: "is the token or certificate valid?",
    403: "the agent's role needs get, list and watch on nodes and patch on nodes/status",
}


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what lightkube and httpx2 raise into a StoreError: one of those above, or Unavailable.

    doing: begins the message. Refusals (401, 403) are Unavailable, too: a server that starts
    refuses for a while what it grants later.
    """
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.status if isinstance(error, ApiError) else None
        code = (status and status.code) or (error.response.status_code if _answered(error) else 0)
        reason = (status and status.message) or _said(error)
        if code in _BY_CODE:
            raise _BY_CODE[code](f"{doing}: {reason}") from error
        hint = f"; {_HINTS[code]}" if code in _HINTS else ""
        kind = StoreError if code in (400, 405, 415, 422) else Unavailable
        raise kind(f"{doing}: API server says {code} {reason}{hint}") from error
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
        raise Unavailable(f"{doing}: API server is not reached: {_said(error)}") from error
    except (ConfigError, httpx2.InvalidURL) as error:
        raise StoreError(f"{doing}: {_said(error)}") from error
    except (msgspec.MsgspecError, NotReadyError, ValueError, TypeError, KeyError) as error:
        # lightkube looks for keys and decodes without asking, whatever a proxy in between says.
        raise Unavailable(
            f"{doing}: the answer is not the Kubernetes API's: {_said(error)}"
        ) from error


async def relayed(items: AsyncIterable[T], doing: str) -> AsyncGenerator[T, None]:
    """The items of one of lightkube's iterations, with what goes wrong in it `translated`, and
    its connection given back when this generator is closed."""
    iterator = aiter(items)
    try:
        with translated(doing):
            async for item in iterator:
                yield item
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def _answered(error: httpx2.HTTPStatusError) -> bool:
    """False for an error event of a watch, which has no response of its own."""
    return getattr(error, "response", None) is not None


def _said(error: BaseException) -> str:
    """The error as text on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
