"""Caption with servers that have OpenAI's chat completions API: vLLM, SGLang, Ollama, LM Studio.

Every answer belongs to one image: a request has one image and asks for one caption, or for several
candidates of it (`n`). Images are sent as bytes inside the request, so the server downloads
nothing. Captioning sends only model, messages, max_tokens, temperature, top_p, seed and, for
several candidates, n, only to `{url}/chat/completions`. No other path is used but the list of
models, to see whether a server is there; any answer to that is enough.

Candidates c, c + 1, ... of an image are asked for with the seed `seed + c`. vLLM draws the i-th of
n with the seed `seed + c + i`, which is the seed that a request for it alone has. A server that
seeds them in another way draws other captions from the same distribution. A server that gives
fewer than n is asked for the rest one by one, and for no more than one from then on.

How servers are used at the same time, and what happens when one goes away, is in
`curator.captioners.fleet`.

The key is read from CURATOR_API_KEY, else OPENAI_API_KEY, and kept only in the requests' headers.
Messages never contain it, nor a password in the URL.

Retried, with growing pauses or as Retry-After says: a broken connection, 408, 425, 429 and 5xx. Not
retried: any other answer, and the stall timeout, which limits one request with all its attempts.
An image that gets no answer is at fault if the server answers something else meanwhile, or a plain
test image. If it does not, the server is at fault, and the run ends.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import groupby
from types import TracebackType

import aiohttp
from yarl import URL

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.examples import Example
from curator.captioners.excerpt import excerpt
from curator.captioners.fleet import HINTS, Fleet, Unanswered, models_url
from curator.captioners.options import Sampling
from curator.captioners.payload import (
    Mismatch,
    body_of,
    captions_of,
    data_uri,
    error_text,
    heads_of,
)
from curator.captioners.pixels import probe_request
from curator.core.errors import EngineError, Unusable, UsageError, check_value
from curator.core.run_options import DEFAULTS
from curator.core.text import as_typed

KEY_VARIABLES = ("CURATOR_API_KEY", "OPENAI_API_KEY")
MIN_PIXELS = 28 * 28  # the least that vision-language models with 14-pixel patches accept
_REACH_TIMEOUT_SEC = 10.0
_PROBE_TIMEOUT_SEC = 60.0
_OK = 200
_DEFAULT_SAMPLING = Sampling()


class ServerCaptioner:
    """Captions with `model` of the servers at `url`, e.g. `http://host:8000/v1`; one or several.

    `concurrency` is the number of requests that each server has at once; None: as many as make it
    faster. `max_pixels` makes larger images smaller before they are sent; with `text_only` none is
    sent, for models that read text alone. `system` is the system prompt, and `examples` are shown
    before each request. `stall_timeout_sec` limits one request with its retries, `server_wait_sec`
    how long to wait when no server is there.
    `Caption.num_tokens` is 0 if the server does not count, or counts several candidates together.

    Raises:
        UsageError: missing or invalid `url`, missing `model`, or an option out of range.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        sampling: Sampling = _DEFAULT_SAMPLING,
        device: str | None = None,
        dtype: str | None = None,
        url: str | Sequence[str] | None = None,
        concurrency: int | None = None,
        max_pixels: int | None = None,
        text_only: bool = False,
        system: str | None = None,
        examples: Sequence[Example] = (),
        stall_timeout_sec: float = DEFAULTS.stall_timeout_sec,
        server_wait_sec: float = DEFAULTS.server_wait_sec,
    ) -> None:
        if not model:
            raise UsageError(
                "captioner 'server' needs a model name",
                hint="e.g. --model Qwen/Qwen3-VL-2B-Instruct",
                reason="option.value",
            )
        sane = concurrency is None or concurrency >= 1
        check_value(sane, "concurrency", concurrency, "1 or more, or nothing to find it out")
        check_value(
            max_pixels is None or max_pixels >= MIN_PIXELS,
            "max_pixels",
            max_pixels,
            f"{MIN_PIXELS} or more",
        )
        check_value(
            stall_timeout_sec > 0, "stall_timeout_sec", stall_timeout_sec, "above 0 seconds"
        )
        check_value(server_wait_sec > 0, "server_wait_sec", server_wait_sec, "above 0 seconds")
        check_value(device is None, "device", device, "nothing; the server chooses")
        check_value(dtype is None, "dtype", dtype, "nothing; the server chooses")
        urls = [url] if url is None or isinstance(url, str) else url
        self._endpoints = [_endpoint(one) for one in urls or [None]]
        self._model = as_typed(model, "model")
        self._sampling = sampling
        self._concurrency = concurrency
        self._max_pixels = max_pixels
        self._text_only = text_only
        self._heads = heads_of(system, examples)
        self._stall_timeout_sec = stall_timeout_sec
        self._server_wait_sec = server_wait_sec

    @property
    def url(self) -> str:
        """Return the endpoint, or all of them, without secrets."""
        return ", ".join(map(mask_url, self._endpoints))

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Caption every request, in order; a request that the server refuses fails alone.

        Failures: `image.*` from decoding; `engine.error` with the server's message; `vlm.stalled`;
        `engine.crashed` for an image that kills the server; `vlm.mismatch` when a request twice
        does not get exactly one answer.

        Raises:
            EngineError: no server is there, or none answers any request, or it refuses the key, or
                is not at this URL.
        """
        return asyncio.run(self._caption(requests))

    async def _caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        async with self.connect() as servers:

            async def one(request: CaptionRequest) -> Caption | CaptionFailure:
                image = await asyncio.to_thread(self.prepare, request)
                if isinstance(image, CaptionFailure):
                    return image
                return (await servers.ask([replace(request, image=b"")], image))[0]

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(request)) for request in requests]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    def prepare(self, request: CaptionRequest) -> bytes | CaptionFailure:
        """Decode the image and return it as it is sent: a `data:` URI; empty with `text_only`."""
        if self._text_only:
            return b""
        try:
            return data_uri(request.image, self._max_pixels)
        except Unusable as error:
            return CaptionFailure(error.reason, error.detail)

    def connect(self, stop: Callable[[], bool] = lambda: False) -> Servers:
        """Return the connections to the servers; nothing is sent while `stop` is true."""
        fleet = Fleet(
            [endpoint.with_user(None) for endpoint in self._endpoints],
            [mask_url(endpoint) for endpoint in self._endpoints],
            [_headers(endpoint) for endpoint in self._endpoints],
            concurrency=self._concurrency,
            stall_sec=self._stall_timeout_sec,
            wait_sec=self._server_wait_sec,
            probe=self.body([probe_request()], data_uri(probe_request().image)),
            masked=self.masked,
            stop=stop,
        )
        return Servers(self, fleet)

    def body(self, requests: Sequence[CaptionRequest], image: bytes) -> bytes:
        """Return the body that asks for consecutive candidates of one image and prompt."""
        first, num = requests[0], len(requests)
        return body_of(
            None if self._text_only else image,
            first.prompt,
            first.candidate,
            num,
            model=self._model,
            sampling=self._sampling,
            heads=self._heads,
        )

    def read(
        self, requests: Sequence[CaptionRequest], answer: bytes
    ) -> list[Caption | CaptionFailure]:
        """Return the captions of an answer to `body(requests)`, maybe fewer than requests.

        Raises:
            Mismatch: as `curator.captioners.payload.captions_of`.
        """
        seeds = [self._sampling.seed_of(request.candidate) for request in requests]
        return captions_of(answer, seeds=seeds, max_tokens=self._sampling.max_tokens)

    def masked(self, text: str) -> str:
        """Hide the key (some servers repeat it) and the URLs' passwords, and shorten the text."""
        for secret in (*_keys(), *(endpoint.password for endpoint in self._endpoints)):
            text = text.replace(secret, "***") if secret else text
        return excerpt(text, max_chars=400)


class Servers(AbstractAsyncContextManager["Servers"]):
    """Open connections to the servers of a `ServerCaptioner`, in one event loop."""

    def __init__(self, captioner: ServerCaptioner, fleet: Fleet) -> None:
        self._captioner = captioner
        self.fleet = fleet
        self._takes_n = True
        self._good_at = 0.0
        self._probing = asyncio.Lock()

    async def __aenter__(self) -> Servers:
        await self.fleet.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.fleet.__aexit__(kind, error, at)

    async def ask(
        self, requests: Sequence[CaptionRequest], image: bytes
    ) -> list[Caption | CaptionFailure]:
        """Return one outcome per request; all are for the image that was prepared as `image`.

        A request with an image of its own (`curator.captioners.guard` asks for a test image) is
        asked with that.
        """
        parts = await asyncio.gather(
            *(self._ask_run(run, image) for run in _runs(requests, self._takes_n))
        )
        return [outcome for part in parts for outcome in part]

    async def _ask_run(
        self, run: Sequence[CaptionRequest], image: bytes
    ) -> list[Caption | CaptionFailure]:
        if run[0].image:
            image = await asyncio.to_thread(data_uri, run[0].image)
        if len(run) == 1:
            return [await self._ask_one(run[0], image)]
        try:
            status, answer = await self.fleet.post(self._captioner.body(run, image))
            found = self._captioner.read(run, answer) if status == _OK else []
        except (Mismatch, Unanswered):
            found = []  # asked one by one, each gets a verdict of its own
        rest = await asyncio.gather(
            *(self._ask_one(request, image) for request in run[len(found) :])
        )
        if rest and any(isinstance(outcome, Caption) for outcome in rest):
            self._takes_n = False
        return [*found, *rest]

    async def _ask_one(
        self, request: CaptionRequest, image: bytes, timeout_sec: float | None = None
    ) -> Caption | CaptionFailure:
        """Return the outcome of one request; a wrong number of answers is asked for again once."""
        began = asyncio.get_running_loop().time()
        body = self._captioner.body([request], image)
        failure = CaptionFailure("vlm.mismatch")
        for _ in range(2):
            try:
                status, answer = await self.fleet.post(body, timeout_sec=timeout_sec)
                if status != _OK:
                    said = self._captioner.masked(error_text(answer))
                    failure = CaptionFailure("engine.error", f"HTTP {status}: {said}")
                    break
                (outcome,) = self._captioner.read([request], answer)
            except Unanswered as error:
                failure = CaptionFailure(error.reason, error.detail)
                break
            except Mismatch as error:
                failure = CaptionFailure("vlm.mismatch", str(error))
            else:
                self._good_at = asyncio.get_running_loop().time()
                return outcome
        # A server that died twice of this image has been started again twice.
        if timeout_sec is None and failure.reason != "engine.crashed":
            await self._require_alive(began)
        return failure

    async def _require_alive(self, since: float) -> None:
        """Raise an EngineError unless something was captioned since then, or a test image is."""
        async with self._probing:
            if self._good_at > since:
                return
            probe = probe_request()
            timeout_sec = _PROBE_TIMEOUT_SEC
            outcome = await self._ask_one(probe, data_uri(probe.image), timeout_sec)
        if isinstance(outcome, CaptionFailure) and outcome.reason != "vlm.refusal":
            raise EngineError(
                f"the server answers no request, not even for a plain test image: {outcome.detail}",
                where=self._captioner.url,
                did="all stored facts are kept",
                hint="check the server's log, restart it and run the same command",
                reason=outcome.reason,
            )


def _runs(requests: Sequence[CaptionRequest], takes_n: bool) -> list[list[CaptionRequest]]:
    """Group requests that one request can ask for: one image and prompt, candidates in a row."""
    if not takes_n:
        return [[request] for request in requests]
    numbered = enumerate(requests)
    groups = groupby(
        numbered, lambda at: (at[1].image_sha256, at[1].prompt, at[1].candidate - at[0])
    )
    return [[request for _, request in group] for _, group in groups]


def reach(url: str) -> None:
    """Check that a server answers and accepts the key, by requesting its list of models.

    No image is sent. Servers without such a list answer 404 or 501, which is enough.

    Raises:
        EngineError: no answer within 10 s, or the server refuses the key.
        UsageError: `url` is not a URL.
    """
    endpoint = _endpoint(url)
    where = mask_url(endpoint)
    try:
        status = asyncio.run(_status(endpoint))
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(
            f"the server does not answer ({type(error).__name__})",
            where=where,
            did="nothing was read or written",
            hint="start it, or check --url; then run the same command",
            reason="engine.error",
        ) from error
    if status in (401, 403):
        raise EngineError(
            f"the server refuses the request with HTTP {status}",
            where=where,
            did="nothing was read or written",
            hint=HINTS[status],
            reason="engine.error",
        )


async def _status(endpoint: URL) -> int:
    timeout = aiohttp.ClientTimeout(total=_REACH_TIMEOUT_SEC)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(
            models_url(endpoint.with_user(None)),
            headers=_headers(endpoint),
            allow_redirects=False,
        ) as response,
    ):
        return response.status


def mask_url(url: URL) -> str:
    """Return the URL for messages: user name and password as `***`, no query."""
    plain = url.with_user(None).with_query(None).with_fragment(None)
    return str(plain).replace("://", "://***@", 1) if url.raw_user else str(plain)


def _endpoint(url: str | None) -> URL:
    example = "e.g. --url http://localhost:8000/v1"
    if not url:
        raise UsageError("captioner 'server' needs a url", hint=example, reason="option.value")
    try:
        parsed = URL(as_typed(url, "url"))
    except ValueError:
        # The message may contain the password, so it is not shown.
        raise UsageError("url cannot be read", hint=example, reason="option.value") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        shown = mask_url(parsed) if parsed.host else f"{parsed.scheme}:..."
        raise UsageError(f"url is {shown!r}", hint=example, reason="option.value")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    return parsed.with_path(f"{path}/chat/completions", keep_query=True)


def _keys() -> list[str]:
    return [os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)]


def _headers(endpoint: URL) -> dict[str, str]:
    """Return the header with the user and password of the URL, else with the key."""
    if endpoint.user:
        login = b64encode(f"{endpoint.user}:{endpoint.password or ''}".encode()).decode()
        return {"Authorization": f"Basic {login}"}
    return {"Authorization": f"Bearer {_keys()[0]}"} if _keys() else {}
