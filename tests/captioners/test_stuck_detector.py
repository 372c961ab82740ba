"""One caption for too many different images of a shard."""

from __future__ import annotations

from curator.captioners import Caption
from curator.captioners.echo import EchoCaptioner
from curator.captioners.stuck_detector import StuckDetector
from tests.kit.captions import picture

PICTURES = [picture(number) for number in range(40)]


def test_the_21st_image_takes_all_of_them_down() -> None:
    detector: StuckDetector[int] = StuckDetector()
    spellings = ["A room.", "a  ROOM", "a room ."]
    early = [detector.note("s", number, spellings[number % 3]) for number in range(20)]
    assert early == [[]] * 20
    assert detector.note("s", 20, "A room.") == list(range(21))
    assert detector.note("s", 21, "A room.") == [21]
    assert detector.note("s", 22, "A dog.") == []


def test_shards_are_counted_apart() -> None:
    detector: StuckDetector[int] = StuckDetector()
    for shard in ("a", "b"):
        assert all(not detector.note(shard, number, "A room.") for number in range(20))


def test_a_tenth_of_a_large_shard_may_look_alike() -> None:
    detector: StuckDetector[int] = StuckDetector()
    for number in range(400):
        detector.note("s", number, f"picture {number}")
    # 40 of 440 are less than a tenth; with the 45th of 445 the share is 10.1 %
    found = [detector.note("s", 400 + number, "A man in a suit.") for number in range(45)]
    assert [len(images) for images in found] == [0] * 44 + [45]


def test_a_shard_is_hopeless_when_21_in_a_row_must_not_be_used() -> None:
    detector: StuckDetector[int] = StuckDetector()
    for number in range(21 + 20):
        detector.note("s", number, "A room.")
    assert not detector.hopeless("s")
    detector.note("s", 41, "A room.")
    assert detector.hopeless("s")
    assert not detector.hopeless("another")


def test_a_shard_with_other_captions_between_is_not_hopeless() -> None:
    detector: StuckDetector[int] = StuckDetector()
    for number in range(400):
        detector.note("s", number, "A room." if number % 20 else f"Picture {number}.")
    assert not detector.hopeless("s")


def test_the_fake_that_is_stuck_is_found() -> None:
    detector: StuckDetector[str] = StuckDetector()
    lost: list[str] = []
    for request, outcome in zip(
        PICTURES, EchoCaptioner(fault="stuck").caption(PICTURES), strict=True
    ):
        assert isinstance(outcome, Caption)
        lost += detector.note("s", request.image_sha256, outcome.text)
    assert lost == [request.image_sha256 for request in PICTURES]
