"""Training of the bundled models: the same seed gives the same bytes; the cells are the truth's."""

from __future__ import annotations

import hashlib
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.captioners.prompts import PRESETS
from curator.core.errors import StoppedError, UsageError
from curator.core.stopping import StopRequest
from curator.demo.checker import check
from curator.demo.language import LENGTHS, Length
from curator.demo.scene import COLORS, KINDS, MATERIALS, sample_scene
from pretrain.demo_models import captioner, scorer
from pretrain.demo_models.cells import cell_targets
from pretrain.demo_models.images import (
    GRID,
    SIDE_PX,
    SceneImages,
    as_pixels,
    batches,
    load_images,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SceneImages:
    return load_images(tmp_path_factory.mktemp("images"), 0, 10)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class StopAfter(StopRequest):
    """A Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        if not self._left:
            self.signum = signal.SIGINT
        return super().__call__()


@pytest.mark.slow
@pytest.mark.parametrize("module", [captioner, scorer], ids=["captioner", "scorer"])
def test_a_training_that_was_stopped_ends_with_the_same_bytes(
    module: Any, images: SceneImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)

    def train(name: str, steps: int, stop: StopRequest) -> dict[str, str]:
        module.train(images, tmp_path / name, steps=steps, device=torch.device("cpu"), stop=stop)
        return digests(tmp_path / name)

    whole = train("whole", 4, StopRequest())
    assert any(name.endswith(".safetensors") for name in whole)
    with pytest.raises(StoppedError, match="2 of 4 steps"):
        train("parts", 4, StopAfter(2))
    assert train("parts", 4, StopRequest()) == whole
    assert train("other", 5, StopRequest()) != whole  # it can tell


def test_images_are_rendered_once_and_read_again(tmp_path: Path) -> None:
    first = load_images(tmp_path, 3, 2)
    (stored,) = tmp_path.iterdir()
    before = stored.stat().st_mtime_ns
    again = load_images(tmp_path, 3, 2)
    assert stored.stat().st_mtime_ns == before
    assert (first.rgb == again.rgb).all()
    assert first.scenes == again.scenes
    assert first.rgb.shape == (2, SIDE_PX, SIDE_PX, 3)
    assert [scene.seed // 1000 for scene in first.scenes] == [3, 4]


def test_held_out_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not for training"):
        load_images(tmp_path, 9_999_990, 11)
    assert not list(tmp_path.iterdir())


def test_scenes_of_training_have_patterns(images: SceneImages) -> None:
    kinds = {one.material for scene in images.scenes for one in scene.things}
    assert kinds & {"striped", "dotted"}
    assert images.cells.shape == (10, GRID, GRID)
    for cells, scene in zip(images.cells, images.scenes, strict=True):
        # Every thing covers 2.5 % of its image, 1.6 of 64 cells.
        assert set(np.unique(cells)) - {0} == set(range(1, len(scene.things) + 1))


def test_cells_tell_of_the_thing_that_rules_them() -> None:
    scene = next(s for s in map(sample_scene, range(100)) if len(s.things) == 2)
    cells = np.zeros((1, GRID, GRID), np.uint8)
    cells[0, 2, 3] = 2
    targets = cell_targets(SceneImages(np.zeros((1, 1, 1, 3), np.uint8), cells, [scene]))
    assert targets.shape == (1, GRID * GRID, 3)
    kind, color, material = targets[0, 2 * GRID + 3]
    ruling = scene.things[1]
    assert KINDS[kind] == ruling.kind
    assert tuple(COLORS)[color] == ruling.color
    assert MATERIALS[material] == ruling.material
    assert (np.delete(targets[0], 2 * GRID + 3, axis=0) == -1).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_each_length_is_asked_for_in_two_wordings(length: Length) -> None:
    preset = PRESETS[length]
    assert captioner.prompts(length) == [preset.text, preset.alternative]


def test_a_false_caption_stands_beside_every_true_one(images: SceneImages) -> None:
    scenes = images.scenes[:8]
    texts = scorer._texts(scenes, np.random.default_rng(0))
    assert len(texts) == 8 + 8 + 1  # and one alt text that describes nothing
    for scene, right, false in zip(scenes, texts[:8], texts[8:16], strict=True):
        assert check(right, scene).is_right
        assert not check(false, scene).is_right


def test_every_number_comes_once_a_round() -> None:
    drawn = np.concatenate(list(islice(batches(6, 4, seed=0), 3)))
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))


def test_batches_begin_at_any_number() -> None:
    numbers = [list(batch) for batch in islice(batches(7, 3, seed=1), 6)]
    assert [list(batch) for batch in islice(batches(7, 3, seed=1, first=4), 2)] == numbers[4:]


def test_pixels_are_scaled_to_plus_minus_one() -> None:
    rgb = np.zeros((1, 2, 2, 3), np.uint8)
    rgb[0, 0, 1] = (255, 0, 51)
    pixels = as_pixels(rgb)
    assert pixels.shape == (1, 3, 2, 2)
    assert pixels[0, :, 0, 1].tolist() == pytest.approx([1.0, -1.0, -0.6])
