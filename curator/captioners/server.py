"""Caption with a server that has OpenAI's chat completions API: vLLM, SGLang, Ollama, LM Studio.

One HTTP request per image, so every answer belongs to a known image. Images are sent as bytes
inside the request, so the server downloads nothing. Captioning sends only model, messages,
max_tokens, temperature, top_p and seed, only to `{url}/chat/completions`: redirects are not
followed, and no other path is used (`/v1/models` fails on some servers).

Proxies of the environment (HTTP_PROXY and so on) and ~/.netrc are not used: images and keys go
only to `url`, and a server on this machine stays reachable behind a company proxy.

The key is read from CURATOR_API_KEY, else OPENAI_API_KEY, and kept only in the HTTP client's
headers. Messages never contain it, nor a password in the URL.

Retried, with growing pauses or as Retry-After says: no connection, a broken connection, 408, 425,
429 and 5xx. Not retried: any other answer, and the stall timeout, which limits one request with all
its attempts. When a whole batch fails, a plain test image is sent; if that fails too, the server is
at fault and not the images, and the run ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.excerpt import excerpt
from curator.captioners.options import Sampling
from curator.captioners.payload import Mismatch, body_of, caption_of, error_text, retry_after_sec
from curator.captioners.pixels import probe_request
from curator.core.errors import EngineError, Unusable, UsageError, check_value
from curator.core.run_options import DEFAULTS
from curator.core.text import as_typed

MAX_ANSWER_BYTES = 4 * 2**20
MAX_ATTEMPTS = 5
KEY_VARIABLES = ("CURATOR_API_KEY", "OPENAI_API_KEY")
_CONNECT_TIMEOUT_SEC = 10.0
_PROBE_TIMEOUT_SEC = 60.0
_TRY_AGAIN = frozenset((408, 425, 429, *range(500, 600)))
_THIS_IMAGE = frozenset((400, 413, 415, 422))
_PAUSE = wait_exponential_jitter(multiplier=0.25, max=30.0, jitter=0.25)
_DEFAULT_SAMPLING = Sampling()


class _Transient(Exception):
    """Raised when an attempt failed and another one may succeed."""

    def __init__(self, detail: str, *, pause_sec: float | None = None, down: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pause_sec = pause_sec
        self.down = down


class ServerCaptioner:
    """Captions with `model` of the server at `url` (`http://host:8000/v1`).

    `concurrency` is the number of requests in flight. `stall_timeout_sec` limits one request with
    its retries. `Caption.num_tokens` is 0 if the server does not count. Connections are closed
    after each batch.

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
        url: str | None = None,
        concurrency: int = 8,
        stall_timeout_sec: float = DEFAULTS.stall_timeout_sec,
    ) -> None:
        if not model:
            raise UsageError(
                "captioner 'server' needs a model name",
                hint="e.g. --model Qwen/Qwen3-VL-2B-Instruct",
                reason="option.value",
            )
        check_value(concurrency >= 1, "concurrency", concurrency, "1 or more")
        check_value(
            stall_timeout_sec > 0, "stall_timeout_sec", stall_timeout_sec, "above 0 seconds"
        )
        check_value(device is None, "device", device, "nothing; the server chooses")
        check_value(dtype is None, "dtype", dtype, "nothing; the server chooses")
        self._endpoint = _endpoint(url)
        self.url = mask_url(self._endpoint)
        self._model = as_typed(model, "model")
        self._sampling = sampling
        self._concurrency = concurrency
        self._stall_timeout_sec = stall_timeout_sec
        self._certificates = httpx.create_ssl_context()  # reads SSL_CERT_FILE; slow to create

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Caption every request, in order; a request that the server refuses fails alone.

        Failures: `image.*` from decoding; `engine.error` with the server's message; `vlm.stalled`;
        `vlm.mismatch` when a request twice does not get exactly one answer.

        Raises:
            EngineError: the server is down, stalls or answers no request at all, refuses the key,
                or is not at this URL.
        """
        return asyncio.run(self._caption(requests))

    async def _caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        client = httpx.AsyncClient(
            headers=_key_header(),
            follow_redirects=False,
            trust_env=False,
            verify=self._certificates,
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_SEC),
            limits=httpx.Limits(max_connections=self._concurrency),
        )
        async with client:
            outcomes = await self._all(client, requests)
            for position, outcome in enumerate(outcomes):
                if isinstance(outcome, CaptionFailure) and outcome.reason == "vlm.mismatch":
                    outcomes[position] = await self._outcome(client, requests[position])
            if requests and all(map(_is_server_failure, outcomes)):
                await self._require_alive(client)
        return outcomes

    async def _all(
        self, client: httpx.AsyncClient, requests: Sequence[CaptionRequest]
    ) -> list[Caption | CaptionFailure]:
        """Return all outcomes; the first EngineError cancels the requests in flight."""
        slots = asyncio.Semaphore(self._concurrency)

        async def in_a_slot(request: CaptionRequest) -> Caption | CaptionFailure:
            async with slots:
                return await self._outcome(client, request)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_a_slot(request)) for request in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def _require_alive(self, client: httpx.AsyncClient) -> None:
        timeout_sec = min(self._stall_timeout_sec, _PROBE_TIMEOUT_SEC)
        probe = await self._outcome(client, probe_request(), timeout_sec=timeout_sec)
        if isinstance(probe, CaptionFailure) and _is_server_failure(probe):
            raise self._engine_error(
                f"the server answers no request, not even for a plain test image: {probe.detail}",
                reason=probe.reason,
            )

    async def _outcome(
        self,
        client: httpx.AsyncClient,
        request: CaptionRequest,
        *,
        timeout_sec: float | None = None,
    ) -> Caption | CaptionFailure:
        """Request one caption, with all attempts."""
        timeout_sec = timeout_sec or self._stall_timeout_sec
        try:
            body = await asyncio.to_thread(
                body_of, request, model=self._model, sampling=self._sampling
            )
        except Unusable as error:
            return CaptionFailure(error.reason, error.detail)
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(MAX_ATTEMPTS) | stop_before_delay(timeout_sec),
            wait=_pause_sec,
            reraise=True,
        )
        try:
            async with asyncio.timeout(timeout_sec):
                got: tuple[int, bytes] = await attempts(self._post, client, body)
            status, answer = got
            if status in _THIS_IMAGE:
                return CaptionFailure("engine.error", f"HTTP {status}: {self._said(answer)}")
            sampling = self._sampling
            seed = sampling.seed_of(request.candidate)
            return caption_of(answer, seed=seed, max_tokens=sampling.max_tokens)
        except TimeoutError:
            return CaptionFailure("vlm.stalled", f"no answer within {timeout_sec:g} s")
        except Mismatch as error:
            return CaptionFailure("vlm.mismatch", str(error))
        except _Transient as error:
            if error.down:
                raise self._engine_error(f"no connection: {error.detail}") from error
            num_tries = attempts.statistics["attempt_number"]
            return CaptionFailure("engine.error", f"{error.detail} (tried {num_tries} times)")

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, bytes]:
        """Make one attempt; return (status, body) of a final answer."""
        headers = {"Content-Type": "application/json"}
        answer = bytearray()
        try:
            async with client.stream(
                "POST", self._endpoint, content=body, headers=headers
            ) as response:
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Mismatch(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            detail = self._masked(str(error) or type(error).__name__)
            raise _Transient(detail, down=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            detail = self._masked(f"{type(error).__name__} {error}".strip())
            raise _Transient(f"the connection broke ({detail})") from error
        self._judge_status(response, bytes(answer))
        return response.status_code, bytes(answer)

    def _judge_status(self, response: httpx.Response, answer: bytes) -> None:
        """Raise unless the status is 200 or a refusal of this one image."""
        status = response.status_code
        if status == httpx.codes.OK or status in _THIS_IMAGE:
            return
        said = f"HTTP {status}: {self._said(answer)}"
        if status in _TRY_AGAIN:
            raise _Transient(said, pause_sec=retry_after_sec(response.headers.get("Retry-After")))
        raise self._engine_error(f"the server says {said}", hint=_HINTS.get(status))

    def _engine_error(
        self, what: str, *, hint: str | None = None, reason: str = "engine.error"
    ) -> EngineError:
        return EngineError(
            what,
            where=self.url,
            hint=hint or "check the server's log, restart it and run the same command",
            reason=reason,
        )

    def _said(self, answer: bytes) -> str:
        return self._masked(error_text(answer))

    def _masked(self, text: str) -> str:
        """Hide the key (some servers repeat it) and the URL's password, and shorten the text."""
        for secret in (*_keys(), self._endpoint.password):
            text = text.replace(secret, "***") if secret else text
        return excerpt(text, max_chars=400)


_HINTS = {
    401: f"set the key in the environment: {KEY_VARIABLES[0]}=...",
    403: f"set the key in the environment: {KEY_VARIABLES[0]}=...",
    404: "check --model, and --url: most servers use http://host:port/v1",
    405: "check --url: most servers use http://host:port/v1",
}


def reach(url: str) -> None:
    """Check that a server answers and accepts the key, by requesting its list of models.

    No image is sent. Servers without such a list answer 404 or 501, which is enough.

    Raises:
        EngineError: no answer within 10 s, or the server refuses the key.
        UsageError: `url` is not a URL.
    """
    endpoint = _endpoint(url)
    where = mask_url(endpoint)
    models = endpoint.copy_with(path=endpoint.path.removesuffix("/chat/completions") + "/models")
    try:
        answer = httpx.get(
            models,
            headers=_key_header(),
            timeout=_CONNECT_TIMEOUT_SEC,
            trust_env=False,
            verify=httpx.create_ssl_context(),
        )
    except httpx.HTTPError as error:
        raise EngineError(
            f"the server does not answer ({type(error).__name__})",
            where=where,
            did="nothing was read or written",
            hint="start it, or check --url; then run the same command",
            reason="engine.error",
        ) from error
    if answer.status_code in (401, 403):
        raise EngineError(
            f"the server refuses the request with HTTP {answer.status_code}",
            where=where,
            did="nothing was read or written",
            hint=_HINTS[answer.status_code],
            reason="engine.error",
        )


def mask_url(url: httpx.URL) -> str:
    """Return the URL for messages: user name and password as `***`, no query."""
    plain = url.copy_with(username=None, password=None, query=None, fragment=None)
    return str(plain).replace("://", "://***@", 1) if url.userinfo else str(plain)


def _endpoint(url: str | None) -> httpx.URL:
    example = "e.g. --url http://localhost:8000/v1"
    if not url:
        raise UsageError("captioner 'server' needs a url", hint=example, reason="option.value")
    try:
        parsed = httpx.URL(as_typed(url, "url"))
    except httpx.InvalidURL:
        # The message may contain the password, so it is not shown.
        raise UsageError("url cannot be read", hint=example, reason="option.value") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"url is {mask_url(parsed)!r}", hint=example, reason="option.value")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    return parsed.copy_with(path=f"{path}/chat/completions")


def _keys() -> list[str]:
    return [os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)]


def _key_header() -> dict[str, str]:
    return {"Authorization": f"Bearer {_keys()[0]}"} if _keys() else {}


def _pause_sec(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Transient) and error.pause_sec is not None:
        return error.pause_sec
    return float(_PAUSE(state))


def _is_server_failure(outcome: Caption | CaptionFailure) -> bool:
    """Whether a failure may be the server's fault rather than the image's."""
    return isinstance(outcome, CaptionFailure) and outcome.reason in (
        "engine.error",
        "vlm.stalled",
        "vlm.mismatch",
    )
