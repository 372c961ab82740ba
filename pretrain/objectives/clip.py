"""CLIP (Radford et al. 2021, arXiv 2103.00020), with one or several captions per image.

With one, the loss is `open_clip.ClipLoss`. With several, every caption of an image is a positive:
image to text is the mean over an image's captions of -log softmax over all texts of the batch;
text to image is the cross entropy of a text to its image, averaged within an image first, so that
images with many captions weigh no more (GBC, Hsieh et al. 2024, arXiv 2407.06723: drawing one
caption per step instead costs 2.8 to 8.5 points on average).

A batch taken in parts keeps its contrastive size (GradCache, Gao et al. 2021, arXiv 2101.06983):
the features of all parts are computed without gradients, the loss of the whole batch gives the
gradient of every feature, and each part is computed again to carry it into the towers. This costs a
third more FLOPs. Losses and gradients are those of the whole batch, except that batch normalisation
takes its statistics from each part and updates them twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pretrain import distributed
from pretrain.data.loader import Batch
from pretrain.objectives import Autocast
from pretrain.objectives.images import Normalise
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import build_clip, save_clip
from pretrain.towers.tokens import Tokenizer

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

_MAX_LOGIT_SCALE = math.log(100)
_ACCURACY_ROWS = 256
_LENGTHS, _ROWS_A_LENGTH = 4, 16


def short_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Use plain attention on CPUs: for short sequences a third faster than the flash kernel."""
    if device.type != "cpu":
        return nullcontext()
    context: AbstractContextManager[Any] = sdpa_kernel(SDPBackend.MATH)
    return context


class Contrastive(torch.nn.Module, ABC):
    """Two towers and a loss over all pairs of the global batch; see `pretrain.objectives`."""

    _causal_LL: torch.Tensor | None

    def __init__(self, recipe: Recipe, **start: float) -> None:
        """`start` are the initial temperature and bias of the loss; see `build_clip`."""
        super().__init__()
        self.clip = clip = build_clip(recipe, **start)
        warm_start(clip.net.visual, recipe)
        self.model = clip.net
        self.normalise = Normalise(clip.mean, clip.std)
        text = clip.net.text
        # With a causal mask nothing after the end of a text changes its features: cut it there.
        causal_LL = text.attn_mask if text.pool_type in ("argmax", "eos") else None
        self.register_buffer("_causal_LL", causal_LL, persistent=False)

    def tokenizer(self) -> Tokenizer:
        """See `pretrain.objectives`."""
        return self.clip.tokenize

    @abstractmethod
    def compare(
        self, images_BD: torch.Tensor, texts_ND: torch.Tensor, owners_N: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of this process's unit features against those of all processes."""

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return `loss`, image-to-text `accuracy` within this process, and `logit_scale`."""
        return self._losses(
            self.encode_images(batch.images), self.encode_texts(batch.tokens), batch.owners
        )

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return unit features `[B, width]` of uint8 images."""
        features: torch.Tensor = self.model(image=self.normalise(images))[0]
        return features

    def encode_texts(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Return unit features `[N, width]` of tokens.

        The padding is cut at the longest text, as captions fill less than half of a context on
        average. On a CPU texts of similar length are encoded together, so most are cut much
        shorter; on a GPU all are encoded at once, because each group would add a pass of small
        kernels (docs/results/2026-11-27-h100.md).
        """
        device = self.model.logit_scale.device
        with short_attention(device):
            if self._causal_LL is None:
                whole: torch.Tensor = self.model(text=tokens_NL.to(device, non_blocking=True))[1]
                return whole
            lengths_N = tokens_NL.argmax(1) + 1  # the end-of-text token has the highest number
            if device.type != "cpu":
                return self._cut(tokens_NL.to(device, non_blocking=True), int(lengths_N.max()))
            order_N = lengths_N.argsort(stable=True)
            num_groups = max(1, min(_LENGTHS, len(tokens_NL) // _ROWS_A_LENGTH))
            words_NLD = None
            if self.model._compiled_call_impl is None:  # a compiled model must keep its modules
                # One look-up for all groups, because its gradient is as large as the vocabulary.
                words_NLD = self.model.text.token_embedding(tokens_NL)
            parts = []
            for rows in order_N.chunk(num_groups):
                words = None if words_NLD is None else words_NLD[rows]
                parts.append(self._cut(tokens_NL[rows], int(lengths_N[rows].max()), words))
            return torch.cat(parts)[order_N.argsort()]

    def _cut(
        self, tokens_NL: torch.Tensor, longest: int, words_NLD: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features of texts no longer than `longest`, for a text tower with a causal mask.

        `words_NLD` are the embeddings of the tokens, if already looked up.
        """
        text, causal_LL = self.model.text, self._causal_LL
        assert causal_LL is not None, "the tower has a causal mask"
        used = min(math.ceil(longest / 8) * 8, tokens_NL.shape[1])  # fewer recompilations
        embedding = text.token_embedding
        text.attn_mask = causal_LL[:used, :used]
        if words_NLD is not None:
            text.token_embedding = _LookedUp(words_NLD[:, :used])
        try:
            features: torch.Tensor = self.model(text=tokens_NL[:, :used])[1]
        finally:
            text.attn_mask, text.token_embedding = causal_LL, embedding
        return features

    def _losses(
        self, images_BD: torch.Tensor, texts_ND: torch.Tensor, owners_N: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        device = images_BD.device
        owners_N = owners_N.to(device, non_blocking=True)
        with torch.no_grad():  # as open_clip does after every step
            self.model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
        with torch.autocast(device.type, enabled=False):
            images_BD, texts_ND = images_BD.float(), texts_ND.float()
            loss = self.compare(images_BD, texts_ND, owners_N)
        with torch.no_grad():
            nearest = (images_BD[:_ACCURACY_ROWS] @ texts_ND.T).argmax(1)
            hits = owners_N[nearest] == torch.arange(len(nearest), device=device)
        scale = self.model.logit_scale.exp()
        return {"loss": loss, "accuracy": hits.float().mean(), "logit_scale": scale}

    def backward_in_parts(
        self, batch: Batch, num_parts: int, autocast: Autocast
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of the whole batch, with the activations of one part in memory."""
        seed = torch.initial_seed()
        parts: list[tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = [
            *((self.encode_images, part) for part in batch.images.chunk(num_parts)),
            *((self.encode_texts, part) for part in batch.tokens.chunk(num_parts)),
        ]

        def encode(number: int) -> torch.Tensor:
            torch.manual_seed(seed + number)  # the same dropout both times
            function, part = parts[number]
            with autocast():
                return function(part).float()

        with torch.no_grad():
            features = [encode(number) for number in range(len(parts))]
        leaves = [feature.requires_grad_() for feature in features]
        num_images = len(batch.images.chunk(num_parts))
        losses = self._losses(
            torch.cat(leaves[:num_images]), torch.cat(leaves[num_images:]), batch.owners
        )
        torch.autograd.backward(losses["loss"])
        for number, leaf in enumerate(leaves):
            torch.autograd.backward(encode(number), leaf.grad)
        return losses

    def save(self, folder: Path) -> None:
        """Write the model as a folder that open_clip reads."""
        save_clip(folder, self.clip)


class _LookedUp(torch.nn.Module):
    """Replaces an embedding by rows that were looked up before."""

    def __init__(self, words_NLD: torch.Tensor) -> None:
        super().__init__()
        self._words_NLD = words_NLD

    def forward(self, _tokens_NL: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self._words_NLD


class ClipObjective(Contrastive):
    """CLIP's cross entropy over all pairs; `captions = "all"` allows several texts per image."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.many = recipe.captions == "all"

    def compare(
        self, images_BD: torch.Tensor, texts_ND: torch.Tensor, owners_N: torch.Tensor
    ) -> torch.Tensor:
        """See the class and the module."""
        scale = self.model.logit_scale.exp()
        if self.many:
            return multi_positive(images_BD, texts_ND, owners_N, scale)
        loss: Any = open_clip.ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=distributed.rank(),
            world_size=distributed.size(),
        )
        value: torch.Tensor = loss(images_BD, texts_ND, scale)
        return value


def multi_positive(
    images_BD: torch.Tensor, texts_ND: torch.Tensor, owners_N: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the loss for several captions per image; every image must own at least one text.

    Features are unit vectors. The mean over processes is the loss of the global batch if all have
    the same number of images.
    """
    all_images_AD, first_image = distributed.gather_rows(images_BD)
    all_texts_MD, _ = distributed.gather_rows(texts_ND)
    all_owners_M, _ = distributed.gather_rows(owners_N + first_image)
    num_images = len(images_BD)

    mine_B = torch.arange(num_images, device=images_BD.device) + first_image
    positive_BM = all_owners_M == mine_B[:, None]
    log_p_BM = (scale * images_BD @ all_texts_MD.T).log_softmax(1)
    num_texts_B = positive_BM.sum(1)
    to_text = -((log_p_BM * positive_BM).sum(1) / num_texts_B).mean()

    logits_NA = scale * texts_ND @ all_images_AD.T
    to_image_N = F.cross_entropy(logits_NA, owners_N + first_image, reduction="none")
    to_image = (to_image_N / num_texts_B[owners_N]).sum() / num_images
    return (to_text + to_image) / 2
