"""Group the parameters of a net from shallow to deep, for layer-wise learning rates.

Plain ViTs are grouped by block and pyramids by stage; `pretrain.towers.backbone` says why.
Parameters after the last block or stage belong to its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

Groups = list[list[nn.Parameter]]


def by_block(net: nn.Module, blocks: Iterable[nn.Module]) -> Groups:
    """Return the parameters before the blocks (or stages), then one group per block."""
    groups = [list(block.parameters()) for block in blocks]
    inside = {id(parameter) for group in groups for parameter in group}
    before = [parameter for parameter in net.parameters() if id(parameter) not in inside]
    return [before, *groups]


def by_block_of_timm(net: Any) -> Groups:
    """Return the embedding of a timm plain ViT, then its blocks."""
    return [[net.get_parameter(name) for name in names] for names in _ordered(net, coarse=False)]


def by_stage(net: Any, stages: Sequence[str]) -> Groups:
    """Return the stem of a timm pyramid, then its stages; empty groups are left out.

    `stages` are the names of the modules whose outputs are the maps, in order. timm's own groups
    (stages, blocks or single layers, depending on the net) define the order of parameters; a stage
    is all groups up to the one that holds the last parameter of its module. The stem is timm's
    first group, unless that is a stage by itself.
    """
    ordered = _ordered(net, coarse=True)
    ends = [_last_with(ordered, stage) for stage in stages]
    bounds = sorted({0, *(end for end in ends if end is not None)})
    if ends[-1] is not None:
        bounds.pop()
    # The last stage ends the net, even if its module is an activation without parameters.
    bounds.append(len(ordered) - 1)
    groups: Groups = []
    start = 0
    for bound in bounds:
        names = [name for group in ordered[start : bound + 1] for name in group]
        if names:
            groups.append([net.get_parameter(name) for name in names])
        start = bound + 1
    return groups


def _ordered(net: Any, *, coarse: bool) -> list[list[str]]:
    """Return parameter names in timm's groups, or by top-level module if timm has no groups."""
    if not hasattr(net, "group_matcher"):
        by_module: dict[str, list[str]] = {}
        for name, _ in net.named_parameters():
            by_module.setdefault(_module_of(name), []).append(name)
        return list(by_module.values())
    groups = group_parameters(net, net.group_matcher(coarse=coarse))
    return [groups[depth] for depth in sorted(groups)]


def _module_of(name: str) -> str:
    """Return the first part of a name and a number after it: `stem`, `stages.2`."""
    first, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdigit() else first


def _last_with(groups: Sequence[Sequence[str]], module: str) -> int | None:
    found = [
        place
        for place, names in enumerate(groups)
        if any(name.startswith(f"{module}.") for name in names)
    ]
    return found[-1] if found else None
