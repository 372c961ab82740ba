"""Sentence by sentence: is it supported by the image? A vision-language model answers in words.

What it said is kept with the score, so that a person can see why. A judge is only as good as its
model: the how-to page on judges shows how to calibrate one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from curator.captioners import Caption, CaptionFailure
from curator.core.text import split_sentences, strip_special_tokens
from curator.judges.ask import each_once, open_judge, request_of
from curator.scorers import Score, SentenceScore

SUPPORTED, CANNOT_TELL, NOT_SUPPORTED = 1.0, 0.5, 0.0
"""The score of a sentence. `min_score` of surgery chooses between them."""
QUESTION = (
    'Look at the image and judge this sentence: "{text}"\n'
    "Begin your answer with exactly one of: supported, not supported, cannot tell. "
    "Then say in a few words what you see."
)
MAX_TOKENS = 48
MAX_CHARS = 2000
_OPENING = re.compile(
    r"""[\W_]*(?:(?:the|this)\s+(?:sentence|statement|claim)\s+is\s+|(?:answer|verdict)\s*:[\W_]*)?
    (?:(?P<no>not\s+supported|unsupported|contradicted)
    |(?P<unknown>can(?:not|['\u2019]t|\s+not)\s+tell|unclear|uncertain)
    |(?P<yes>supported))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_VERDICTS = {"yes": SUPPORTED, "no": NOT_SUPPORTED, "unknown": CANNOT_TELL}
_NAMES = {SUPPORTED: "supported", NOT_SUPPORTED: "not_supported", CANNOT_TELL: "cannot_tell"}


def verdict_of(answer: str) -> float | None:
    """Return what an answer says, by its beginning; None if it is none of the three."""
    found = _OPENING.match(answer)
    return None if found is None or found.lastgroup is None else _VERDICTS[found.lastgroup]


class ClaimsScorer:
    """Scores pairs by the share of sentences that `model` finds supported by the image.

    `sentences` has 1 for a supported sentence, 0 for one that is not, and 0.5 where the judge
    cannot tell; only supported ones count for the share. `words` is what the judge said of each,
    and `measures` counts the verdicts. A single answer that is none of the three is the failure
    `judge.unclear` of the whole text, with those words: a share without it would be made up.

    Raises:
        UsageError, NotFoundError, EngineError: as `curator.judges.ask.open_judge`.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        url: str | Sequence[str] | None = None,
    ) -> None:
        self._judge = open_judge(
            model=model,
            revision=revision,
            device=device,
            dtype=dtype,
            url=url,
            max_tokens=MAX_TOKENS,
        )

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one `Score` per pair, in order; a failure affects only its own pair.

        Raises:
            EngineError: the server does not answer at all.
        """
        spans = [split_sentences(text) for _, text in pairs]
        requests = [
            request_of(image, QUESTION.format(text=_asked(text[start:end])))
            for (image, text), of_text in zip(pairs, spans, strict=True)
            for start, end in of_text
        ]
        answers = iter(each_once(requests, self._judge.say) if requests else ())
        return [_score(of_text, [next(answers) for _ in of_text]) for of_text in spans]


def _asked(sentence: str) -> str:
    """Return a sentence as the judge gets it; a "sentence" beyond all measure is cut."""
    return strip_special_tokens(sentence)[0][:MAX_CHARS]


def _score(spans: Sequence[tuple[int, int]], answers: Sequence[Caption | CaptionFailure]) -> Score:
    if not spans:
        return Score(None, failure="caption.empty", detail="no text to score")
    verdicts: list[float] = []
    words: list[str] = []
    for answer in answers:
        if isinstance(answer, CaptionFailure):
            return Score(None, failure=answer.reason, detail=answer.detail)
        verdict = verdict_of(answer.text)
        if verdict is None:
            return Score(None, failure="judge.unclear", detail=f"it said {answer.text[:400]!r}")
        verdicts.append(verdict)
        words.append(" ".join(answer.text.split()))
    return Score(
        verdicts.count(SUPPORTED) / len(verdicts),
        sentences=tuple(
            SentenceScore(start, end, verdict)
            for (start, end), verdict in zip(spans, verdicts, strict=True)
        ),
        measures={name: float(verdicts.count(value)) for value, name in _NAMES.items()},
        words=tuple(words),
    )
