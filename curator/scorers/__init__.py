"""The scorer protocol, and the table of scorers.

A new scorer is one class in one file and one row in `SCORERS`. The command line, policies, `doctor`
and the contract suite (tests/contracts/test_scorers.py) read the row; docs/extend/scorer.md shows
one from beginning to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from curator.core.model_spec import OPEN_CLIP_FILES, TRANSFORMERS_FILES, ModelSpec
from curator.core.registry import Registry


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """The score of one sentence (or window) of a longer text: characters `start:end` of it."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Score:
    """The result of a scorer for one (image, text) pair.

    `score` is raw (a cosine for CLIP, in [-1, 1]), or None with `failure` set. If the text has
    several sentences or exceeds the scorer's context, `sentences` has one score for each. If it
    exceeds the context, `truncated` is true and `score` is the mean over `sentences`, never the
    score of a silently cut text. `flags` are codes of `curator.scorers.text`, such as `refusal`;
    `measures` are named numbers behind the score. `words` is what a judge said, in its own words,
    one for each of `sentences`.

    A scorer need not score sentences; its row says so (`by_sentence`).
    """

    score: float | None
    num_tokens: int = 0
    truncated: bool = False
    sentences: tuple[SentenceScore, ...] = ()
    flags: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    detail: str = ""
    words: tuple[str, ...] = ()


class Scorer(Protocol):
    """Scores (image, text) pairs. Built once per worker process.

    The keyword arguments of its constructor depend on `needs` of its row in `SCORERS`:

        needs      keywords
        nothing    `language`, if its row says so
        model      `model`, `revision`, `device`, `dtype`; `url` (a list for several) instead of the
                   last three, where its row says `served` and `--scorer-url` is given

    It may have a method `prefetch(pairs)`, which gets the batch after the next call of `score` and
    returns at once.
    """

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one score per pair (encoded image bytes, text), in the same order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec(ModelSpec):
    """A row of the scorer table.

    Attributes:
        text_only: the scorer reads only the text, so it runs once per text and gets no image.
            Policies use its flags, not its score.
        language: its constructor takes `language`, the language that captions should be in.
        served: its constructor takes `url` too: the model may be one of a server.
        by_sentence: texts of several sentences have a score for each, which surgery needs.
        judge: its model should be of another family than the captioner (`curator.steps.kinship`).
    """

    text_only: bool = False
    language: bool = False
    served: bool = False
    by_sentence: bool = True
    judge: bool = False


SCORERS = Registry(
    "scorer",
    {
        "clip": ScorerSpec(
            "curator.scorers.clip:ClipScorer",
            help="similarity of image and text by a CLIP or SigLIP model",
            needs="model",
            default_model="hf-hub:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
            default_model_gpu="hf-hub:timm/ViT-B-16-SigLIP2-256",
            files=OPEN_CLIP_FILES,
            tiny="tests.kit.tiny:clip",
        ),
        "vqa": ScorerSpec(
            "curator.judges.vqa:VqaScorer",
            help="VQAScore: how likely a vision-language model says that the image shows the text",
            needs="model",
            default_model="HuggingFaceTB/SmolVLM-500M-Instruct",
            default_model_gpu="Qwen/Qwen3-VL-2B-Instruct",
            files=TRANSFORMERS_FILES,
            tiny="tests.kit.tiny:judge",
            served=True,
            by_sentence=False,
            judge=True,
        ),
        "claims": ScorerSpec(
            "curator.judges.claims:ClaimsScorer",
            help="the share of sentences that a vision-language model finds supported by the image",
            needs="model",
            default_model="HuggingFaceTB/SmolVLM-500M-Instruct",
            default_model_gpu="Qwen/Qwen3-VL-2B-Instruct",
            files=TRANSFORMERS_FILES,
            tiny="tests.kit.tiny:claims_judge",
            served=True,
            judge=True,
        ),
        "itm": ScorerSpec(
            "curator.judges.itm:ItmScorer",
            help="how likely image and text match, by the matching head of a BLIP model",
            needs="model",
            default_model="Salesforce/blip-itm-base-coco",
            files=TRANSFORMERS_FILES,
            tiny="tests.kit.tiny:itm",
            judge=True,
        ),
        "concept": ScorerSpec(
            "curator.scorers.concept:ConceptScorer",
            help="how much an image looks like words of yours; set by `score --concept`",
            needs="model",
            default_model="hf-hub:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
            default_model_gpu="hf-hub:timm/ViT-B-16-SigLIP2-256",
            files=OPEN_CLIP_FILES,
            tiny="tests.kit.tiny:clip",
        ),
        "text": ScorerSpec(
            "curator.scorers.text:TextScorer",
            help="flags bad texts without looking at the image: refusals, loops, spam",
            in_process=True,
            version=3,
            text_only=True,
            language=True,
        ),
    },
    protocol=Scorer,
)

CHECKER = "text"
"""The scorer whose flags policies use; it runs in every `score` and `recaption`."""

OF_MODELS = "clip"
"""The scorer that is used when `--scorer` names a model."""


def is_text_only(recipe: Mapping[str, Any]) -> bool:
    """Whether a maker with this recipe scores texts without their images."""
    spec = SCORERS.rows.get(str(recipe.get("scorer")))
    return spec is not None and spec.text_only
