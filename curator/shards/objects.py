"""Objects of s3://, gs://, az:// and https://: list, stat, read and write them over obstore.

Credentials and endpoints come from the environment, as obstore reads it: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, AWS_SKIP_SIGNATURE for public buckets, a pod's
or machine's role; GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_NAME and ..._KEY. Plain
http is used where the endpoint in the environment says http://, and for loopback URLs.

obstore retries what may pass (5xx, dropped connections, timeouts) ten times, for three minutes at
most; a wait of 20 seconds is said. Errors carry URL, status and the store's code, never a key or a
query, so the exception of obstore, whose text has whole requests, is not chained.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from threading import Timer
from typing import IO, Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from curator.core import progress
from curator.core.errors import (
    CuratorError,
    DamageError,
    NotFoundError,
    StorageBusyError,
    StorageError,
    UsageError,
    mask_secrets,
)

SCHEMES = ("s3", "gs", "az", "https")
LISTED = ("s3", "gs", "az")
"""Schemes with a listing; https has none."""

CLIENT: dict[str, Any] = {"timeout": "1h", "read_timeout": "30s", "connect_timeout": "10s"}
"""obstore's own limit of 30 s on a whole request would cut large shards."""

RETRIES: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
SAID_AFTER_SEC = 20.0

_ENDPOINT = re.compile(r"(?:AWS|AZURE|GOOGLE|GCS)_[A-Z_]*(?:ENDPOINT|URL)[A-Z_0-9]*", re.IGNORECASE)
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z -]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_GAP_BYTES = 1 << 20
_PIECE_BYTES = 8 << 20
_RANGES_AT_ONCE = 8
_HEADS_AT_ONCE = 32
_RESUMED = 3


class Stamp(NamedTuple):
    """What tells whether a file is the same: size, time of writing, and an object's etag."""

    size_bytes: int
    mtime_ns: int
    etag: str = ""

    def is_same(self, other: Stamp) -> bool:
        """Whether nothing speaks for a change: sizes and etags agree, or times without etags."""
        if self.size_bytes != other.size_bytes:
            return False
        if self.etag or other.etag:
            return self.etag == other.etag
        return self.mtime_ns == other.mtime_ns


@dataclass(frozen=True, slots=True)
class Remote:
    """A file or folder of an object store, with as much of `pathlib.Path` as shards need.

    `stamp` is what the store said when the file was listed, and what every read is checked against;
    None for a folder, and for a file that is not there. `whole`: reads go through the local cache,
    otherwise ranges are asked for.
    """

    url: str
    stamp: Stamp | None = None
    whole: bool = True

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return Path(self.name).stem

    @property
    def parent(self) -> Remote:
        """The folder above; a bucket is its own."""
        head, _, _ = self.url.rpartition("/")
        return self if head.endswith("/") else Remote(head)

    @property
    def parents(self) -> list[Remote]:
        """The folders above, the nearest first."""
        found, folder = list[Remote](), self.parent
        while not found or folder != found[-1]:
            found.append(folder)
            folder = folder.parent
        return found

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    def with_name(self, name: str) -> Remote:
        """A file beside this one."""
        return self.parent / name

    def below(self, root: Remote) -> str:
        """Return the path below `root`.

        Raises:
            ValueError: it is not below it.
        """
        if not self.url.startswith(root.url + "/"):
            raise ValueError(f"{self} is not below {root}")
        return self.url[len(root.url) + 1 :]

    def exists(self) -> bool:
        """Whether the store had the file when it was listed."""
        return self.stamp is not None

    def __str__(self) -> str:
        return self.url


def is_remote(spec: str) -> bool:
    """Whether a text names something in an object store."""
    scheme, mark, rest = spec.partition("://")
    return bool(mark) and (scheme.lower() in SCHEMES or _is_loopback(scheme, rest))


def _is_loopback(scheme: str, rest: str) -> bool:
    return scheme.lower() == "http" and urlsplit(f"//{rest}").hostname in _LOOPBACK


def parse(url: str) -> Remote:
    """Return the place that a URL names.

    Raises:
        UsageError: it has a user name, a query or a fragment, or no bucket or host.
    """
    scheme, _, rest = url.partition("://")
    host, _, key = rest.partition("/")
    wrong = None
    if "@" in host or (":" in host and not scheme.startswith("http")):
        wrong = "a user name or a key in it"
    elif "?" in key and scheme.startswith("http"):
        wrong = "a query (signed URLs are not supported)"
    elif not host:
        wrong = "no bucket or host"
    if wrong is not None:
        raise UsageError(
            f"the URL {scheme}://... has {wrong}",  # not the URL: it may hold a secret
            hint="credentials come from the environment, such as AWS_ACCESS_KEY_ID",
            reason="input.bad_pattern",
        )
    key = unquote(key) if scheme.lower().startswith("http") else key
    parts = [part for part in key.split("/") if part]
    if "." in parts or ".." in parts:
        raise UsageError(f"the URL {url} has . or .. in it", reason="input.bad_pattern")
    return Remote("/".join([f"{scheme.lower()}://{host}", *parts]))


def parse_store_url(url: str) -> Remote:
    """Return the place of a copy of a store.

    Raises:
        UsageError: it is not a URL of s3://, gs:// or az://.
    """
    if url.partition("://")[0].lower() not in LISTED or "://" not in url:
        raise UsageError(
            f"the URL is {url!r}",
            hint="a copy of a store is in an object store: s3://BUCKET/FOLDER, gs:// or az://; "
            "between folders use `curator merge`",
            reason="option.value",
        )
    return parse(url)


def listing(folder: Remote) -> list[Remote]:
    """Return all files below a folder, with their stamps, in any order.

    Raises:
        StorageError, NotFoundError: the store refuses, or has no such bucket.
    """
    store, prefix, bucket = _store(folder)
    with _asking(folder):
        chunks = obstore.list(store, prefix or None, chunk_size=1000)
        return [Remote(f"{bucket}/{one['path']}", _stamp(one)) for part in chunks for one in part]


def stat(places: Sequence[Remote]) -> list[Remote]:
    """Return the files with their stamps, asking for each; without one where there is none."""

    def look(place: Remote) -> Remote:
        store, key, _ = _store(place)
        try:
            with _asking(place):
                return Remote(place.url, _stamp(obstore.head(store, key)))
        except Missing:
            return Remote(place.url)

    if len(places) == 1:
        return [look(places[0])]
    with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
        return list(pool.map(look, places))


def read_small(place: Remote, *, most_bytes: int) -> bytes | None:
    """Return the first bytes of a small file, such as a manifest; None if there is none."""
    store, key, _ = _store(place)
    for tried in range(_RESUMED + 1):
        try:
            with _asking(place):
                result = obstore.get(store, key)
        except Missing:
            return None
        try:
            with _asking(place):
                return bytes(result.bytes())[:most_bytes]
        except StorageBusyError:  # the body ended early: obstore does not ask again
            if tried == _RESUMED:
                raise
    raise AssertionError("unreachable")


def read_ranges(place: Remote, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes of (offset, length) ranges; those less than 1 MiB apart are one request.

    Raises:
        DamageError: the object is gone, or is not the one that was listed (source.changed).
        StorageError: the store refuses or does not answer.
    """
    spans: list[list[int]] = []  # [start, end], ascending
    for offset, length in sorted(ranges):
        if spans and offset - spans[-1][1] < _GAP_BYTES:
            spans[-1][1] = max(spans[-1][1], offset + length)
        else:
            spans.append([offset, offset + length])

    def read(span: list[int]) -> bytes:
        return b"".join(_pieces(place, *span))

    if len(spans) == 1:
        data = [read(spans[0])]
    else:
        with ThreadPoolExecutor(_RANGES_AT_ONCE) as pool:
            data = list(pool.map(read, spans))
    found = []
    for offset, length in ranges:
        at = next(n for n, (start, end) in enumerate(spans) if start <= offset <= end)
        start = offset - spans[at][0]
        found.append(data[at][start : start + length])
    return found


def download(place: Remote, file: IO[bytes]) -> None:
    """Write all bytes of an object to a file; goes on in the middle if the connection ends.

    Raises: as `read_ranges`.
    """
    assert place.stamp is not None
    for piece in _pieces(place, 0, place.stamp.size_bytes):
        file.write(piece)


def _pieces(place: Remote, start: int, end: int) -> Iterator[Any]:
    """Yield the bytes, as buffers, from `start` to `end` of the object as it was listed."""
    if place.stamp is None:
        raise _changed(place, "it is gone")
    if end > place.stamp.size_bytes:
        left = max(0, place.stamp.size_bytes - start)
        raise _changed(place, f"{left} of {end - start} bytes are left at offset {start}")
    store, key, _ = _store(place)
    etag = place.stamp.etag
    # A weak etag never matches in If-Match (RFC 9110, 13.1.1); it is compared below all the same.
    match: Any = {"if_match": etag} if etag and not etag.startswith("W/") else {}
    at, resumed = start, 0
    while at < end:
        came = at
        try:
            with _asking(place):
                result = obstore.get(store, key, options=match | {"range": (at, end)})
                found = _stamp(result.meta)
                if not found.is_same(place.stamp):
                    raise _changed(place, "it was written again")
                stream = iter(result.stream(min_chunk_size=_PIECE_BYTES))
            while True:
                with _asking(place):  # each piece alone: a long download is no long wait
                    piece = next(stream, None)
                if piece is None:
                    break
                at += len(piece)
                yield piece
        except Missing as error:
            raise _changed(place, "it is gone") from error
        except StorageBusyError:
            if at == came or resumed == _RESUMED:
                raise
        resumed += 1
        if at < end and (at == came or resumed > _RESUMED):
            raise StorageBusyError(
                f"the answer ends after {at - start:,} of {end - start:,} bytes",
                where=place,
                did="finished work is kept",
                hint="run the same command again",
                reason="storage.short_body",
            )


def put(place: Remote, data: bytes | Path, *, is_new: bool = False) -> bool:
    """Write an object, whole or not at all. With `is_new` only if there is none; False if not.

    Raises:
        StorageError: the store refuses or does not answer.
    """
    store, key, _ = _store(place)
    mode: Any = "create" if is_new else "overwrite"
    try:
        with _asking(place, creates=is_new):
            obstore.put(store, key, data, mode=mode)
    except AlreadyExistsError:
        return False
    return True


@contextlib.contextmanager
def writing(place: Remote) -> Iterator[Writing]:
    """Write an object piece by piece; it is there when the block ends without an error.

    After an error the parts of a large object stay hidden in the store until it cleans them up
    (on S3 a lifecycle rule for incomplete uploads).

    Raises:
        StorageError: the store refuses or does not answer.
    """
    store, key, _ = _store(place)
    with _asking(place):
        file = obstore.open_writer(store, key, buffer_size=_PIECE_BYTES)
    yield Writing(place, file)
    with _asking(place):
        file.close()


class Writing:
    """The file of `writing`."""

    def __init__(self, place: Remote, file: Any) -> None:
        self._place = place
        self._file = file

    def write(self, data: bytes, /) -> int:
        """Append bytes."""
        with _asking(self._place):
            self._file.write(data)
        return len(data)


def server_name(place: Remote) -> str:
    """Return what to call the server of a place in a message: its endpoint, else its scheme."""
    named = [value for name, value in os.environ.items() if _ENDPOINT.fullmatch(name)]
    return named[0] if named else place.url.partition("/")[0] + "//"


def check_writable(folder: Remote) -> None:
    """Refuse a folder that nothing can be written to.

    Raises:
        UsageError: it is of https://, which has no listing and no writing.
    """
    if folder.url.partition("://")[0] not in LISTED:
        raise UsageError(
            "nothing can be written here",
            where=folder,
            did="nothing was written",
            hint="give a local folder, or one of s3://, gs:// or az://",
            reason="output.foreign",
        )


class Missing(Exception):
    """The store has no object of this name."""


def _stamp(meta: Any) -> Stamp:
    seconds = meta["last_modified"].timestamp()
    return Stamp(meta["size"], round(seconds * 1_000_000) * 1000, meta["e_tag"] or "")


def _store(place: Remote) -> tuple[Any, str, str]:
    """Return the client, the key in its bucket, and the URL of the bucket."""
    scheme, _, rest = place.url.partition("://")
    bucket, _, key = rest.partition("/")
    http = tuple(sorted(value for name, value in os.environ.items() if _ENDPOINT.fullmatch(name)))
    return _client(scheme, bucket, http), key, f"{scheme}://{bucket}"


@lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, endpoints: tuple[str, ...]) -> Any:
    """Make a client; `endpoints` are in the key so that another environment makes another one."""
    is_http = scheme == "http" or any(one.lower().startswith("http://") for one in endpoints)
    options: Any = {**CLIENT, **({"allow_http": True} if is_http else {})}
    retries: Any = RETRIES
    if scheme == "s3":
        return S3Store(bucket, client_options=options, retry_config=retries)
    if scheme == "gs":
        return GCSStore(bucket, client_options=options, retry_config=retries)
    if scheme == "az":
        return AzureStore(bucket, client_options=options, retry_config=retries)
    return HTTPStore.from_url(f"{scheme}://{bucket}", client_options=options, retry_config=retries)


@contextlib.contextmanager
def _asking(place: Remote, *, creates: bool = False) -> Iterator[None]:
    """Translate errors of the block, and say so when it waits long.

    If the block `creates` an object, AlreadyExistsError is an answer and no error.
    """
    waiting = f"waiting for {place}: no answer for {SAID_AFTER_SEC:.0f} s, asking again"
    timer = Timer(SAID_AFTER_SEC, progress.say, [waiting])
    timer.daemon = True
    timer.start()
    try:
        yield
    except CuratorError:
        raise
    except (BaseError, OSError, ValueError) as error:
        if creates and isinstance(error, AlreadyExistsError):
            raise
        _raise(error, place)
    finally:
        timer.cancel()


def _raise(error: Exception, place: Remote) -> NoReturn:
    """Raise what an error of obstore means; a missing object is `Missing`."""
    text = str(error).partition("Debug source")[0]
    status, code = _STATUS.search(text), _CODE.search(text)
    said = " ".join(one[1].strip() for one in (status, code) if one)
    number = status[1][:3] if status else ""
    did = "finished work is kept"
    if _is_about_credentials(text):
        raise StorageError(
            "there are no credentials for the store",
            where=place,
            did=did,
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (gs: "
            "GOOGLE_APPLICATION_CREDENTIALS; az: AZURE_STORAGE_ACCOUNT_NAME and _KEY); for a "
            "public bucket set AWS_SKIP_SIGNATURE=true",
            reason="storage.no_credentials",
        ) from None
    if place.stamp and (number == "412" or isinstance(error, PreconditionError)):
        raise _changed(place, "it was written again") from None
    if "NoSuchBucket" in text or "ContainerNotFound" in text or "bucket does not exist" in text:
        raise NotFoundError(
            f"the bucket does not exist ({said})",
            where=place,
            hint="check the name, and the endpoint in AWS_ENDPOINT_URL",
            reason="storage.no_bucket",
        ) from None
    if isinstance(error, FileNotFoundError) or number == "404":
        raise Missing(str(place)) from None
    if number in ("401", "403"):
        raise StorageError(
            f"the store refuses access ({said})",
            where=place,
            did=did,
            hint="check the credentials in the environment (AWS_ACCESS_KEY_ID, ...) and what they "
            "may do; for a public bucket set AWS_SKIP_SIGNATURE=true",
            reason="storage.no_permission",
        ) from None
    if number[:1] in ("3", "4") and number not in ("408", "409", "412", "425", "429"):
        raise StorageError(
            f"the store refuses the request ({said})",
            where=place,
            did=did,
            hint="check the URL, AWS_REGION and AWS_ENDPOINT_URL",
            reason="storage.refused",
        ) from None
    line = mask_secrets(text.strip().splitlines()[0][:300]) if text.strip() else "no answer"
    raise StorageBusyError(
        f"the store does not answer as it should ({said or line})",
        where=place,
        did=f"tried {RETRIES['max_retries'] + 1} times; {did}",
        hint="run the same command again",
        reason="storage.unreachable",
    ) from None


def _is_about_credentials(text: str) -> bool:
    """Whether the machine's own service was asked for credentials, and gave none."""
    marks = ("/latest/api/token", "/latest/meta-data", "computeMetadata", "Account must be")
    return any(mark in text for mark in marks)


def _changed(place: Remote, how: str) -> DamageError:
    return DamageError(
        f"the shard is not the one that was listed: {how}",
        where=place,
        did="finished work is kept",
        hint="run the same command again when nothing writes to the shards",
        reason="source.changed",
    )
