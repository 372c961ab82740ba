"""A policy field: which fraction of the words of a text are different ones.

1 for "a dog on a lawn", 0.5 for "dog dog": a caption that says the same words again and again is
long and tells little.
"""

from __future__ import annotations

import polars as pl

from curator.policy.field import PolicyField

_WORDS = pl.col("text").str.to_lowercase().str.extract_all(r"\S+")

DISTINCT_WORDS = PolicyField(
    label="distinct words among all words",
    help="Different words of the text divided by all its words, from 0 to 1.",
    value=_WORDS.list.n_unique() / _WORDS.list.len(),
    lowest=0,
    highest=1,
    step=0.05,
    starts={"distinct words at least": {"name": "varied", "min": 0.5}},
    examples=(
        ({"text": "Dog dog dog cat"}, 0.5),  # dog and cat, of four words
        ({"text": "a red car"}, 1.0),
        ({"text": ""}, None),  # no word: 0 / 0, which passes no rule
    ),
)
