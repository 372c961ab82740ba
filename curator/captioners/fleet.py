"""Servers that answer one kind of request: how many at once, which are there, and what kills one.

`Fleet.post` answers one body; any number of calls may wait at the same time, in one event loop.
Each goes to the server with the most free room. Nothing waits for anything else.

* How many requests a server has at once is `Limit`: a fixed number, or found out.
* A server that is gone (it refuses connections, or the connections of most of its requests broke
  at once) is asked for its list of models, with growing pauses, until it is back. The requests that
  it had are sent again without counting as attempts. When no server has been there for
  `wait_sec`, the run ends.
* Those requests are suspects: one of them may have killed it (vllm#55546: one bad item ends the
  engine). They are sent again half by half, with nothing else at that server; what is answered
  is cleared, and a half that kills it is halved. A request that kills it twice when alone is
  `Unanswered` with the reason `engine.crashed`. A restart that was no request's fault thus costs
  two rounds.

Proxies of the environment and ~/.netrc are not used, and redirects are not followed: images and
keys go only to the URLs that were given.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from curator.captioners.payload import Mismatch, error_text, retry_after_sec
from curator.core import progress
from curator.core.errors import EngineError

MAX_ANSWER_BYTES = 4 * 2**20
MAX_ATTEMPTS = 5
FIRST_LIMIT = 32
MAX_LIMIT = 1024
_CONNECT_TIMEOUT_SEC = 10.0
# Servers close idle connections (uvicorn after 5 s), and a request on one that closes is lost.
_KEEP_ALIVE_SEC = 4.0
_PROBE_TIMEOUT_SEC = 60.0
_LOOK_SEC = 0.1
_AWAY_SEC = 30.0
_TRY_AGAIN = frozenset((408, 425, 429, *range(500, 600)))
_BUSY = frozenset((429, 503))
_THIS_IMAGE = frozenset((400, 413, 415, 422))
_OK = 200
_MIN_WINDOW_SEC = 0.25
_GROWTH = 1.25
_HOLD_SEC = 60.0
_MAX_ERRORS_IN_ROW = 16


class Unanswered(Exception):
    """Raised when a request gets no answer: `reason` is a code of `curator.core.reasons`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Refused(Exception):
    """No connection: the request did not reach the server."""


class _Broken(Exception):
    """The connection broke after the request was sent."""


class _TryAgain(Exception):
    """The same request may succeed later, after `pause_sec` if the server said so."""

    def __init__(self, detail: str, *, pause_sec: float | None, is_busy: bool) -> None:
        super().__init__(detail)
        self.pause_sec = pause_sec
        self.is_busy = is_busy


class Limit:
    """How many requests a server has at once: `fixed`, or as many as make it faster.

    It starts at `FIRST_LIMIT` and doubles while the answers per second grow by a quarter or more,
    each time measured over as many answers as there were requests in flight. When they do not
    grow, it steps back to what was as fast, and tries again after a minute. It halves when the
    server says that it is busy. It does not grow while there is too little work to reach it.
    """

    def __init__(
        self, fixed: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = fixed or FIRST_LIMIT
        self._is_fixed = fixed is not None
        self._clock = clock
        self._rate = 0.0
        self._before = self.now
        self._try_at = self._halved_at = clock()
        self.begin()

    def begin(self) -> None:
        """Begin to measure."""
        self._began, self._num_answers, self._num_full = self._clock(), 0, 0

    def answered(self, num_flying: int) -> None:
        """Count an answer that came while this many requests were in flight."""
        if self._is_fixed:
            return
        self._num_answers += 1
        self._num_full += num_flying >= self.now
        now = self._clock()
        elapsed = now - self._began
        if self._num_answers < self.now or elapsed < _MIN_WINDOW_SEC:
            return
        rate, was_full = self._num_answers / elapsed, self._num_full * 2 >= self._num_answers
        self.begin()
        if not was_full or now < self._try_at:
            return
        if rate >= _GROWTH * self._rate:
            self._before, self._rate = self.now, rate
            self.now = min(2 * self.now, MAX_LIMIT)
            if self.now == self._before:
                self._hold(now)
        else:
            self.now = self._before
            self._hold(now)

    def busy(self) -> None:
        """Halve: the server has refused a request because it has too many."""
        now = self._clock()
        if self._is_fixed or now - self._halved_at < 1:
            return
        self._halved_at = now
        self.now = max(1, self.now // 2)
        self._hold(now)
        self.begin()

    def _hold(self, now: float) -> None:
        self._rate, self._try_at = 0.0, now + _HOLD_SEC


@dataclass(eq=False, slots=True)
class _Ticket:
    """A request that waits for its turn or is in flight.

    `is_suspect`: its server went away while it had the request. `is_alone`: it is tried with
    nothing else at the server; `num_kills` counts how often the server went away then.
    """

    body: bytes
    turn: asyncio.Future[_Server]
    is_suspect: bool = False
    is_alone: bool = False
    num_kills: int = 0
    timeout: asyncio.Timeout | None = None


@dataclass(eq=False, slots=True)
class _Server:
    """One server. `flying` are the requests that it has, with those that pause before a retry."""

    url: URL
    name: str
    limit: Limit
    headers: dict[str, str]
    is_up: bool = True
    on_trial: bool = False
    flying: set[_Ticket] = field(default_factory=set)
    breaking: set[_Ticket] = field(default_factory=set)
    suspects: list[_Ticket] = field(default_factory=list)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    num_answers: int = 0
    num_deaths: int = 0
    errors_in_row: int = 0
    away_since: float = 0.0

    @property
    def room(self) -> int:
        """Return how many more requests it may be sent now."""
        return self.limit.now - len(self.flying) if self.is_up and not self.on_trial else 0


class Fleet:
    """The servers of a run. Use as an async context manager; not thread-safe.

    Args:
        urls: full URLs of the endpoint, without user or password.
        names: what the servers are called in messages.
        headers: one mapping per server; they hold its key.
        concurrency: requests in flight per server; None: as many as make it faster.
        stall_sec: seconds that one request may take with its retries. Waiting for its turn or for
            a server that is away does not count.
        probe: body of a request that every sound server answers.
        wait_sec: seconds without any server after which the run ends.
        masked: hides secrets in what a server says.
        stop: when true, nothing is sent any more.
    """

    def __init__(
        self,
        urls: Sequence[URL],
        names: Sequence[str],
        headers: Sequence[Mapping[str, str]],
        *,
        concurrency: int | None,
        stall_sec: float,
        wait_sec: float,
        probe: bytes,
        masked: Callable[[str], str],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._servers = [
            _Server(url, name, Limit(concurrency), dict(own))
            for url, name, own in zip(urls, names, headers, strict=True)
        ]
        self._stall_sec = stall_sec
        self._wait_sec = wait_sec
        self._probe = probe
        self._masked = masked
        self._stop = stop
        self._queue: deque[_Ticket] = deque()
        self._groups: list[tuple[_Server, list[_Ticket]]] = []
        self._trial: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: EngineError | None = None
        self._began = time.monotonic()

    async def __aenter__(self) -> Fleet:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SEC),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_SEC),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    @property
    def num_flying(self) -> int:
        """Return the number of requests that servers have now."""
        return sum(len(server.flying) for server in self._servers)

    @property
    def room(self) -> int:
        """Return how many requests to have ready, in flight or waiting: enough to double."""
        return sum(2 * server.limit.now for server in self._servers) + FIRST_LIMIT

    def summary(self) -> list[str]:
        """Return a line on each server: what it answered, and how many requests it had at once."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return [
            f"{server.name}: {server.num_answers:,} answers, {server.num_answers / seconds:.1f}/s, "
            f"{server.limit.now} requests at once"
            + (f", gone {server.num_deaths} times" if server.num_deaths else "")
            for server in self._servers
        ]

    async def post(self, body: bytes, *, timeout_sec: float | None = None) -> tuple[int, bytes]:
        """Return (status, body) of a final answer: 200, or a refusal of this request.

        Raises:
            Unanswered: no answer in time or after all attempts, or the request kills the server.
            Mismatch: the answer is too long to be read.
            EngineError: no server is there, or it refuses the key or does not know the URL.
        """
        limit_sec = left_sec = min(timeout_sec or self._stall_sec, self._stall_sec)
        ticket = _Ticket(body, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self._dispatch()
        num_tries = 0
        while True:
            server = await ticket.turn
            began = time.monotonic()
            failed, pause_sec, is_first = "", None, False
            try:
                try:
                    async with asyncio.timeout(left_sec) as timeout:
                        ticket.timeout = timeout
                        try:
                            answer = await self._attempt(server, body)
                        finally:
                            ticket.timeout = None
                    ticket.is_suspect = False
                    server.num_answers += 1
                    server.errors_in_row = 0
                    server.limit.answered(len(server.flying))
                    return answer
                except TimeoutError:
                    if not ticket.is_suspect:
                        said = f"no answer within {limit_sec:g} s"
                        raise Unanswered("vlm.stalled", said) from None
                except _Refused as error:
                    self._is_gone(server, f"no connection: {error}")
                    ticket.is_suspect, is_first = False, True  # it never arrived
                except _Broken as error:
                    if not await self._looks_gone(server, ticket, str(error)):
                        failed = f"the connection broke ({error})"
                except _TryAgain as error:
                    failed, pause_sec = str(error), error.pause_sec
                    self._count_error(server, failed, error.is_busy)
                if failed:
                    num_tries += 1
                    left_sec -= time.monotonic() - began
                    pause_sec = _pause_sec(num_tries) if pause_sec is None else pause_sec
                    if num_tries >= MAX_ATTEMPTS or pause_sec > left_sec:
                        raise Unanswered("engine.error", f"{failed} (tried {num_tries} times)")
                    # It keeps its place meanwhile: a server in trouble gets fewer requests. If
                    # the server goes away in the pause, the request may be the reason.
                    await asyncio.sleep(pause_sec)
                    left_sec -= pause_sec
                    num_tries -= ticket.is_suspect
                ticket.turn = asyncio.get_running_loop().create_future()
            finally:
                self._release(server, ticket)
            if self._error is not None:
                raise self._error
            if not ticket.is_suspect:
                (self._queue.appendleft if is_first else self._queue.append)(ticket)
                self._dispatch()

    def _count_error(self, server: _Server, said: str, is_busy: bool) -> None:
        """Leave a server alone that only gives errors, while others work.

        It gives them faster than captions, so it would get most of the requests.
        """
        server.errors_in_row += not is_busy
        others = any(other.is_up for other in self._servers if other is not server)
        if others and server.errors_in_row >= _MAX_ERRORS_IN_ROW:
            self._is_gone(server, f"{server.errors_in_row} errors in a row, {said}", is_sick=True)

    async def _attempt(self, server: _Server, body: bytes) -> tuple[int, bytes]:
        answer = bytearray()
        headers = {**server.headers, "Content-Type": "application/json"}
        try:
            async with self._session.post(
                server.url, data=io.BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Mismatch(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Refused(self._masked(str(error) or type(error).__name__)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _Broken(self._masked(f"{type(error).__name__} {error}".strip())) from error
        status = response.status
        if status == _OK or status in _THIS_IMAGE:
            return status, bytes(answer)
        said = f"HTTP {status}: {self._masked(error_text(bytes(answer)))}"
        if status in _TRY_AGAIN:
            is_busy = status in _BUSY
            if is_busy:
                server.limit.busy()
            pause_sec = retry_after_sec(response.headers.get("Retry-After"))
            raise _TryAgain(said, pause_sec=pause_sec, is_busy=is_busy)
        raise EngineError(
            f"the server says {said}",
            where=server.name,
            did="all stored facts are kept",
            hint=HINTS.get(status, "check the server's log, and run the same command again"),
            reason="engine.error",
        )

    # -- turns ------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Send waiting requests to servers with room, the one with the most first."""
        while self._queue and not self._stop():
            server = max(self._servers, key=lambda one: one.room)
            if server.room <= 0:
                return
            ticket = self._queue.popleft()
            if not ticket.turn.done():  # cancelled while it waited
                self._admit(server, ticket)

    def _admit(self, server: _Server, ticket: _Ticket) -> None:
        server.flying.add(ticket)
        server.quiet.clear()
        ticket.turn.set_result(server)

    def _release(self, server: _Server, ticket: _Ticket) -> None:
        server.flying.discard(ticket)
        server.breaking.discard(ticket)
        if ticket.is_suspect and not ticket.turn.done():
            server.suspects.append(ticket)
        if not server.flying:
            self._divide(server)
            server.quiet.set()
        self._dispatch()

    # -- servers that go away ---------------------------------------------------------------------

    async def _looks_gone(self, server: _Server, ticket: _Ticket, detail: str) -> bool:
        """Whether the server went away, or only the connection of this request broke."""
        server.breaking.add(ticket)
        await asyncio.sleep(_LOOK_SEC)  # the others' connections break in this time
        if server.is_up and not ticket.is_suspect:
            num_broken = len(server.breaking)
            most_broke = 2 * num_broken > len(server.flying)
            if (most_broke and (server.on_trial or num_broken > 1)) or not await self._answers(
                server
            ):
                self._is_gone(server, f"its connections broke: {detail}")
        server.breaking.discard(ticket)
        return ticket.is_suspect

    def _is_gone(self, server: _Server, detail: str, *, is_sick: bool = False) -> None:
        """Note that a server is gone, and what it had: one of those may be the reason.

        A sick one is there, but gives errors only: its requests go to the others.
        """
        if not server.is_up:
            return
        server.is_up = False
        server.num_deaths += 1
        server.away_since = time.monotonic()
        if not is_sick:
            soon = asyncio.get_running_loop().time() + 1.0
            for ticket in server.flying:
                ticket.is_suspect = True
                # The connection of a machine that is gone may stay open for hours.
                if ticket.timeout is not None and not ticket.timeout.expired():
                    ticket.timeout.reschedule(soon)
        self._start(self._await_return(server, detail, is_sick))

    async def _await_return(self, server: _Server, detail: str, is_sick: bool) -> None:
        progress.say(f"{server.name} is gone ({detail}): waiting for it")
        pause_sec = 0.1
        while not await self._answers(server) or (is_sick and not await self._captions(server)):
            if self._seconds_without_server() > self._wait_sec:
                self._fail(
                    EngineError(
                        f"no server was there for {self._wait_sec:g} s: {detail}",
                        where=server.name,
                        did="all stored facts are kept",
                        hint="check the server's log, restart it and run the same command",
                        reason="engine.error",
                    )
                )
                return
            await asyncio.sleep(min(pause_sec, max(0.05, self._wait_sec / 4)))
            pause_sec = min(10.0, 1.5 * pause_sec)
        if server.flying:  # all that it had is known before anything is sent again
            await server.quiet.wait()
        away_sec = time.monotonic() - server.away_since
        progress.say(f"{server.name} is back after {away_sec:.1f} s")
        server.is_up, server.errors_in_row = True, 0
        server.limit.begin()
        # What it died of is tried before anything else, unless another server is being tried.
        server.on_trial = any(home is server for home, _ in self._groups) and not any(
            other.on_trial for other in self._servers
        )
        self._dispatch()

    async def _captions(self, server: _Server) -> bool:
        """Whether it answers the probe, a request that every sound server answers."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SEC):
                status, _ = await self._attempt(server, self._probe)
        except (_Refused, _Broken, _TryAgain, TimeoutError, Mismatch, EngineError):
            return False
        return status == _OK

    async def _answers(self, server: _Server) -> bool:
        """Whether the server answers a request for its list of models (404 is an answer)."""
        models = models_url(server.url)
        timeout = aiohttp.ClientTimeout(total=_CONNECT_TIMEOUT_SEC)
        try:
            async with self._session.get(
                models, headers=server.headers, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status < 500 or response.status == 501  # noqa: PLR2004 - has no such list
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return False

    def _seconds_without_server(self) -> float:
        if any(server.is_up for server in self._servers):
            return 0.0
        return time.monotonic() - max(server.away_since for server in self._servers)

    def _fail(self, error: EngineError) -> None:
        """End all requests that wait."""
        self._error = error
        waiting = [*self._queue, *(one for _, group in self._groups for one in group)]
        for ticket in [*waiting, *(one for server in self._servers for one in server.suspects)]:
            if not ticket.turn.done():
                ticket.turn.set_exception(error)

    # -- what killed it ---------------------------------------------------------------------------

    def _divide(self, server: _Server) -> None:
        """Put those that a server died with into two halves, to be tried one after the other."""
        suspects, server.suspects = server.suspects, []
        suspects = [ticket for ticket in suspects if not ticket.turn.done()]
        if len(suspects) == 1:
            (ticket,) = suspects
            ticket.num_kills += ticket.is_alone
            if ticket.num_kills > 1:
                detail = "the server died twice while it had this image and nothing else"
                ticket.turn.set_exception(Unanswered("engine.crashed", detail))
                return
        half = (len(suspects) + 1) // 2
        self._groups += [(server, part) for part in (suspects[half:], suspects[:half]) if part]
        if self._groups and self._trial is None:
            self._trial = self._start(self._try_suspects())

    async def _try_suspects(self) -> None:
        while self._groups:
            server = await self._trial_server()
            server.on_trial = True
            while server.is_up and (self._groups or server.flying):
                if server.flying:
                    await server.quiet.wait()
                    continue
                if self._stop():
                    return
                _, group = self._groups.pop()
                group = [ticket for ticket in group if not ticket.turn.done()]
                for ticket in group:
                    ticket.is_suspect, ticket.is_alone = False, len(group) == 1
                    self._admit(server, ticket)
            server.on_trial = False
            self._dispatch()
        self._trial = None

    async def _trial_server(self) -> _Server:
        """Return the server that the last group died with, or another one if it stays away."""
        while True:
            home, _ = self._groups[-1]
            if home.is_up:
                return home
            others = [server for server in self._servers if server.is_up]
            if others and time.monotonic() - home.away_since > _AWAY_SEC:
                return min(others, key=lambda server: len(server.flying))
            await asyncio.sleep(0.02)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _pause_sec(num_tries: int) -> float:
    """Return how long to wait after so many attempts: 0.25, 0.5, 1, 2 s, and up to 0.25 s more."""
    return 0.25 * 2.0 ** (num_tries - 1) + random.uniform(0, 0.25)


HINTS = {
    401: "set the key in the environment: CURATOR_API_KEY=...",
    403: "set the key in the environment: CURATOR_API_KEY=...",
    404: "check --model, and --url: most servers use http://host:port/v1",
    405: "check --url: most servers use http://host:port/v1",
}


def models_url(endpoint: URL) -> URL:
    """Return the URL of a server's list of models."""
    path = endpoint.path.removesuffix("/chat/completions")
    return endpoint.with_path(f"{path}/models", keep_query=True)
