"""Columns of the tables in a store. Imports Arrow only: a query starts with these."""

from __future__ import annotations

import pyarrow as pa

CAPTIONS = "captions"
SCORES = "scores"
"""The kinds of facts, and their folders."""

MEMBER = pa.struct([("ext", pa.large_string()), ("offset", pa.int64()), ("length", pa.int64())])
INDEX_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("key", pa.large_string()),
        ("ext", pa.large_string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("image_sha256", pa.large_string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image_format", pa.large_string()),
        ("alt_text", pa.large_string()),
        ("alt_sha256", pa.large_string()),
        ("alt_raw", pa.large_binary()),
        ("flags", pa.large_list(pa.large_string())),
        ("members", pa.large_list(MEMBER)),
        ("reason", pa.large_string()),
        ("detail", pa.large_string()),
    ]
)

CAPTION_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.large_string()),
        ("candidate", pa.int16()),
        ("text", pa.large_string()),
        ("text_sha256", pa.large_string()),
        ("finish_reason", pa.large_string()),
        ("num_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("failure", pa.large_string()),
        ("detail", pa.large_string()),
        ("attempt", pa.int16()),
        ("created", pa.float64()),
    ]
)
SENTENCE = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("score", pa.float32())])
MEASURE = pa.struct([("name", pa.large_string()), ("value", pa.float32())])
SCORE_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.large_string()),  # "" if only the text was scored
        ("text_sha256", pa.large_string()),
        ("score", pa.float32()),
        ("num_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("sentences", pa.large_list(SENTENCE)),
        ("flags", pa.large_list(pa.large_string())),
        ("measures", pa.large_list(MEASURE)),
        ("failure", pa.large_string()),
        ("detail", pa.large_string()),
        ("attempt", pa.int16()),
        ("created", pa.float64()),
    ]
)

DECISION_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("key", pa.large_string()),
        ("image_sha256", pa.large_string()),
        ("action", pa.large_string()),  # one of versions.ACTIONS
        ("slot", pa.int16()),  # 0 for the first text of a sample, 1 for the second, ...
        ("text", pa.large_string()),  # null for dropped and quarantined samples
        ("text_sha256", pa.large_string()),
        ("source", pa.large_string()),  # alt_text, or the name of the generator
        ("weight", pa.float32()),  # sampling weight, sums to 1 per sample
        ("score", pa.float32()),  # the policy's scorer on this text; null if never scored
        ("because", pa.large_string()),
    ]
)
