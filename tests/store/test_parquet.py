"""Parquet that notices damage, and a digest of content that depends on nothing else."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DamageError
from curator.store import parquet

SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("number", pa.float32()),
        ("flag", pa.bool_()),
        ("raw", pa.large_binary()),
        (
            "parts",
            pa.large_list(pa.struct([("start", pa.int32()), ("name", pa.large_string())])),
        ),
    ]
)
ROWS: list[dict[str, object]] = [
    {"text": "ein Hund", "number": 0.5, "flag": True, "raw": b"\xff", "parts": []},
    {"text": None, "number": None, "flag": None, "raw": None, "parts": None},
    {"text": "猫", "flag": False, "parts": [{"start": 1, "name": "a"}, {"start": 2}]},
]


def table(rows: list[dict[str, object]]) -> pa.Table:
    return parquet.to_table(parquet.from_rows(rows, SCHEMA), SCHEMA)


def test_round_trip_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write(path, table(ROWS), b'{"a":1}')
    frame = parquet.read(path, SCHEMA)
    assert parquet.read_metadata(path) == b'{"a":1}'
    assert frame["text"].to_list() == ["ein Hund", None, "猫"]
    assert frame["parts"].to_list()[2] == [{"start": 1, "name": "a"}, {"start": 2, "name": None}]
    assert parquet.read(path, SCHEMA, ["flag"]).columns == ["flag"]


def test_200_flipped_bits_never_read_as_other_values(tmp_path: Path) -> None:
    # Reliability finding 3: without page checksums 70 % of such flips read back as other text.
    random.seed(1)
    rows: list[dict[str, object]] = [
        {"text": "".join(random.choices("abcdefgh ", k=80)), "number": n / 7} for n in range(500)
    ]
    data = parquet.to_bytes(table(rows))
    wanted = parquet.content_digest(table(rows))
    path = tmp_path / "t.parquet"
    errors = 0
    for _ in range(200):
        broken = bytearray(data)
        broken[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(bytes(broken))
        try:
            frame = parquet.read(path, SCHEMA)
        except DamageError:
            errors += 1
        else:
            assert parquet.content_digest(parquet.to_table(frame, SCHEMA)) == wanted
    assert errors > 150


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([field for field in SCHEMA if field.name != "flag"]),
        pa.schema([*SCHEMA, ("more", pa.int8())]),
        pa.schema([f if f.name != "number" else ("number", pa.int64()) for f in SCHEMA]),
    ],
    ids=["missing column", "extra column", "other type"],
)
def test_other_columns_are_damage(tmp_path: Path, schema: pa.Schema) -> None:
    parquet.write(tmp_path / "t.parquet", parquet.to_table(parquet.empty(schema), schema))
    with pytest.raises(DamageError, match=r"t\.parquet") as caught:
        parquet.read(tmp_path / "t.parquet", SCHEMA)
    assert caught.value.code == 12


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="missing"):
        parquet.read(tmp_path / "no.parquet", SCHEMA)


def test_the_digest_sees_values_and_not_chunks_or_parquet(tmp_path: Path) -> None:
    whole = table(ROWS)
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    parquet.write(tmp_path / "t.parquet", whole)
    back = parquet.to_table(parquet.read(tmp_path / "t.parquet", SCHEMA), SCHEMA)
    assert parquet.content_digest(whole) == parquet.content_digest(pieces)
    assert parquet.content_digest(whole) == parquet.content_digest(back)
    assert parquet.content_digest(whole.slice(1)) == parquet.content_digest(table(ROWS[1:]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # each pair would be the same bytes if lengths, nulls or names were left out
        ([{"text": "ab"}, {"text": "c"}], [{"text": "a"}, {"text": "bc"}]),
        ([{"text": ""}], [{"text": None}]),
        ([{"number": 0.0}], [{"number": None}]),
        ([{"flag": False}], [{"flag": None}]),
        ([{"parts": []}], [{"parts": None}]),
        ([{"parts": [{"start": 1}]}, {"parts": []}], [{"parts": []}, {"parts": [{"start": 1}]}]),
        ([{"parts": [{"name": "ab"}]}], [{"parts": [{"name": "a"}, {"name": "b"}]}]),
    ],
)
def test_the_digest_tells_alike_tables_apart(
    one: list[dict[str, object]], other: list[dict[str, object]]
) -> None:
    assert parquet.content_digest(table(one)) != parquet.content_digest(table(other))


@given(st.lists(st.tuples(st.none() | st.text(max_size=5), st.booleans()), max_size=6))
def test_equal_rows_give_equal_digests_and_others_do_not(
    rows: list[tuple[str | None, bool]],
) -> None:
    # st.text() draws no lone surrogates here: they cannot be stored, `curator.core.text` removes
    # them
    clean = [(t.encode("utf-8", "replace").decode() if t else t, f) for t, f in rows]
    made = table([{"text": text, "flag": flag} for text, flag in clean])
    again = table([{"text": text, "flag": flag} for text, flag in clean])
    assert parquet.content_digest(made) == parquet.content_digest(again)
    swapped = table([{"text": text, "flag": not flag} for text, flag in clean])
    if clean:
        assert parquet.content_digest(made) != parquet.content_digest(swapped)


def test_the_digest_is_the_one_that_older_stores_were_made_with() -> None:
    # ids of versions rest on it: name, rows, validity, lengths, bytes (hashed by hand here)
    two = pa.schema([("text", pa.large_string()), ("flag", pa.bool_())])
    made = parquet.to_table(parquet.from_rows([{"text": "ab", "flag": True}, {}], two), two)
    text = b"text\0" + b"2\0" + bytes([1, 0]) + struct.pack("<qq", 2, 0) + b"ab"
    flag = b"flag\0" + b"2\0" + bytes([1, 0]) + bytes([1, 0])
    assert parquet.content_digest(made) == hashlib.sha256(text + flag).hexdigest()


def test_bytes_that_lie_under_a_null_are_nobodys_value() -> None:
    offsets, data = pa.py_buffer(struct.pack("<qqq", 0, 2, 5)), pa.py_buffer(b"abxyz")
    only_first = pa.py_buffer(b"\x01")
    hidden = pa.Array.from_buffers(pa.large_string(), 2, [only_first, offsets, data])
    plain = pa.array(["ab", None], pa.large_string())
    digests = [parquet.content_digest(pa.table({"text": one})) for one in (hidden, plain)]
    assert digests[0] == digests[1]


def test_neither_building_nor_reading_imports_pandas(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, pyarrow as pa; from curator.store import parquet as tables;"
        "s = pa.schema([('a', pa.int32()), ('b', pa.large_list(pa.large_string()))]);"
        "t = tables.to_table(tables.from_rows([{'a': 1, 'b': ['x']}], s), s);"
        "tables.content_digest(t); tables.to_bytes(t); tables.empty(s);"
        "import pathlib; p = pathlib.Path('x.parquet'); tables.write(p, t, b'{}');"
        "assert tables.read(p, s, ['b', 'a']).columns == ['b', 'a']; tables.read_metadata(p);"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
