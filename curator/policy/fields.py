"""Fields that a policy rule can test about a text: one row of `FIELDS` per field.

The policy model, the decider, the preview, the page Policy, the page of `curator diff --html` and
docs/reference/policy-fields.md read this table, so a new field needs only one more row
(docs/extend/policy_field.md).

`value` is a polars expression over a frame with one row per text and these columns: `text`;
`source` ("alt_text" or the name of the generator); `score` (float32, null if never scored); `width`
and `height` of the image in pixels; `truncated` (1 or 0). `copies` and `copy_number` exist only for
a field with `needs="copies"`, `flags` only with `needs="flags"`. Neither null nor NaN passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import polars as pl

from curator.scorers.text import FLAGS

_RuleStart = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyField:
    """One field.

    Args:
        label: its name on the pages, in lower case.
        unit: shown after a number on the pages, such as "px".
        help: what the number means, in a sentence.
        value: the number of each text; for the list `flags`, its names.
        lowest, highest: limits outside this range are refused; texts have no other values.
        step: step of the number box on the page Policy.
        needs: facts beyond the text and its image, without which the policy is refused ("scores",
            "flags"), or a prior pass over all images of the dataset ("copies").
        names: for a list of names instead of a number: allowed names and their meanings.
        starts: entries of "Add a rule" on the page Policy, with their initial keys.
        examples: (columns of a text, its value), worked out by hand, for the contract tests.
    """

    label: str
    unit: str = ""
    help: str
    value: pl.Expr
    lowest: float = -inf
    highest: float = inf
    step: float = 1.0
    needs: Literal["scores", "flags", "copies"] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, _RuleStart] = field(default_factory=dict)
    examples: tuple[tuple[Mapping[str, object], object], ...] = ()

    @property
    def range(self) -> str:
        """Return the allowed limits in words."""
        if self.highest < inf:
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more" if self.lowest > -inf else "any number"


FIELDS: dict[str, PolicyField] = {
    "score": PolicyField(
        label="score",
        help="The alignment score of text and image by the policy's scorer.",
        value=pl.col("score"),
        step=0.01,
        needs="scores",
        starts={
            "best scores of each source": {"name": "aligned", "min_percentile": 30},
            "score at least": {"name": "fits", "min": 0.2},
        },
        examples=(({"score": 0.25}, 0.25), ({"score": None}, None)),
    ),
    "num_words": PolicyField(
        label="words",
        help="Number of words of the text: runs of characters between white space.",
        value=pl.col("text").str.count_matches(r"\S+"),
        lowest=0,
        starts={
            "words at least": {"name": "long_enough", "min": 3},
            "words at most": {"name": "short_enough", "max": 60},
        },
        examples=(({"text": "two dogs,  running"}, 3), ({"text": "犬が走る"}, 1)),
    ),
    "num_chars": PolicyField(
        label="characters",
        help="Number of characters of the text (Unicode code points, white space included).",
        value=pl.col("text").str.len_chars(),
        lowest=0,
        examples=(({"text": "a dog"}, 5), ({"text": "été"}, 3)),
    ),
    "flags": PolicyField(
        label="flags",
        help="Problems that the text checker found in the text.",
        value=pl.col("flags"),
        needs="flags",
        names=FLAGS,
        starts={"health of the text": {"name": "healthy"}},
        examples=(({"flags": ["spam", "url"]}, ["spam", "url"]), ({"flags": []}, [])),
    ),
    "truncated": PolicyField(
        label="cut at the token limit",
        help="1 for a caption that the token limit cut in the middle of a sentence, else 0.",
        value=pl.col("truncated"),
        lowest=0,
        highest=1,
        starts={"whole sentences only": {"name": "whole", "max": 0}},
        examples=(({"truncated": 1}, 1),),
    ),
    "width": PolicyField(
        label="width",
        unit="px",
        help="Width of the image in pixels.",
        value=pl.col("width"),
        lowest=0,
        starts={"width at least": {"name": "wide_enough", "min": 200}},
        examples=(({"width": 640}, 640),),
    ),
    "height": PolicyField(
        label="height",
        unit="px",
        help="Height of the image in pixels.",
        value=pl.col("height"),
        lowest=0,
        starts={"height at least": {"name": "high_enough", "min": 200}},
        examples=(({"height": 480}, 480),),
    ),
    "copies": PolicyField(
        label="copies of the image",
        help="Number of samples of the dataset with the same image, this one included.",
        value=pl.col("copies"),
        lowest=0,
        needs="copies",
        examples=(({"copies": 2}, 2),),
    ),
    "copy_number": PolicyField(
        label="number of the copy",
        help="0 for the first sample of the dataset with this image, 1 for the next, and so on.",
        value=pl.col("copy_number"),
        lowest=0,
        needs="copies",
        starts={"first of equal images": {"name": "unique", "max": 0}},
        examples=(({"copy_number": 1}, 1),),
    ),
}
