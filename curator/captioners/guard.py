"""Detect bad answers of a captioner, ask once more, and turn what stays bad into failures.

    answer                                                    failure
    "I cannot help with that"                                 vlm.refusal
    "As an AI language model ...", "Here are three options:"  vlm.boilerplate
    <think> until the token limit                             vlm.reasoning_only
    a list, a table, several fields of JSON, HTML             vlm.markup
    the same words or characters over and over                vlm.repetition
    only punctuation, mojibake, a run of token 0, NaN logits  vlm.garbage
    nothing, null, N/A                                        vlm.empty
    another language, two languages                           vlm.language
    the prompt, a speaker's name                              vlm.echo
    <|im_start|>user in the middle                            vlm.special_token
    fewer or more answers than requests, also one by one      vlm.mismatch
    a forbidden word is there, or a required one is missing   vlm.words

`curator.scorers.text.check_text` defines what is bad; this module handles it. Openers such as "This
image shows" are not a failure: policies can use their flag. Good captions are only tidied: text
around them is removed (`curator.captioners.answers`), and one that reached the token limit is cut
back to its last whole sentence (`curator.captioners.cut`). The caption's `note` keeps the removed
text.

A caption that breaks the rules on words is asked for again with a sentence that names the words.
The better of the two counts (`curator.captioners.words`).

The second try uses the prompt's alternative wording and `candidate + 1000`, hence another seed. The
alternatives ask for English, so for other languages the wording stays the same.
Garbage means a broken engine rather than a hard image: a plain test image is captioned, and if
that gives garbage too, the model is loaded again in fp32, or the run ends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from curator.captioners import LENGTH, TRIMMED, Caption, Captioner, CaptionFailure, CaptionRequest
from curator.captioners.answers import CleanAnswer, open_answer
from curator.captioners.cut import cut_back
from curator.captioners.excerpt import excerpt
from curator.captioners.options import RETRY_CANDIDATE
from curator.captioners.pixels import probe_request
from curator.captioners.prompts import Prompt, reword, without_texts
from curator.captioners.words import NO_RULES, WordRules
from curator.core import contract
from curator.core.errors import EngineError, nearest
from curator.core.reasons import REASONS
from curator.scorers import talk
from curator.scorers.text import check_text

log = logging.getLogger(__name__)

T = TypeVar("T")
Outcomes: TypeAlias = list[Caption | CaptionFailure]
Rounds: TypeAlias = Generator[Sequence[CaptionRequest], Outcomes, T]
"""Yields requests, is sent one outcome for each, and returns T."""

# The first flag that is set gives the reason: a refusal in French is a refusal.
_REASONS = {
    "empty": "vlm.empty",
    "no_letters": "vlm.garbage",
    "special_token": "vlm.special_token",
    "refusal": "vlm.refusal",
    "echo": "vlm.echo",
    "repetition": "vlm.repetition",
    "unreadable": "vlm.garbage",
    "html": "vlm.markup",
    "talk": "vlm.boilerplate",
    "language": "vlm.language",
}
_WANTS = "list[Caption | CaptionFailure], one for each request"
_TRIED_AGAIN = frozenset(_REASONS.values()) | {"vlm.reasoning_only"}
_MODEL_TALK = re.compile(r"\b(?:an AI|language model|artificial intelligence)\b", re.IGNORECASE)


@runtime_checkable
class HasFp32(Protocol):
    """A captioner that can load its model again in full precision."""

    def to_fp32(self) -> bool:
        """Switch to fp32; return false if the model runs in fp32 already."""
        ...


@runtime_checkable
class Prefetches(Protocol):
    """A captioner that can prepare the batch after the current one."""

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start preparing the batch; returns at once."""
        ...


class Guarded:
    """Wraps a captioner and returns only captions that are fit to be stored.

    `prompt` is the prompt that the requests were rendered from, `language` the expected language,
    `words` are the rules on words.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        prompt: Prompt,
        language: str = "en",
        words: WordRules = NO_RULES,
    ) -> None:
        self._captioner = captioner
        self._prompt = prompt
        self._language = language
        self._words = words

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Pass the batch to the captioner, if it can prefetch."""
        if isinstance(self._captioner, Prefetches):
            self._captioner.prefetch(requests)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Return a tidied caption or a failure for every request, in order.

        Raises:
            EngineError: the model gives garbage for the test image too.
        """
        return self._run(self.rounds(requests))

    def healthy(self) -> bool:
        """Whether the model gives something other than garbage for a plain test image."""
        return self._run(self._is_healthy())

    def _run(self, rounds: Rounds[T]) -> T:
        try:
            asked = next(rounds)
            while True:
                asked = rounds.send(self._ask(asked))
        except StopIteration as end:
            found: T = end.value
            return found

    def rounds(self, requests: Sequence[CaptionRequest]) -> Rounds[Outcomes]:
        """Yield the requests to ask, round by round, and be sent the answers; return the outcomes.

        Whoever asks, in batches or one by one, follows these rules: tidy, ask a second time in
        other words, and look for the fault in the engine when an answer is garbage.

        Raises:
            EngineError: the model gives garbage for the test image too.
        """
        outcomes = yield from self._judged_answers(requests)
        if any(_reason(outcome) == "vlm.garbage" for outcome in outcomes):
            recovered = yield from self._recovered()
            if recovered:
                outcomes = yield from self._judged_answers(requests)
        bad = [i for i, outcome in enumerate(outcomes) if _reason(outcome) in _TRIED_AGAIN]
        if bad:
            seconds = yield from self._judged_answers([self._other(requests[i]) for i in bad])
            for i, second in zip(bad, seconds, strict=True):
                outcomes[i] = second if isinstance(second, Caption) else _both(outcomes[i], second)
        outcomes = yield from self._with_words(requests, outcomes)
        return outcomes

    def _with_words(
        self, requests: Sequence[CaptionRequest], outcomes: Outcomes
    ) -> Rounds[Outcomes]:
        """Ask again for captions that break the rules on words."""
        broken = {
            i: found
            for i, outcome in enumerate(outcomes)
            if isinstance(outcome, Caption)
            and (found := self._words.broken_by(outcome.text, requests[i].keep))
        }
        if not broken:
            return outcomes
        again = [
            replace(
                requests[i],
                prompt=f"{requests[i].prompt} {found.request}",
                candidate=requests[i].candidate + RETRY_CANDIDATE,
            )
            for i, found in broken.items()
        ]
        seconds = yield from self._judged_answers(again)
        for (i, first), second in zip(broken.items(), seconds, strict=True):
            best, left = outcomes[i], first
            if isinstance(second, Caption):
                found = self._words.broken_by(second.text, requests[i].keep)
                if found.rank < first.rank:
                    best, left = second, found
            if left.forbidden or left.missing:
                outcomes[i] = CaptionFailure("vlm.words", left.detail)
            elif left and isinstance(best, Caption):
                note = " | ".join(filter(None, (best.note, left.detail)))
                outcomes[i] = replace(best, note=note)
            else:
                outcomes[i] = best
        return outcomes

    def _judged_answers(self, requests: Sequence[CaptionRequest]) -> Rounds[Outcomes]:
        outcomes = yield requests
        return [
            self._judged(request, outcome)
            for request, outcome in zip(requests, outcomes, strict=True)
        ]

    def _is_healthy(self) -> Rounds[bool]:
        request = replace(probe_request(), prompt=self._prompt.bare)
        outcomes = yield from self._judged_answers([request])
        return _reason(outcomes[0]) != "vlm.garbage"

    def _other(self, request: CaptionRequest) -> CaptionRequest:
        prompt = request.prompt
        if self._language == "en":
            prompt = reword(self._prompt, request.prompt)
        return replace(request, prompt=prompt, candidate=request.candidate + RETRY_CANDIDATE)

    def _ask(self, requests: Sequence[CaptionRequest]) -> Outcomes:
        outcomes = self._call(requests)
        if len(outcomes) != len(requests):
            # Which answer belongs to which request is unknown, so none is used.
            log.warning(
                "%d answers to %d requests: asking one by one", len(outcomes), len(requests)
            )
            outcomes = [self._ask_single(request) for request in requests]
        return outcomes

    def _call(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Ask the captioner; its answers are checked here and nowhere else, but for their number.

        Raises:
            EngineError: it raised, or returned something else than the contract says.
        """
        made = self._captioner
        found = list(contract.call(made, "captioner", "caption", requests, wants=_WANTS))
        for outcome in found:
            came, hint = "", ""
            if isinstance(outcome, CaptionFailure):
                if outcome.reason not in REASONS:
                    came = f"a CaptionFailure with the unknown reason {outcome.reason!r}"
                    hint = nearest(
                        str(outcome.reason), [name for name in REASONS if name.startswith("vlm.")]
                    )
            elif not isinstance(outcome, Caption):
                came = f"a list with a {type(outcome).__name__}"
            elif not isinstance(cast("object", outcome.text), str):
                came = f"a Caption whose text is a {type(outcome.text).__name__}"
            if came:
                raise contract.broken(made, "captioner", "caption", came, wants=_WANTS, hint=hint)
        return found

    def _ask_single(self, request: CaptionRequest) -> Caption | CaptionFailure:
        outcomes = self._call([request])
        if len(outcomes) != 1:
            return CaptionFailure("vlm.mismatch", f"{len(outcomes)} answers to one request")
        return outcomes[0]

    def _judged(
        self, request: CaptionRequest, outcome: Caption | CaptionFailure
    ) -> Caption | CaptionFailure:
        if isinstance(outcome, CaptionFailure):
            return outcome
        # The limit may have split the bytes of one character.
        at_limit = outcome.finish_reason == LENGTH
        answer = open_answer(outcome.text.rstrip("\ufffd") if at_limit else outcome.text)
        if nothing := _why_nothing(outcome, answer):
            return nothing
        if answer.is_list:
            return CaptionFailure("vlm.markup", excerpt(outcome.text))
        asked = without_texts(request.prompt)
        failure = judge(answer.text, prompt=asked, language=self._language)
        return failure or _finished(outcome, answer)

    def _recovered(self) -> Rounds[bool]:
        """Whether the model was switched to fp32; raises if that does not help."""
        is_healthy = yield from self._is_healthy()
        if is_healthy:
            return False
        if isinstance(self._captioner, HasFp32) and self._captioner.to_fp32():
            log.warning("the model gives garbage (overflow); it now runs in fp32, which is slower")
            is_healthy = yield from self._is_healthy()
            if is_healthy:
                return True
        raise EngineError(
            "the model gives garbage, even for a plain test image",
            did="the batch was not used",
            hint="restart the server, or try --dtype bf16 or fp32, or another model",
            reason="vlm.garbage",
        )


def _why_nothing(outcome: Caption, answer: CleanAnswer) -> CaptionFailure | None:
    """Return the failure for an answer without a caption; None if it has one."""
    if answer.text:
        return None
    thought = answer.reasoning or outcome.reasoning
    at_limit = f"token limit (--max-tokens, {outcome.num_tokens} used) reached before the caption"
    if thought:
        why = (
            at_limit if outcome.finish_reason == LENGTH else "the model thought but gave no caption"
        )
        hint = "raise --max-tokens, or turn off the model's thinking"
        return CaptionFailure(
            "vlm.reasoning_only", f"{why}; {hint}; it thought: {excerpt(thought)}"
        )
    if outcome.finish_reason == LENGTH:
        return CaptionFailure("vlm.empty", f"{at_limit}; a thinking model needs more tokens")
    is_talk = any(part.startswith("talk") for part in answer.taken_off)
    return CaptionFailure("vlm.boilerplate" if is_talk else "vlm.empty", excerpt(outcome.text))


def _finished(outcome: Caption, answer: CleanAnswer) -> Caption:
    """Return the caption to store: whole sentences, with a note of the removed text."""
    text, finish_reason = answer.text, outcome.finish_reason
    notes = [f"taken off: {'; '.join(answer.taken_off)}"] if answer.taken_off else []
    if finish_reason == LENGTH:
        whole, rest = cut_back(text)
        if whole:
            text, finish_reason = whole, TRIMMED
            notes += [f"cut back, the token limit came at: {excerpt(rest)}"] if rest else []
    return replace(outcome, text=text, finish_reason=finish_reason, note=" | ".join(notes))


def tidy(text: str) -> str:
    """Return the caption as one line, without text that chat models put around it.

    `curator.captioners.answers` lists what is removed; the caption's words are not changed.
    """
    return open_answer(text).text


def judge(text: str, *, prompt: str, language: str = "en") -> CaptionFailure | None:
    """Return why the tidied `text`, the answer to `prompt`, is not a caption; None if it is."""
    flags = check_text(text, prompt=prompt, language=language).flags
    reason = next((_REASONS[flag] for flag in _REASONS if flag in flags), None)
    if reason is None:
        return None
    if reason == "vlm.refusal" and _MODEL_TALK.search(text):
        reason = "vlm.boilerplate"
    if reason == "vlm.boilerplate" and talk.REASONING.match(text):
        reason = "vlm.reasoning_only"
    return CaptionFailure(reason, excerpt(text))


def _reason(outcome: Caption | CaptionFailure) -> str | None:
    return outcome.reason if isinstance(outcome, CaptionFailure) else None


def _both(first: Caption | CaptionFailure, second: CaptionFailure) -> CaptionFailure:
    assert isinstance(first, CaptionFailure), "only failures are tried again"
    return CaptionFailure(
        second.reason, f"{second.detail} (first try: {first.reason} {first.detail})"[:500]
    )
