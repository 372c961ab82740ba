"""Control arms, each worked out by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import UsageError
from pretrain.data.controls import (
    CountMatched,
    LengthMatched,
    Shuffled,
    derangement,
    length_shares,
    shares,
    together,
)
from pretrain.data.loader import open_source
from pretrain.data.rng import hashes
from pretrain.data.source import Source
from pretrain.data.tables import Tables
from tests.kit.data import FakeTables, counted, texts_of
from tests.kit.store import Kit, small_store


def texts(tables: Tables) -> dict[str, list[str]]:
    return texts_of(Source(tables, name="test", source_id="0", about={}))


# -- shuffled -------------------------------------------------------------------------------------


@given(kinds=st.lists(st.sampled_from("abcdef"), max_size=30), seed=st.integers(0, 9))
def test_nobody_gets_an_equal_text_unless_one_has_more_than_half(
    kinds: list[str], seed: int
) -> None:
    giver = derangement(kinds, hashes(seed, np.arange(len(kinds))))
    assert sorted(giver.tolist()) == list(range(len(kinds)))
    most = max(Counter(kinds).values(), default=0)
    equal = sum(kinds[place] == kinds[other] for place, other in enumerate(giver))
    assert equal == max(0, 2 * most - len(kinds))


def test_texts_are_shuffled_over_a_whole_shard_and_nothing_gets_lost() -> None:
    before = texts(counted(1500, 1200))
    after = texts(Shuffled(counted(1500, 1200), 0))
    assert after.keys() == before.keys()
    assert sorted(after.values()) == sorted(before.values())
    assert all(after[key] != before[key] for key in before)
    moves = [
        int(after[f"0-{row}"][0].split()[2]) - row
        for row in range(1500)
        if after[f"0-{row}"][0].startswith("text 0")
    ]
    assert len(moves) == 1500  # a large shard is shuffled by itself
    assert len(set(moves)) > 500  # and not just turned
    assert after != texts(Shuffled(counted(1500, 1200), 1))


def test_small_shards_are_shuffled_together() -> None:
    before, after = texts(counted(1, 1, 1)), texts(Shuffled(counted(1, 1, 1), 0))
    assert sorted(after.values()) == sorted(before.values())
    assert all(after[key] != before[key] for key in before)
    assert together(np.array([3, 3, 0, 5, 1]), 5) == [(0, 1), (2, 3, 4)]
    assert together(np.array([1]), 5) == [(0,)]


def test_several_texts_of_a_sample_move_together() -> None:
    tables = FakeTables([["a", "b"], ["c"]])
    assert texts(Shuffled(tables, 0)) == {"0-0": ["c"], "0-1": ["a", "b"]}
    assert Shuffled(tables, 0).read(0).rows["weights"].to_list() == [[1.0], [0.5, 0.5]]


# -- count-matched --------------------------------------------------------------------------------


def test_shares_go_by_largest_remainder() -> None:
    assert shares(np.array([3, 1]), 2).tolist() == [2, 0]  # 1.5 and 0.5: the first of equals
    assert shares(np.array([10, 20, 5]), 7).tolist() == [2, 4, 1]
    assert shares(np.array([0, 0]), 0).tolist() == [0, 0]


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=8), share=st.floats(0, 1))
def test_shares_add_up_and_fit(counts: list[int], share: float) -> None:
    total = int(sum(counts) * share)
    dealt = shares(np.array(counts, np.int64), total)
    assert dealt.sum() == total
    assert (dealt <= counts).all()
    assert (dealt >= 0).all()


def test_count_matched_keeps_some_samples_with_their_texts() -> None:
    before, after = texts(counted(10, 20, 5)), texts(CountMatched(counted(10, 20, 5), 7, 0))
    assert after.items() <= before.items()
    assert Counter(key[0] for key in after) == {"0": 2, "1": 4, "2": 1}
    assert after != texts(CountMatched(counted(10, 20, 5), 7, 1))


def test_the_reference_must_not_be_larger() -> None:
    with pytest.raises(UsageError, match="the reference has 8 samples, this version only 7"):
        CountMatched(counted(3, 4), 8, 0)


# -- length-matched -------------------------------------------------------------------------------


def sized(*numbers: int) -> FakeTables:
    """One shard with a text of so many words for each number."""
    return FakeTables([[" ".join("abcdefghij"[:number])] for number in numbers])


def test_lengths_are_matched_rank_by_rank() -> None:
    """Half of the texts have 2 words, half 4; the reference has 1 and 3 words."""
    matched = LengthMatched(sized(4, 2, 2, 4), sized(1, 3), 0)
    assert texts(matched) == {"0-0": ["a b c"], "0-1": ["a"], "0-2": ["a"], "0-3": ["a b c"]}


def test_a_reference_without_texts_has_no_lengths() -> None:
    with pytest.raises(UsageError, match="no texts to take lengths from"):
        LengthMatched(sized(1), FakeTables([]), 0)


def test_a_text_is_never_made_longer() -> None:
    """Rank by rank: 1 word against 2 stays 1, 6 words against 3 are cut."""
    assert texts(LengthMatched(sized(1, 6), sized(2, 3), 0)) == {"0-0": ["a"], "0-1": ["a b c"]}


def test_equal_texts_take_their_ranks_by_lot() -> None:
    """All have 9 words; half of the reference has 2, half 5, so that half is cut to each."""
    matched = LengthMatched(sized(*[9] * 400), sized(2, 5), 0)
    found = Counter(len(one[0].split()) for one in texts(matched).values())
    assert set(found) == {2, 5}
    assert abs(found[2] - 200) < 30  # 3 standard deviations of 400 coins


def test_texts_weigh_by_their_weights_and_white_space_stays_where_nothing_is_cut() -> None:
    # One sample with texts of 2 and 4 words at half a sample each, one with 4 words.
    tables = FakeTables([["a b", "a  b c d"], ["a b c d"]])
    assert length_shares(tables).tolist() == [0, 0, 0.25, 0, 0.75]
    kept = texts(LengthMatched(tables, tables, 0))
    assert kept == {"0-0": ["a b", "a  b c d"], "0-1": ["a b c d"]}


# -- from a version -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return small_store(tmp_path_factory.mktemp("store") / "shards")


def opened(kit: Kit, policy: str, control: str, reference: str | None = None) -> Source:
    spec = f"{kit.ws.spec}@{kit.versions[policy].name}"
    other = None if reference is None else f"{kit.ws.spec}@{kit.versions[reference].name}"
    return open_source(spec, control=control, reference=other)


def test_captions_only(kit: Kit) -> None:
    """a4 has no caption; that of b1 is its alt text, which comes first and stays."""
    source = opened(kit, "all", "captions-only")
    assert source.num_samples == kit.versions["all"].counts["captioned"] == 7
    assert texts_of(source) == {
        "a0": ["two dogs running on a beach"],
        "a1": ["a man in a red hat"],
        "a2": ["a man on a bicycle"],
        "a3": ["a woman holding a cat"],
        "a5": ["a plane in the sky"],
        "b0": ["three children in front of a tower"],
        "b3": ['a sign with the words "a & b"'],
    }
    assert source.read(0).rows["weights"].to_list() == [[1.0]] * 5


def test_filter_only_and_alt_only(kit: Kit) -> None:
    """The strict version keeps four samples; a3 has no alt text, b2 is broken."""
    alt = {
        "a0": ["Two dogs run on the beach near Brighton"],
        "a1": ["IMG_2034.JPG"],
        "a2": ["a man riding a bike"],
        "a4": ["A plate with 3 apples"],
        "a5": ["cheap flights book now"],
        "b0": ["Three kids with Anna in Paris"],
        "b1": ["a red car"],
        "b3": ["a <b>bold</b> sign"],
    }
    assert texts_of(opened(kit, "best", "alt-only")) == alt
    assert texts_of(opened(kit, "strict", "alt-only")) == alt
    # best leaves a3 a caption, for which there is no alt text, and a4 its alt text.
    assert texts_of(opened(kit, "best", "filter-only")) == alt
    kept = {"a0", "a2", "b0", "b1"}
    strict = texts_of(opened(kit, "strict", "filter-only"))
    assert strict == {key: one for key, one in alt.items() if key in kept}


def test_matched_to_another_version(kit: Kit) -> None:
    assert opened(kit, "all", "count-matched", "strict").num_samples == 4
    source = opened(kit, "all", "length-matched", "strict")
    assert source.num_samples == 9
    assert source.describe()["control"] == "length-matched"
    assert source.describe()["reference"].endswith("@v4")


def test_a_control_is_part_of_the_identity(kit: Kit) -> None:
    plain = open_source(f"{kit.ws.spec}@v3")
    assert plain.id == kit.versions["all"].id
    others = [
        opened(kit, "all", "shuffled"),
        opened(kit, "all", "alt-only"),
        opened(kit, "all", "captions-only"),
        opened(kit, "all", "count-matched", "strict"),
        opened(kit, "all", "count-matched", "alt"),
        open_source(f"{kit.ws.spec}@v3", control="shuffled", seed=1),
    ]
    assert len({plain.id, *(one.id for one in others)}) == 7


@pytest.mark.parametrize(
    ("control", "reference", "says"),
    [
        ("shufled", None, "unknown control 'shufled'; did you mean 'shuffled'?"),
        ("count-matched", None, "control 'count-matched' needs a reference version"),
        ("shuffled", "x@v1", "the reference 'x@v1' is not used by any control"),
        (None, "x@v1", "the reference 'x@v1' is not used by any control"),
    ],
)
def test_controls_that_do_not_fit(
    kit: Kit, control: str | None, reference: str | None, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        open_source(f"{kit.ws.spec}@v3", control=control, reference=reference)
    assert str(error.value).startswith(says)


def test_a_control_of_texts_needs_an_objective_with_texts(kit: Kit) -> None:
    with pytest.raises(UsageError, match="the objective reads none"):
        open_source(f"{kit.ws.spec}@v3", control="shuffled", need_text=False)


def test_choices_need_a_store(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes((kit.ws.shards[0].path).read_bytes())
    with pytest.raises(UsageError, match="'alt-only' chooses from a version in a store"):
        open_source(str(tmp_path), control="alt-only")
