"""Media from other hosts: only from those that are allowed, only from public addresses, and only so many bytes.

A URL is read by one parser, and what is fetched is what that parser understood. Its host is resolved once, every address is
looked at, and one of them is dialled, so that nobody can answer differently a second time. Each redirect is a URL like the first.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import (
    InvalidConfigError,
    MediaFetchError,
    MediaForbiddenError,
    MediaTooLargeError,
    MediaUnsupportedError,
)
from .halt import Halt
from .source import Kind

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 20.0
MAX_REDIRECTS = 3
MAX_URL_CHARS = 8192
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_CARRIED = [ipaddress.IPv6Network(n) for n in ("64:ff9b::/96", "2002::/16", "2001::/32", "::ffff:0:0/96", "::/96")]
"""Networks of IPv6 whose addresses hold one of IPv4."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class MediaFetcher:
    """Fetches media. May be used from several threads.

    Args:
        hosts: From where: `"images.example.com"`, or with a port other than the scheme's own `"images.example.com:8443"`.
            None at all: nothing is fetched.
        networks: Private networks, as `"10.1.0.0/16"`, that these hosts may be in nevertheless.
        resolve: Host and port → addresses.

    Raises:
        InvalidConfigError: A host or network is none.
    """

    def __init__(self, hosts: Sequence[str] = (), networks: Sequence[str] = (), *, resolve: Resolver = resolve) -> None:
        self._places = frozenset(_place(host) for host in hosts)
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as e:
            raise InvalidConfigError(f"allowed_media_networks: {e}", param="allowed_media_networks") from None
        self._resolve = resolve

    def __bool__(self) -> bool:
        """Whether anything may be fetched."""
        return bool(self._places)

    def check(self, url: str, kind: Kind) -> None:
        """Refuse a URL of which nothing may be fetched whatever its host's addresses are; asks nobody.

        Raises:
            MediaForbiddenError: It is such a one.
        """
        self._allowed(_parsed(_client_library(), url, kind), kind)

    def fetch(self, url: str, kind: Kind, most: int, halt: Halt | None = None) -> bytes:
        """The bytes at a URL.

        Args:
            url: `http:` or `https:`.
            kind: Of medium, for messages.
            most: Bytes.
            halt: Ends it from another thread.

        Raises:
            MediaForbiddenError: They may not come from there, or from where that leads.
            MediaTooLargeError: They are more than `most`.
            MediaFetchError: They did not come.
        """
        halt = halt or Halt()
        with halt.after(TOTAL_SECONDS):  # a host that trickles its headers is always in time with the next byte
            return self._fetch(url, kind, most, halt, time.monotonic() + TOTAL_SECONDS)

    def _fetch(self, url: str, kind: Kind, most: int, halt: Halt, deadline: float) -> bytes:
        httpx2 = _client_library()
        place = _parsed(httpx2, url, kind)
        for _ in range(MAX_REDIRECTS + 1):
            addresses = self._checked(place, kind)
            try:
                leads_to, body = self._get(httpx2, place, addresses[0], kind, most, halt, deadline)
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as e:
                slow = isinstance(e, httpx2.TimeoutException) or halt.is_set
                what = "did not answer in time" if slow else "could not be reached, or broke off"
                raise _failed(f"the host of this {kind.noun} {what}; try again, or send a data: URI", kind) from e
            if leads_to is None:
                return body
            if place.scheme == "https" and leads_to.scheme == "http":
                raise _forbidden(f"this {kind.noun}'s URL leads from https: to http:", kind)
            place = leads_to
        raise _failed(f"this {kind.noun}'s URL leads on more than {MAX_REDIRECTS} times", kind)

    def _allowed(self, url: httpx2.URL, kind: Kind) -> tuple[str, int]:
        """Host and port of a URL, which are among those that are allowed."""
        if url.scheme not in _PORTS:
            raise _forbidden(f"{kind.noun}s are not fetched from {url.scheme[:20]}: URLs", kind)
        if url.userinfo:
            raise _forbidden(f"a {kind.noun}'s URL has no user and no password", kind)
        host, port = url.raw_host.decode("ascii").lower(), url.port or _PORTS[url.scheme]
        if (host, port) not in self._places and not (port == _PORTS[url.scheme] and (host, None) in self._places):
            raise _forbidden(
                f"{kind.noun}s are not fetched from this host; send a data: URI, or have the host allowed", kind
            )
        return host, port

    def _checked(self, url: httpx2.URL, kind: Kind) -> Sequence[str]:
        """The addresses of a URL's host, all of which may be dialled."""
        host, port = self._allowed(url, kind)
        try:
            addresses = self._resolve(host, port)
        except OSError as e:
            raise _failed(f"the host of this {kind.noun} has no address", kind) from e
        if not addresses or not all(self._may_dial(address) for address in addresses):
            raise _forbidden(f"the host of this {kind.noun} is in a network that nothing is fetched from", kind)
        return addresses

    def _may_dial(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if any(address in network for network in self._networks):
            return True
        return all(a.is_global and not a.is_multicast and not a.is_reserved for a in _with_carried(address))

    def _get(
        self, httpx2: Any, url: httpx2.URL, address: str, kind: Kind, most: int, halt: Halt, deadline: float
    ) -> tuple[httpx2.URL | None, bytes]:
        """One request to one address: where it leads, or what it brings."""
        left = deadline - time.monotonic()
        if left <= 0 or halt.is_set:
            raise httpx2.ReadTimeout("no time is left")
        timeout = httpx2.Timeout(left, connect=min(CONNECT_SECONDS, left))
        headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", "User-Agent": "engine"}
        client = httpx2.Client(trust_env=False, follow_redirects=False, timeout=timeout)
        with client, halt.watching() as trace:
            extensions = {"sni_hostname": url.host, "trace": trace}
            request = client.build_request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)
            response = client.send(request, stream=True)
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return _parsed(httpx2, str(url.join(response.headers["location"])), kind), b""
                _check_answer(response, kind, most)
                return None, _read(httpx2, response, kind, most, halt)
            finally:
                response.close()


def _parsed(library: Any, text: str, kind: Kind) -> httpx2.URL:
    """A URL as the client understands it; what different readers might take for different hosts is refused."""
    text = text.strip()
    if len(text) > MAX_URL_CHARS or any(c <= " " or c in "\\\x7f" for c in text):
        raise _forbidden(f"this {kind.noun}'s URL is too long, or has characters that stand in no URL", kind)
    try:
        url: httpx2.URL = library.URL(text)
    except (library.InvalidURL, ValueError) as e:
        raise _forbidden(f"this {kind.noun}'s URL is none", kind) from e
    if not url.host:
        raise _forbidden(f"this {kind.noun}'s URL names no host", kind)
    return url


def _check_answer(response: httpx2.Response, kind: Kind, most: int) -> None:
    status = response.status_code
    if status != 200:
        hint = "; try again later" if status >= 500 or status == 429 else ""
        raise _failed(f"the host of this {kind.noun} answered {status}{hint}", kind)
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise _failed(f"the host of this {kind.noun} sent it compressed, which it was asked not to", kind)
    said = response.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise _excessive(kind, most)


def _read(httpx2: Any, response: httpx2.Response, kind: Kind, most: int, halt: Halt) -> bytes:
    body = bytearray()
    for part in response.iter_raw():
        body += part
        if len(body) > most:
            raise _excessive(kind, most)
        if halt.is_set:  # what came before its socket was shut would be read yet
            break
    if halt.is_set:  # nor is a body whole because it ends there
        raise httpx2.ReadTimeout("the time is over")
    return bytes(body)


def _with_carried(address: Address) -> Iterator[Address]:
    """An address, and the one of IPv4 that it holds, where it does."""
    yield address
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _CARRIED):
        found = address.sixtofour or (address.teredo[1] if address.teredo else None)
        yield found or ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


def _place(host: str) -> tuple[str, int | None]:
    """`"host"` or `"host:port"` as (host, port)."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or "]" in port or (":" in name.strip("[]") and not name.startswith("[")):
        name, port = host.strip().lower(), ""
    good = (
        bool(name)
        and not any(c in name for c in "/@\\ *")
        and (not port or (port.isdecimal() and 0 < int(port) < 65536))
    )
    if not good:
        raise InvalidConfigError(
            f"allowed_media_hosts has {host!r:.80}, which is no host: write images.example.com or images.example.com:8443",
            param="allowed_media_hosts",
        )
    try:
        name = name.strip("[]").encode("idna").decode("ascii") if not name.isascii() else name.strip("[]")
    except UnicodeError:
        raise InvalidConfigError(
            f"allowed_media_hosts has {host!r:.80}, which is no host", param="allowed_media_hosts"
        ) from None
    return name, int(port) if port else None


def _client_library() -> Any:
    try:
        import httpx2
    except ImportError as e:
        raise MediaUnsupportedError(
            "media are fetched by httpx2, which is not installed: pip install 'engine-plugin-sdk[server]'",
            code="media_url_forbidden",
        ) from e
    return httpx2


def _forbidden(message: str, kind: Kind) -> MediaForbiddenError:
    return MediaForbiddenError(message, param=kind.url_param)


def _failed(message: str, kind: Kind) -> MediaFetchError:
    return MediaFetchError(message, param=kind.url_param)


def _excessive(kind: Kind, most: int) -> MediaTooLargeError:
    return kind.excessive(f"the {kind.noun} at this URL has more than {most // 2**20} MiB", url=True)
