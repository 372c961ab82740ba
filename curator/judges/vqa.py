"""VQAScore: the probability with which a vision-language model says that an image shows a text.

Lin et al. 2024, "Evaluating Text-to-Visual Generation with Image-to-Text Generation"
(arXiv:2404.01291): P("Yes") of the question below, over the whole vocabulary. What differs from the
paper: the spellings "yes", " Yes" and " yes" count too where they are one token, and an answer that
begins with neither yes nor no has no score.
"""

from __future__ import annotations

from collections.abc import Sequence

from curator.captioners import CaptionFailure, CaptionRequest
from curator.core.text import strip_special_tokens
from curator.judges.ask import YesNo, each_once, open_judge, request_of
from curator.scorers import Score, SentenceScore
from curator.scorers.text_windows import Budget, TextPlan, plan_text

QUESTION = 'Does this figure show "{text}"? Please answer yes or no.'
MAX_CHARS = 2000
"""A longer text is asked about in parts, sentence by sentence, and has their mean."""
_BUDGET = Budget(count=len, limit=MAX_CHARS, num_special=0)


class VqaScorer:
    """Scores pairs by P(yes), from 0 to 1, of `model` here or, with `url`, of a server.

    `measures` has `yes` and `no`; from a server also `unlisted`, the probability of all tokens that
    it did not list: yes can be so much likelier at most. Neither yes nor no among the 20 likeliest
    first tokens is the failure `judge.no_yes_no`.

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
            model=model, revision=revision, device=device, dtype=dtype, url=url
        )

    def prefetch(self, pairs: Sequence[tuple[bytes, str]]) -> None:
        """Start decoding the images of the next batch."""
        self._judge.prefetch([_request(image, "") for image in {image for image, _ in pairs}])

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one `Score` per pair, in order; a failure affects only its own pair.

        Raises:
            EngineError: the server gives no log probabilities, or does not answer at all.
        """
        plans = [
            plan_text(text, _BUDGET) if strip_special_tokens(text)[0].strip() else None
            for _, text in pairs
        ]
        parts = [
            [text] if plan.whole else [text[start:end] for start, end in plan.pieces]
            for (_, text), plan in zip(pairs, plans, strict=True)
            if plan is not None
        ]
        asked = [image for (image, _), plan in zip(pairs, plans, strict=True) if plan is not None]
        requests = [
            _request(image, part)
            for image, of_pair in zip(asked, parts, strict=True)
            for part in of_pair
        ]
        answers = iter(each_once(requests, self._judge.yes_no) if requests else ())
        of_pair = iter(parts)
        return [
            Score(None, failure="caption.empty", detail="no text to score")
            if plan is None
            else _score(plan, [next(answers) for _ in next(of_pair)])
            for plan in plans
        ]


def _request(image: bytes, text: str) -> CaptionRequest:
    return request_of(image, QUESTION.format(text=strip_special_tokens(text)[0]))


def _score(plan: TextPlan, answers: Sequence[YesNo | CaptionFailure]) -> Score:
    found: list[YesNo] = []
    for answer in answers:
        if isinstance(answer, CaptionFailure):
            return Score(None, failure=_reason(answer.reason), detail=answer.detail)
        if not answer.leads:
            said = f"its likeliest first token is {answer.said!r}"
            return Score(None, failure="judge.no_yes_no", detail=said)
        found.append(answer)
    means = {
        name: sum(getattr(answer, name) for answer in found) / len(found)
        for name in ("yes", "no", "unlisted")
    }
    return Score(
        means["yes"],
        truncated=not plan.whole,
        sentences=()
        if plan.whole
        else tuple(
            SentenceScore(start, end, answer.yes)
            for (start, end), answer in zip(plan.pieces, found, strict=True)
        ),
        measures={name: mean for name, mean in means.items() if name != "unlisted" or mean},
    )


def _reason(reason: str) -> str:
    return "score.not_finite" if reason == "vlm.garbage" else reason
