"""The hub repositories of open_clip names, from the table that open_clip brings along."""

from __future__ import annotations

import pytest

from curator.core.errors import NotFoundError, UsageError
from curator.core.open_clip_names import repository


def test_names_of_open_clip() -> None:
    assert repository("ViT-B-32", "laion2b_s34b_b79k") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert repository("ViT-B-16-SigLIP2-256", "webli") == "timm/ViT-B-16-SigLIP2-256"
    with pytest.raises(NotFoundError, match="did you mean 'laion2b_s34b_b79k'"):
        repository("ViT-B-32", "laion2b_s34b_b79")
    with pytest.raises(NotFoundError, match=r"no model 'ViT-B-33'.*did you mean"):
        repository("ViT-B-33", "openai")
    with pytest.raises(UsageError, match="pickle"):  # only a pytorch_model.bin on the hub
        repository("ViTamin-S", "datacomp1b")
