"""Ask a vision-language model about an image: here, through transformers, or at a server.

`open_judge` returns either as a `Judge`. Both use the captioners' code: how models are loaded,
prompts padded, images decoded and servers kept busy is the same as for captions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.local import Likelihoods, LocalCaptioner
from curator.captioners.options import Sampling
from curator.captioners.payload import body_of, first_logprobs_of
from curator.captioners.server import ServerCaptioner
from curator.core.errors import CuratorError, EngineError

NUM_LEADING = 20
"""An answer counts if its first token is among this many: the most that servers give."""
_SPELLINGS = {"yes": ("Yes", "yes", " Yes", " yes"), "no": ("No", "no", " No", " no")}
_BATCH = 16
"""Questions in a batch of a model here, as many as captions."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class YesNo:
    """The probabilities of an answer that begins with yes, and with no.

    `unlisted` is the probability of all tokens that a server did not list: so much larger both
    could be at most. It is 0 for a model here, which gives all of them. `leads`: yes or no is among
    the `NUM_LEADING` likeliest beginnings; `said` is the likeliest.
    """

    yes: float
    no: float
    unlisted: float
    leads: bool
    said: str


class Judge(Protocol):
    """A model that answers questions about images."""

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start decoding the images of the next batch, if that helps."""

    def yes_no(self, requests: Sequence[CaptionRequest]) -> list[YesNo | CaptionFailure]:
        """Return how likely yes and no are, for each request in order."""
        ...

    def say(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Return the answer in words, for each request in order."""
        ...


def open_judge(
    *,
    model: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    url: str | Sequence[str] | None = None,
    max_tokens: int = 1,
) -> Judge:
    """Return the judge `model`, of the servers at `url` if there are any, else of this machine.

    `max_tokens` limits what `say` returns.

    Raises:
        UsageError, NotFoundError, EngineError: as `LocalCaptioner` and `ServerCaptioner`.
    """
    sampling = Sampling(max_tokens=max_tokens)
    if url is not None:
        return _ServerJudge(model, url, sampling)
    return _LocalJudge(
        LocalCaptioner(
            model=model, revision=revision, device=device, dtype=dtype, sampling=sampling
        )
    )


def request_of(image: bytes, question: str) -> CaptionRequest:
    """Return the request that asks a question about an image."""
    return CaptionRequest(hashlib.sha256(image).hexdigest(), image, question)


def each_once(
    requests: Sequence[CaptionRequest], ask: Callable[[Sequence[CaptionRequest]], list[T]]
) -> list[T]:
    """Ask every distinct request once; equal ones get the same answer."""
    distinct = {(one.image_sha256, one.prompt): one for one in requests}
    answers = dict(zip(distinct, ask(list(distinct.values())), strict=True))
    return [answers[one.image_sha256, one.prompt] for one in requests]


class _LocalJudge:
    def __init__(self, captioner: LocalCaptioner) -> None:
        self._captioner = captioner
        tokenizer = captioner.tokenizer
        self._answers: list[tuple[int, ...]] = []
        self._is_yes: list[bool] = []
        for word, spellings in _SPELLINGS.items():
            encoded = [tuple(tokenizer.encode(s, add_special_tokens=False)) for s in spellings]
            # The plain word, however many tokens it has, and its other spellings of one token: no
            # list of them begins another, so their probabilities add up.
            kept = dict.fromkeys([encoded[0], *(ids for ids in encoded if len(ids) == 1)])
            self._answers += kept
            self._is_yes += [word == "yes"] * len(kept)
        self._begins = {ids[0] for ids in self._answers}

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        self._captioner.prefetch(requests)

    def yes_no(self, requests: Sequence[CaptionRequest]) -> list[YesNo | CaptionFailure]:
        found: list[YesNo | CaptionFailure] = []
        for start in range(0, len(requests), _BATCH):
            part = requests[start : start + _BATCH]
            found += map(self._read, self._captioner.likelihoods(part, self._answers, NUM_LEADING))
        return found

    def say(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        found: list[Caption | CaptionFailure] = []
        for start in range(0, len(requests), _BATCH):
            found += self._captioner.caption(requests[start : start + _BATCH])
        return found

    def _read(self, found: Likelihoods | CaptionFailure) -> YesNo | CaptionFailure:
        if isinstance(found, CaptionFailure):
            return found
        pairs = list(zip(found.of, self._is_yes, strict=True))
        return YesNo(
            yes=sum(likelihood for likelihood, is_yes in pairs if is_yes),
            no=sum(likelihood for likelihood, is_yes in pairs if not is_yes),
            unlisted=0.0,
            leads=bool(self._begins.intersection(found.leading)),
            said=str(self._captioner.tokenizer.decode([found.leading[0]])),
        )


@dataclass(frozen=True, slots=True)
class _Leading(Caption):
    """An answer with its likeliest first tokens and their log probabilities."""

    leading: tuple[tuple[str, float], ...] = ()


class _LogprobCaptioner(ServerCaptioner):
    """Asks a server for the likeliest first tokens of its answer."""

    def body(self, requests: Sequence[CaptionRequest], image: bytes) -> bytes:
        """Return the body that asks for one token, with those that it was chosen from."""
        (request,) = requests
        return body_of(
            image,
            request.prompt,
            request.candidate,
            model=self._model,
            sampling=self._sampling,
            top_logprobs=NUM_LEADING,
        )

    def read(
        self, requests: Sequence[CaptionRequest], answer: bytes
    ) -> list[Caption | CaptionFailure]:
        """Return the answer as a `_Leading`.

        Raises:
            EngineError: the server gives no log probabilities. Mismatch: as in the base class.
        """
        (said,) = super().read(requests, answer)
        if isinstance(said, CaptionFailure):
            return [said]
        leading = first_logprobs_of(answer)
        if leading is None:
            raise _without_logprobs(self.url, "its answers have none")
        return [_Leading(said.text, said.finish_reason, 1, said.seed, leading=tuple(leading))]


def _without_logprobs(url: str, why: str) -> EngineError:
    return EngineError(
        f"the server gives no log probabilities, and `vqa` needs them: {why}",
        where=url,
        did="all stored facts are kept",
        hint=f"it must accept logprobs with top_logprobs = {NUM_LEADING}, as vLLM, SGLang and "
        "llama.cpp do; or judge in words: --scorer claims=MODEL; or here: without --scorer-url",
        reason="server.no_logprobs",
    )


class _ServerJudge:
    def __init__(self, model: str, url: str | Sequence[str], sampling: Sampling) -> None:
        self._chooser = _LogprobCaptioner(model=model, url=url, sampling=Sampling(max_tokens=1))
        self._speaker = ServerCaptioner(model=model, url=url, sampling=sampling)

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Do nothing: images are decoded while other answers are awaited."""

    def yes_no(self, requests: Sequence[CaptionRequest]) -> list[YesNo | CaptionFailure]:
        try:
            found = self._chooser.caption(requests)
        except CuratorError as error:  # a server that refuses the option says so in its own words
            if error.reason != "server.no_logprobs" and "logprob" in str(error).lower():
                raise _without_logprobs(self._chooser.url, str(error)) from error
            raise
        return [one if isinstance(one, CaptionFailure) else _weighed(one) for one in found]

    def say(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        return self._speaker.caption(requests)


def _weighed(answer: Caption) -> YesNo:
    assert isinstance(answer, _Leading)
    # Some servers give tokens as their vocabulary spells them, with a mark for the space before.
    likely = [
        (token.replace("\u2581", " ").replace("\u0120", " "), math.exp(min(logprob, 0.0)))
        for token, logprob in answer.leading
    ]
    of = {
        word: sum(chance for token, chance in likely if token in spellings)
        for word, spellings in _SPELLINGS.items()
    }
    spelled = {token for spellings in _SPELLINGS.values() for token in spellings}
    return YesNo(
        yes=of["yes"],
        no=of["no"],
        unlisted=max(0.0, 1.0 - sum(chance for _, chance in likely)),
        leads=any(token in spelled for token, _ in likely),
        said=max(likely, key=lambda one: one[1])[0],
    )
