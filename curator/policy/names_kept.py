"""The policy field `names_kept`: which share of the alt text's names and numbers a text has."""

from __future__ import annotations

import polars as pl

from curator.core.names import NOTHING, Items, items_of, lost_items
from curator.policy.field import PolicyField


def _kept(pairs: pl.Series) -> pl.Series:
    """Return the share for each (alt_text, text); 1 where the alt text has no names."""
    frame = pairs.struct.unnest()
    known: dict[str | None, Items] = {None: NOTHING}
    shares = []
    for alt_text, text in frame.iter_rows():
        if alt_text not in known:
            known[alt_text] = items_of(alt_text)
        wanted = known[alt_text]
        num = len(wanted.names) + len(wanted.numbers)
        lost = lost_items(wanted, [text])
        shares.append(1 - (len(lost.names) + len(lost.numbers)) / num if num else 1.0)
    return pl.Series(shares, dtype=pl.Float32)


NAMES_KEPT = PolicyField(
    label="names and numbers kept",
    help="The share of the alt text's names and numbers that the text has; 1 if it has none to "
    "keep. Names are capitalised words inside a sentence, as in `curator diff`.",
    value=pl.struct("alt_text", "text").map_batches(_kept, return_dtype=pl.Float32),
    lowest=0,
    highest=1,
    step=0.1,
    needs="alt_text",
    starts={"names and numbers kept": {"name": "keeps_names", "min": 0.5}},
    examples=(
        ({"alt_text": "a plane, the 737 of Lufthansa", "text": "a 737 lands"}, 0.5),
        ({"alt_text": "a plane", "text": "a 737 lands"}, 1),
        ({"alt_text": None, "text": "a 737 lands"}, 1),
    ),
)
