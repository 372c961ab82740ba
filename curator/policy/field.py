"""One field that the rules of a policy can ask about: a row of `curator.policy.fields.FIELDS`.

`value` is a polars expression over a frame with one row a text and these columns: `text`; `source`
("alt_text" or the name of the generator); `score` (float32, null if never scored); `width` and
`height` of the image in pixels; `truncated` (1 or 0). `copies` and `copy_number` are there only
for a field with `needs="copies"`, `flags` only with `needs="flags"`, and `alt_text`, the sample's
alt text or null, only with `needs="alt_text"`. Neither null nor NaN passes.

It lies apart from the table, so that a module of a new field can import it and the table can
import that module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import polars as pl

_RuleStart = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyField:
    """One row.

    Args:
        label: how the pages call it, in lower case.
        unit: behind a number on the pages, such as "px".
        help: what the number is, in a sentence.
        value: the number of each text; for the list `flags` its names.
        lowest, highest: a limit outside is refused; texts have no other values.
        step: of the number box on the page Policy.
        needs: facts beyond the text and its image, without which the policy is refused ("scores",
            "flags", "concepts"), a pass over all images of the dataset first ("copies"), or the
            alt text of the sample beside each of its texts ("alt_text").
        names: for a list of names instead of a number: the allowed ones, with what they mean.
        starts: what the page Policy offers under "Add a rule", and the keys that it starts with.
        examples: (columns of a text, its value), worked out by hand, for the contract suite.
    """

    label: str
    unit: str = ""
    help: str
    value: pl.Expr
    lowest: float = -inf
    highest: float = inf
    step: float = 1.0
    needs: Literal["scores", "flags", "copies", "alt_text", "concepts"] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, _RuleStart] = field(default_factory=dict)
    examples: tuple[tuple[Mapping[str, object], object], ...] = ()

    @property
    def range(self) -> str:
        """The allowed limits in words."""
        if self.highest < inf:
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more" if self.lowest > -inf else "any number"
