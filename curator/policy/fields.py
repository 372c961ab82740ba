"""Fields that a policy rule can test about a text: one row of `FIELDS` per field.

The policy model, the decider, the preview, the page Policy, the page of `curator diff --html` and
docs/reference/policy-fields.md read this table, so a new field needs only one more row
(docs/extend/policy_field.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from curator.core.errors import UsageError
from curator.policy.field import PolicyField
from curator.policy.names_kept import NAMES_KEPT
from curator.scorers.concepts import FIELD_PREFIX
from curator.scorers.text import FLAGS

COLUMNS = (
    *("text", "source", "score", "width", "height", "truncated"),
    *("flags", "copies", "copy_number", "alt_text"),
)
"""What the expression of a field may use; the decider has more columns, which are its own."""

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
    "names_kept": NAMES_KEPT,
}


def field_of(name: str) -> PolicyField:
    """Return the row of a field; `concept.NAME` has one for every name.

    Raises:
        KeyError: no such field.
    """
    if not name.startswith(FIELD_PREFIX):
        return FIELDS[name]
    concept = name.removeprefix(FIELD_PREFIX)
    return PolicyField(
        label=f"looks like {concept}",
        help=f"How much the image looks like the words of the concept {concept}.",
        value=pl.col(name),
        lowest=0,
        highest=1,
        step=0.05,
        needs="concepts",
    )


def with_fields(texts: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Add the values of these fields to a frame of texts (`curator.policy.field` has its columns).

    Raises:
        UsageError: policy_field.contract; a field asks for a column that is not there, or gives
            something else than numbers, or for a field with `names` than lists of strings.
    """
    values = {name: field_of(name).value for name in dict.fromkeys(names)}
    try:
        found = texts.with_columns(**values)
    except pl.exceptions.PolarsError:
        for name, value in values.items():
            try:
                texts.select(value)
            except pl.exceptions.PolarsError as error:
                (first, *_) = str(error).splitlines() or [type(error).__name__]
                said = f"the expression of its row cannot be computed ({first})"
                raise _unfit(name, said, texts) from error
        raise  # each by itself can be computed: not the fault of one row
    for name in values:
        dtype = found.schema[name]
        wanted = dtype == pl.List(pl.String) if field_of(name).names else dtype.is_numeric()
        if not wanted and dtype != pl.Null:
            raise _unfit(name, f"the expression of its row gives {dtype}", texts)
    return found


def _unfit(name: str, what: str, texts: pl.DataFrame) -> UsageError:
    kind = "a list of strings" if field_of(name).names else "a number"
    return UsageError(
        f"policy field {name!r}: {what}",
        hint=f"it must give {kind} for each text, and may use the columns "
        f"{', '.join(column for column in COLUMNS if column in texts.columns)}",
        reason="policy_field.contract",
    )
