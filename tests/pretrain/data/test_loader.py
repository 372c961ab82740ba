"""Batches: the same whatever makes them, and what goes wrong while they are made."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from curator.core.errors import DamageError, EngineError
from pretrain.data import batches, pixels
from pretrain.data.loader import Batch, Pipeline, open_source
from pretrain.data.options import DataOptions
from tests.kit import tars
from tests.kit.data import half_jpeg, lengths
from tests.kit.paths import ROOT
from tests.kit.store import Kit, small_store


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return small_store(tmp_path_factory.mktemp("store") / "shards")


def pipeline(spec: str, *, text: bool = True, **options: object) -> Pipeline:
    given: dict[str, object] = {"image_px": 16, "batch_size": 4} | options
    source = open_source(spec, need_text=text)
    return Pipeline(
        source,
        DataOptions(**given),  # type: ignore[arg-type]  # checked when made
        tokenize=lengths if text else None,
    )


def take(made: Pipeline, number: int, start: int = 0) -> list[Batch]:
    batches = made.batches(start)
    found = list(itertools.islice(batches, number))
    batches.close()
    return found


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for one, other in zip(first, second, strict=True)
        for name in Batch.__dataclass_fields__
    )


@pytest.mark.parametrize("keep_bytes", [batches.KEEP_BYTES, 9 * 32 * 32 * 4 - 1])
def test_pictures_of_a_small_source_are_decoded_once(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, keep_bytes: int
) -> None:
    """Nine pictures, 32x32 at four bytes a pixel: they fit, or one byte is missing."""
    decoded: list[bytes] = []

    def counted(data: bytes, *more: Any) -> Any:
        decoded.append(data)
        return decode(data, *more)

    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", counted)
    made = pipeline(f"{kit.ws.spec}@v3", image_px=32)
    options = made._options
    kept = batches.Loader(options, lengths, drawn=True, num_samples=9, keep_bytes=keep_bytes)
    plain = batches.Loader(options, lengths, drawn=True, num_samples=9, keep_bytes=0)
    plans = list(itertools.islice(made.plans(0), 9))  # four epochs
    expected = [plain.make(plan) for plan in plans]
    assert len(decoded) == 36
    assert same([kept.make(plan) for plan in plans], expected)
    assert len(decoded) - 36 == (9 if keep_bytes == batches.KEEP_BYTES else 36)


@pytest.mark.long
def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_a_run_begins(kit: Kit) -> None:
    """Pixels, tokens and all; six batches of four are more than two epochs of nine."""
    spec = f"{kit.ws.spec}@v3"
    expected = take(pipeline(spec, captions="all"), 6)
    before = torch.get_rng_state()
    for workers in (1, 2):
        made = pipeline(spec, captions="all", num_workers=workers)
        assert same(take(made, 6), expected)
        assert same(take(made, 2, start=4), expected[4:])
    assert torch.equal(torch.get_rng_state(), before)  # training draws from it
    assert not same(take(pipeline(spec, captions="all", seed=1), 6), expected)


def test_the_parts_of_a_batch(kit: Kit) -> None:
    one = take(pipeline(f"{kit.ws.spec}@v3"), 1)[0]
    assert one.images.shape == (4, 3, 16, 16)
    assert one.images.dtype == torch.uint8
    assert one.images.is_contiguous(memory_format=torch.channels_last)
    assert one.tokens.shape == (4, 1)
    assert one.owners.tolist() == [0, 1, 2, 3]
    whole = take(pipeline(f"{kit.ws.spec}@v3", captions="all", batch_size=9), 1)[0]
    assert sorted(whole.samples.tolist()) == list(range(9))
    # All but a3, a4 and b1 (samples 3, 4 and 7) have two texts.
    of_owner = torch.bincount(whole.owners).tolist()
    counts = {sample: count for sample, count in zip(whole.samples.tolist(), of_owner, strict=True)}
    assert counts == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1, 5: 2, 6: 2, 7: 1, 8: 2}
    none = take(pipeline(f"{kit.ws.spec}@v3", text=False), 1)[0]
    assert (len(none.tokens), len(none.owners)) == (0, 0)


def test_a_picture_and_its_text_belong_together(tmp_path: Path) -> None:
    """One colour a sample, and a text as long as its number: crops cannot change either."""
    files = [
        file
        for number in range(1, 21)
        for file in tars.sample(f"{number:09d}", number, caption="x" * number)
    ]
    tars.write(tmp_path, tars.tar(files))
    colour = {number: torch.tensor([number * 37, number * 91 + 50, number * 151 + 100]) % 256
              for number in range(1, 21)}  # fmt: skip
    for batch in take(pipeline(str(tmp_path), batch_size=5), 8):
        for image, tokens, sample in zip(batch.images, batch.tokens, batch.samples, strict=True):
            number = int(tokens[0])
            assert number == int(sample) + 1
            assert (image.float().mean((1, 2)) - colour[number]).abs().max() < 6  # JPEG


def test_in_order_gives_each_sample_once_with_its_heaviest_text(kit: Kit) -> None:
    made = pipeline(f"{kit.ws.spec}@v3", captions="all", sentences=1.0)
    found = list(made.in_order())
    assert [batch.samples.tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    first = ["Two dogs run on the beach near Brighton", "IMG_2034.JPG", "a man riding a bike"]
    assert found[0].tokens.ravel().tolist()[:3] == [len(text) for text in first]
    assert same(list(made.in_order()), found)


@pytest.mark.long
def test_an_error_of_a_worker_arrives_as_it_was_raised(tmp_path: Path) -> None:
    tars.write(tmp_path, tars.tar([("bad.jpg", half_jpeg()), ("bad.txt", b"noise")]))
    with pytest.raises(DamageError) as error:
        take(pipeline(str(tmp_path), num_workers=1), 1)
    assert error.value.what.startswith("the image of 'bad' cannot be used")
    assert error.value.reason == "pretrain.bad_image"
    assert error.value.where == str(tmp_path / "00000.tar")


class Dying:
    """A tokenizer that takes its process with it."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        os._exit(1)


@pytest.mark.long
def test_a_worker_that_dies_is_an_engine_error(kit: Kit) -> None:
    source = open_source(f"{kit.ws.spec}@v3")
    options = DataOptions(image_px=16, batch_size=4, num_workers=1)
    with pytest.raises(EngineError, match="a process that decodes images died"):
        next(Pipeline(source, options, tokenize=Dying()).batches())


_PROGRAM = """
import sys
from curator.core.errors import StoppedError
from curator.core.stopping import stop_on_signals
from pretrain.data.loader import Pipeline, open_source
from pretrain.data.options import DataOptions
from tests.kit.data import lengths

if __name__ == "__main__":
    options = DataOptions(image_px=16, batch_size=4, num_workers=2)
    pipeline = Pipeline(open_source(sys.argv[1]), options, tokenize=lengths)
    with stop_on_signals() as stop:
        for number, _ in enumerate(pipeline.batches()):
            if number == 3:
                print("going", flush=True)
            try:
                stop.check("all is kept")
            except StoppedError as stopped:
                sys.exit(stopped.code)
"""


@pytest.mark.slow  # a fresh interpreter and a server of workers: mostly imports
def test_ctrl_c_ends_all_processes_without_a_word(kit: Kit) -> None:
    """Ctrl-C reaches every process of the terminal, and only the parent answers it."""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _PROGRAM, f"{kit.ws.spec}@v3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "going\n"
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate()
    assert child.returncode == 130
    assert errors.strip() == "stopping: finishing what is in flight; once more stops at once"
    with contextlib.suppress(ProcessLookupError):
        while True:  # the server of the workers goes a moment later
            os.killpg(child.pid, 0)
            time.sleep(0.1)
