"""Drop path (stochastic depth, Huang et al. 2016) for a net that was built without it.

In training, the residual branch of a block is left out for a random part of the images, and scaled
up for the others. As in timm, BEiT and MAE, the rate grows linearly from 0 at the first block to
the given one at the last. No parameter is added and none is renamed but the layer scales of
open_clip, which get a `.0` behind their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.layers.drop import DropPath
from torch import nn
from transformers.models.vit_mae.modeling_vit_mae import ViTMAELayer

_PLACE = re.compile(r"drop_path\d?")


def set_drop_path(net: nn.Module, rate: float) -> list[float]:
    """Set the rate of the last block; return the rates of all blocks, shallow to deep.

    The list is empty, and the net unchanged, if its blocks are of a kind that has no place for it.
    """
    blocks = list(_blocks(net))
    rates = [rate * number / max(1, len(blocks) - 1) for number in range(len(blocks))]
    for (block, places), own in zip(blocks, rates, strict=True):
        for place in places:
            branch: Any = getattr(block, place, None)
            drop = DropPath(own)
            keeps = branch is None or isinstance(branch, nn.Identity | nn.Dropout | DropPath)
            setattr(block, place, drop if keeps else nn.Sequential(branch, drop))
    return rates


def _blocks(net: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Yield blocks with the names of the modules that end their residual branches."""
    for block in list(net.modules()):
        if isinstance(block, ResidualAttentionBlock | CustomResidualAttentionBlock):
            yield block, ("ls_1", "ls_2")
        elif isinstance(block, ViTMAELayer):
            yield block, ("dropout",)  # one module for both branches, drawn anew in each
        else:  # timm: an Identity where the rate was 0, in ResNets None
            slots = {**dict(block.named_children()), **vars(block)}
            places = tuple(
                name
                for name, slot in slots.items()
                if _PLACE.fullmatch(name)
                and (slot is None or isinstance(slot, nn.Identity | DropPath))
            )
            if places:
                yield block, places
