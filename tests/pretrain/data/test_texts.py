"""Which captions a step sees, and what is cut out of a picture."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curator.core.errors import Unusable, UsageError
from pretrain.data import pixels, texts
from pretrain.data.options import DataOptions
from pretrain.data.rng import Ints
from tests.kit import tars

NUM = 4000


def draw(
    *pairs: tuple[str, float], most: int = 1, sentences: float = 0.0, num: int = NUM
) -> tuple[list[str], Ints]:
    """What `num` samples with the same texts and weights get."""
    return texts.draw(
        [[text for text, _ in pairs]] * num,
        [[weight for _, weight in pairs]] * num,
        most=most,
        sentences=sentences,
        seed=0,
        epochs=np.zeros(num, np.int64),
        samples=np.arange(num),
    )


def test_one_caption_is_drawn_by_its_weight() -> None:
    found, owners = draw(("a", 0.75), ("b", 0.25), ("never", 0.0))
    assert owners.tolist() == list(range(NUM))
    shares = Counter(found)
    assert set(shares) == {"a", "b"}
    assert abs(shares["a"] / NUM - 0.75) < 3 * (0.75 * 0.25 / NUM) ** 0.5


def test_several_captions_are_different_ones_and_heavy_ones_come_first() -> None:
    found, owners = draw(("a", 0.6), ("b", 0.3), ("c", 0.1), ("never", 0.0), most=2)
    assert owners.tolist() == [place for place in range(NUM) for _ in range(2)]
    pairs = Counter(zip(found[::2], found[1::2], strict=True))
    # First b, then c: 0.3 x 0.1 / 0.7.
    expected = 0.3 * 0.1 / 0.7
    assert abs(pairs["b", "c"] / NUM - expected) < 3 * (expected / NUM) ** 0.5
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")}


def test_fewer_texts_than_asked_for_are_all_taken() -> None:
    found, owners = draw(("a", 0.5), ("b", 0.5), most=4, num=1)
    assert sorted(found) == ["a", "b"]
    assert owners.tolist() == [0, 0]


def test_a_draw_depends_on_epoch_and_sample_and_not_on_the_batch() -> None:
    given_texts, weights = [["a", "b"]] * 64, [[0.5, 0.5]] * 64

    def drawn(epoch: int, samples: Ints) -> list[str]:
        return texts.draw(
            given_texts[: len(samples)],
            weights[: len(samples)],
            most=1,
            sentences=0.0,
            seed=0,
            epochs=np.full(len(samples), epoch),
            samples=samples,
        )[0]

    numbers = np.arange(64)
    assert drawn(0, numbers)[40:] == drawn(0, numbers[40:])
    assert drawn(0, numbers) != drawn(1, numbers)


def test_sentences_replace_a_text_as_often_as_asked_for() -> None:
    text = "A dog runs. The sea is blue. It rains."
    found = Counter(draw((text, 1.0), sentences=0.6)[0])
    assert set(found) == {text, "A dog runs.", "The sea is blue.", "It rains."}
    assert abs(found[text] / NUM - 0.4) < 3 * (0.24 / NUM) ** 0.5
    assert min(found.values()) > 0.15 * NUM
    assert set(draw(("one sentence", 1.0), sentences=1.0, num=5)[0]) == {"one sentence"}


def test_the_heaviest_text_is_the_first_of_equals() -> None:
    found, owners = texts.heaviest([["a", "b"], ["c", "d"]], [[0.4, 0.6], [0.5, 0.5]])
    assert (found, owners.tolist()) == (["b", "c"], [0, 1])


# -- pixels ---------------------------------------------------------------------------------------

halves = st.floats(0, 1, exclude_max=True)


@given(
    shape=st.floats(0.05, 20),
    draws=st.tuples(halves, halves, halves, halves),
    scale_min=st.floats(0.05, 1),
)
def test_a_cut_lies_inside_and_has_the_area_and_aspect_asked_for(
    shape: float, draws: tuple[float, ...], scale_min: float
) -> None:
    box = pixels.random_box(shape, np.array(draws), scale_min)
    across, down = box.right - box.left, box.bottom - box.top
    assert 0 <= box.left < box.right <= 1
    assert 0 <= box.top < box.bottom <= 1
    aspect = across / down * shape
    assert 0.75 - 1e-6 < aspect < 4 / 3 + 1e-6
    if box != pixels.middle_box(shape):
        area = scale_min + (1 - scale_min) * draws[0]
        assert abs(across * down - area) < 1e-6


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (1.0, (0, 0, 1, 1)),
        (4 / 3, (0, 0, 1, 1)),
        (2.0, (1 / 6, 0, 5 / 6, 1)),  # 4:3 of 2:1 is two thirds of the width
        (0.5, (0, 1 / 6, 1, 5 / 6)),
    ],
)
def test_the_middle_is_as_much_as_is_no_longer_than_four_to_three(
    shape: float, box: tuple[float, ...]
) -> None:
    assert pixels.middle_box(shape) == pytest.approx(box)


def flag() -> bytes:
    """60 x 40, red on the left and blue on the right."""
    image = Image.new("RGB", (60, 40), (255, 0, 0))
    image.paste((0, 0, 255), (30, 0, 60, 40))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_pixels_are_those_of_the_cut() -> None:
    right = pixels.load(flag(), 8, lambda _: pixels.Box(0.5, 0, 1, 1))
    assert right.shape == (8, 8, 3)
    # The filter reaches a few pixels over the edge of the cut.
    assert (right[:, 2:] == (0, 0, 255)).all()
    both = pixels.load(flag(), 8, lambda shape: pixels.Box(0, 0, 1, shape / 1.5))
    assert (both[:, 0] == (255, 0, 0)).all()
    assert (both[:, -1] == (0, 0, 255)).all()


SHARES = st.tuples(st.floats(0.1, 1), st.floats(0.1, 1))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(32, 300), st.integers(32, 300)),
    side=st.integers(1, 64),
    first=SHARES,
    second=SHARES,
    kind=st.sampled_from(["JPEG", "PNG"]),
)
def test_a_picture_serves_another_cut_if_it_would_be_decoded_the_same(
    size: tuple[int, int],
    side: int,
    first: tuple[float, float],
    second: tuple[float, float],
    kind: str,
) -> None:
    out = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(out, kind)
    one, other = (
        pixels.decode(out.getvalue(), side, lambda _, box=box: pixels.Box(0, 0, *box))
        for box in (first, second)
    )
    serves = pixels.serves(one, side, lambda _: pixels.Box(0, 0, *second))
    assert serves == (one.reduction == other.reduction)


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(Unusable):
        pixels.load(tars.image_bytes()[:200], 8, pixels.middle_box)


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_px", 0),
        ("batch_size", 0),
        ("captions", "two"),
        ("max_captions", 0),
        ("sentences", 1.5),
        ("crop_scale_min", 0.0),
        ("num_workers", -1),
        ("window_samples", 0),
    ],
)
def test_options_out_of_range_are_named(field: str, value: object) -> None:
    good: dict[str, object] = {"image_px": 8, "batch_size": 2}
    with pytest.raises(UsageError, match=f"^{field} is {value!r}; allowed: "):
        DataOptions(**{**good, field: value})  # type: ignore[arg-type]  # that is the test
