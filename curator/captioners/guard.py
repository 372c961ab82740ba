"""Notices bad generations, asks again once, and never lets one through.

    answer                                                    failure
    "I cannot help with that"                                 vlm.refusal
    "As an AI language model ..."                             vlm.boilerplate
    the same words or characters over and over                vlm.repetition
    only punctuation, a run of token 0, NaN logits            vlm.garbage
    nothing                                                   vlm.empty
    another language                                          vlm.language
    the prompt, a speaker's name                              vlm.echo
    <|im_start|>user in the middle                            vlm.special_token
    fewer or more answers than requests, also one by one      vlm.mismatch

What "bad" means is `curator.scorers.text.check_text`; here is what to do about it. Openers such
as "This image shows" are no failure: policies can weigh them. Good captions are only tidied.

The second try uses the prompt's alternative wording and `candidate + 1000`, hence another seed.
Garbage is the sign of a broken engine rather than of a hard image: a plain test picture is
captioned, and if that breaks too, the model is loaded again in fp32, or the run ends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from curator.captioners import Captioner
from curator.captioners.excerpt import excerpt
from curator.captioners.options import RETRY_CANDIDATE
from curator.captioners.pictures import probe_request
from curator.errors import EngineError
from curator.prompts import Prompt, reword
from curator.sample import Caption, CaptionFailure, CaptionRequest
from curator.scorers.text import check_text
from curator.text import clean_str, strip_special_tokens

log = logging.getLogger(__name__)

# In order of how much a flag explains: a refusal in French is a refusal.
_REASONS = {
    "empty": "vlm.empty",
    "no_letters": "vlm.garbage",
    "special_token": "vlm.special_token",
    "refusal": "vlm.refusal",
    "echo": "vlm.echo",
    "repetition": "vlm.repetition",
    "language": "vlm.language",
}
_TRIED_AGAIN = frozenset(_REASONS.values()) | {"vlm.boilerplate"}
_MODEL_TALK = re.compile(r"\b(?:an AI|language model|artificial intelligence)\b", re.IGNORECASE)


@runtime_checkable
class HasFp32(Protocol):
    """A captioner that can load its model again in full precision."""

    def to_fp32(self) -> bool:
        """Do so; false when it runs in fp32 already."""
        ...


@runtime_checkable
class Prefetches(Protocol):
    """A captioner that can prepare the batch after the current one."""

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Return at once."""
        ...


class Guarded:
    """A captioner around another one, whose captions are all fit to be stored.

    `prompt` is the one that the requests were rendered from. `language` is the expected one.
    """

    def __init__(self, captioner: Captioner, *, prompt: Prompt, language: str = "en") -> None:
        self._captioner = captioner
        self._prompt = prompt
        self._language = language

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Hand on to the captioner, if it can."""
        if isinstance(self._captioner, Prefetches):
            self._captioner.prefetch(requests)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Answer every request, in order, with a tidied caption or a failure.

        Raises:
            EngineError: the model gives garbage for the test picture too.
        """
        outcomes = self._ask(requests)
        if any(_reason(outcome) == "vlm.garbage" for outcome in outcomes) and self._recovered():
            outcomes = self._ask(requests)
        bad = [i for i, outcome in enumerate(outcomes) if _reason(outcome) in _TRIED_AGAIN]
        if not bad:
            return outcomes
        for i, second in zip(bad, self._ask([self._other(requests[i]) for i in bad]), strict=True):
            outcomes[i] = second if isinstance(second, Caption) else _both(outcomes[i], second)
        return outcomes

    def healthy(self) -> bool:
        """Whether a plain test picture gets something else than garbage."""
        request = replace(probe_request(), prompt=self._prompt.bare)
        return _reason(self._ask([request])[0]) != "vlm.garbage"

    def _other(self, request: CaptionRequest) -> CaptionRequest:
        prompt = reword(self._prompt, request.prompt)
        return replace(request, prompt=prompt, candidate=request.candidate + RETRY_CANDIDATE)

    def _ask(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        outcomes = self._captioner.caption(requests)
        if len(outcomes) != len(requests):
            # Nobody can tell whose answers these are, so none of them is used.
            log.warning("%d answers to %d requests: asking singly", len(outcomes), len(requests))
            outcomes = [self._ask_single(request) for request in requests]
        return [
            self._judged(request, outcome)
            for request, outcome in zip(requests, outcomes, strict=True)
        ]

    def _ask_single(self, request: CaptionRequest) -> Caption | CaptionFailure:
        outcomes = self._captioner.caption([request])
        if len(outcomes) != 1:
            return CaptionFailure("vlm.mismatch", f"{len(outcomes)} answers to one request")
        return outcomes[0]

    def _judged(
        self, request: CaptionRequest, outcome: Caption | CaptionFailure
    ) -> Caption | CaptionFailure:
        if isinstance(outcome, CaptionFailure):
            return outcome
        text = tidy(outcome.text)
        failure = judge(text, prompt=request.prompt, language=self._language)
        return failure or replace(outcome, text=text)

    def _recovered(self) -> bool:
        """Whether the model had to be loaded again; raises when that does not help."""
        if self.healthy():
            return False
        if isinstance(self._captioner, HasFp32) and self._captioner.to_fp32():
            log.warning("the model gives garbage (overflow); it now runs in fp32, which is slower")
            if self.healthy():
                return True
        raise EngineError(
            "the model gives garbage, for a plain test picture too",
            did="the batch was not used",
            hint="restart the server, or try --dtype bf16 or fp32, or another model",
            reason="vlm.garbage",
        )


def tidy(text: str) -> str:
    """One line without what chat models put around a caption; its words stay as they are.

    Off go special tokens at either end, a leading "Assistant:", and quotes around the whole.
    """
    line = clean_str(text).text
    line = _ASSISTANT.sub("", _without_outer_tokens(line))
    for opening, closing in _QUOTES:
        inner = line[1:-1]
        whole = len(line) > 1 and line[0] == opening and line[-1] == closing
        if whole and opening not in inner and closing not in inner:
            return inner.strip()
    return line


_ASSISTANT = re.compile(r"\Aassistant\s*:\s*", re.IGNORECASE)
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
    ("\u00ab", "\u00bb"),
)
_FIRST_TOKEN = re.compile(r"\s*([<\[][^<>\[\]\s]{1,40}[>\]])(?:\s*assistant\b(?=\s))?")
_LAST_TOKEN = re.compile(r"([<\[][^<>\[\]\s]{1,40}[>\]])\s*\Z")


def _without_outer_tokens(line: str) -> str:
    while (first := _FIRST_TOKEN.match(line)) and not strip_special_tokens(first[1])[0]:
        line = line[first.end() :].lstrip()
    while (last := _LAST_TOKEN.search(line)) and not strip_special_tokens(last[1])[0]:
        line = line[: last.start()].rstrip()
    return line


def judge(text: str, *, prompt: str, language: str = "en") -> CaptionFailure | None:
    """Why the tidied `text`, the answer to `prompt`, is no caption; None when it is one."""
    flags = check_text(text, prompt=prompt, language=language).flags
    reason = next((_REASONS[flag] for flag in _REASONS if flag in flags), None)
    if reason is None:
        return None
    if reason == "vlm.refusal" and _MODEL_TALK.search(text):
        reason = "vlm.boilerplate"
    return CaptionFailure(reason, excerpt(text))


def _reason(outcome: Caption | CaptionFailure) -> str | None:
    return outcome.reason if isinstance(outcome, CaptionFailure) else None


def _both(first: Caption | CaptionFailure, second: CaptionFailure) -> CaptionFailure:
    assert isinstance(first, CaptionFailure), "only failures are tried again"
    return CaptionFailure(
        second.reason, f"{second.detail} (first try: {first.reason} {first.detail})"[:500]
    )
