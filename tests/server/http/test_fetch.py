"""What is fetched, from where, and how much of it. The resolver is ours to give, the host runs on this machine."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import InvalidConfigError, MediaError, MediaFetchError, MediaForbiddenError, MediaTooLargeError
from core.media import fetch
from core.media.fetch import MediaFetcher
from core.media.halt import Halt
from core.media.image import PICTURE

from .conftest import png
from .media_host import MediaHost

MOST = 5 * 2**20


@pytest.fixture(scope="module")
def media_host() -> Iterator[MediaHost]:
    """A host of this file's own: what it has seen, nobody else asked for."""
    with MediaHost() as host:
        yield host


class Names:
    """Answers with an address after another, and remembers what was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked = list(addresses), list[tuple[str, int]]()

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return [self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]]


def fetcher(host: MediaHost, *addresses: str, networks: Sequence[str] = ("127.0.0.0/8",)) -> MediaFetcher:
    """Fetches from `pictures.test`, which is where these addresses say."""
    return MediaFetcher([f"pictures.test:{host.port}"], networks, resolve=Names(*(addresses or ("127.0.0.1",))))


def url(host: MediaHost, path: str) -> str:
    return f"http://pictures.test:{host.port}/{path}"


def test_what_is_allowed_is_fetched_from_the_address_that_was_looked_at(media_host: MediaHost) -> None:
    assert fetcher(media_host).fetch(url(media_host, "picture/3"), PICTURE, MOST) == png(3)
    assert media_host.seen[-1] == ("/picture/3", f"pictures.test:{media_host.port}")


@pytest.mark.parametrize(
    "given",
    [
        "http://pictures.test/x",  # another port
        "https://pictures.test:{port}@evil.test/x",
        "http://evil.test:{port}/",
        "http://user:pass@pictures.test:{port}/",
        "http://pictures.test.:{port}/",
        "http://evil.test\\@pictures.test:{port}/",
        "http://pictures.test:{port}\\@evil.test/",
        "http://127.0.0.1:{port}/",
        "http://0x7f.1:{port}/",
        "http://2130706433:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://localhost:{port}/",
        "http://pictures.test:{port}\n/",
        "http:///x",
        "http://",
        "file:///etc/passwd",
        "ftp://pictures.test/x",
        "gopher://pictures.test/x",
        "http://" + "a" * 10_000,
    ],
)
def test_R034_no_spelling_leads_elsewhere(media_host: MediaHost, given: str) -> None:
    names = Names("127.0.0.1")
    before = len(media_host.seen)
    with pytest.raises(MediaForbiddenError) as refused:
        MediaFetcher([f"pictures.test:{media_host.port}"], ["127.0.0.0/8"], resolve=names).fetch(
            given.format(port=media_host.port), PICTURE, MOST
        )
    assert "127.0.0.1" not in refused.value.message
    assert names.asked == []
    assert len(media_host.seen) == before


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "::127.0.0.1", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_R034_no_private_address_is_dialled(media_host: MediaHost, address: str) -> None:
    before = len(media_host.seen)
    with pytest.raises(MediaForbiddenError) as refused:
        fetcher(media_host, address, networks=()).fetch(url(media_host, "picture/"), PICTURE, MOST)
    assert address not in refused.value.message
    assert len(media_host.seen) == before


def test_R034_one_private_address_among_several_is_enough(media_host: MediaHost) -> None:
    found = MediaFetcher([f"pictures.test:{media_host.port}"], resolve=lambda host, port: ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(MediaForbiddenError):
        found.fetch(url(media_host, "picture/"), PICTURE, MOST)


def test_R035_a_name_is_asked_for_once_a_request(media_host: MediaHost) -> None:
    names = Names("127.0.0.1", "10.0.0.1")  # the second answer would be another one
    found = MediaFetcher([f"pictures.test:{media_host.port}"], ["127.0.0.0/8"], resolve=names)
    assert found.fetch(url(media_host, "picture/1"), PICTURE, MOST) == png(1)
    assert len(names.asked) == 1


def test_R035_each_redirect_is_looked_at(media_host: MediaHost) -> None:
    to_itself = url(media_host, "to/") + url(media_host, "picture/2")
    assert fetcher(media_host).fetch(to_itself, PICTURE, MOST) == png(2)
    rebound = fetcher(media_host, "127.0.0.1", "10.0.0.1")
    with pytest.raises(MediaForbiddenError):
        rebound.fetch(to_itself, PICTURE, MOST)
    for target in ("http://127.0.0.1/", "http://evil.test/", "file:///etc/passwd", "//evil.test/x", "gopher://x"):
        with pytest.raises(MediaForbiddenError):
            fetcher(media_host).fetch(url(media_host, f"to/{target}"), PICTURE, MOST)


def test_R035_redirects_end(media_host: MediaHost) -> None:
    before = len(media_host.seen)
    with pytest.raises(MediaFetchError, match="more than 3 times"):
        fetcher(media_host).fetch(url(media_host, "round/"), PICTURE, MOST)
    assert len(media_host.seen) - before == 4


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("status/404", MediaFetchError, "404"),
        ("status/500", MediaFetchError, "try again"),
        ("packed/", MediaFetchError, "compressed"),
        ("lying/", MediaFetchError, "broke off"),
        ("endless/", MediaTooLargeError, "more than 5 MiB"),
        ("none/", MediaFetchError, "404"),
    ],
)
def test_R036_what_goes_wrong_is_said(media_host: MediaHost, path: str, kind: type[MediaError], says: str) -> None:
    with pytest.raises(kind, match=says):
        fetcher(media_host).fetch(url(media_host, path), PICTURE, MOST)
    gc.collect()


def test_R036_time_is_bounded(media_host: MediaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = fetch.TOTAL_SECONDS
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(MediaFetchError, match="in time"):
        fetcher(media_host).fetch(url(media_host, "slow/"), PICTURE, MOST)
    assert time.monotonic() - start < usual


def test_R036_a_host_that_is_not_there(media_host: MediaHost) -> None:
    def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    with pytest.raises(MediaFetchError, match="no address"):
        MediaFetcher(["gone.test"], resolve=nobody).fetch("http://gone.test/x", PICTURE, MOST)


@pytest.mark.parametrize("host", ["http://x.test", "x.test/y", "a b", "*", "x.test:0", "x.test:99999", "", "u@x.test"])
def test_a_host_that_is_none_is_no_setting(host: str) -> None:
    with pytest.raises(InvalidConfigError):
        MediaFetcher([host])


def test_a_network_that_is_none_is_no_setting() -> None:
    with pytest.raises(InvalidConfigError):
        MediaFetcher(["x.test"], ["10.0.0.0/99"])


def test_R036_time_is_bounded_also_where_the_next_byte_always_comes(
    media_host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", 0.5)
    with pytest.raises(MediaFetchError, match="in time"):
        fetcher(media_host).fetch(url(media_host, "trickle/headers"), PICTURE, MOST)


@pytest.mark.parametrize("path", ["slow/halted", "trickle/headers", "trickle/halted"])
def test_another_thread_ends_a_fetch(media_host: MediaHost, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", 1000.0)
    halt, before = Halt(), len(media_host.seen)
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(fetcher(media_host).fetch, url(media_host, path), PICTURE, MOST, halt)
        while len(media_host.seen) == before:
            time.sleep(0.001)
        halt.set()
        with pytest.raises(MediaFetchError):  # also where the body has no length, and might be taken to end there
            ending.result()


def test_what_has_been_ended_before_it_began_asks_nobody(media_host: MediaHost) -> None:
    halt, before = Halt(), len(media_host.seen)
    halt.set()
    with pytest.raises(MediaFetchError):
        fetcher(media_host).fetch(url(media_host, "picture/"), PICTURE, MOST, halt)
    assert len(media_host.seen) == before


def test_a_url_is_checked_without_asking_anybody(media_host: MediaHost) -> None:
    names = Names("127.0.0.1")
    found = MediaFetcher(["pictures.test"], resolve=names)
    found.check("http://pictures.test/x", PICTURE)
    for given in (
        "http://evil.test/x",
        "ftp://pictures.test/x",
        "http://pictures.test:81/x",
        "http://u@pictures.test/x",
    ):
        with pytest.raises(MediaForbiddenError):
            found.check(given, PICTURE)
    assert names.asked == []
