"""The parameters of a net from shallow to deep, in groups that learn at rates of their own.

Plain ViTs by block and pyramids by stage; see `pretrain.towers.backbone` for why. What comes behind
the last block or stage learns with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

Groups = list[list[nn.Parameter]]


def by_block(net: nn.Module, blocks: Iterable[nn.Module]) -> Groups:
    """What comes before the blocks (or stages), then one group each."""
    groups = [list(block.parameters()) for block in blocks]
    inside = {id(parameter) for group in groups for parameter in group}
    before = [parameter for parameter in net.parameters() if id(parameter) not in inside]
    return [before, *groups]


def by_block_of_timm(net: Any) -> Groups:
    """The embedding of a plain ViT of timm, then its blocks."""
    return [[net.get_parameter(name) for name in names] for names in _ordered(net, coarse=False)]


def by_stage(net: Any, stages: Sequence[str]) -> Groups:
    """The stem of a pyramid of timm, then its stages; empty ones are left out.

    `stages` are the names of the modules that its maps come out of, in order. timm's own groups,
    which are stages, blocks or single layers by the net, say what comes before what; a stage is all
    of them up to the one that holds the last parameter of its module. The stem is timm's first
    group, as long as it is no stage by itself.
    """
    ordered = _ordered(net, coarse=True)
    ends = [_last_with(ordered, stage) for stage in stages]
    bounds = sorted({0, *(end for end in ends if end is not None)})
    if ends[-1] is not None:
        bounds.pop()
    # The last stage ends the net, also where its module is an activation, without parameters.
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
    """Names of all parameters in timm's groups; without any, in the order of top-level modules."""
    if not hasattr(net, "group_matcher"):
        by_module: dict[str, list[str]] = {}
        for name, _ in net.named_parameters():
            by_module.setdefault(_module_of(name), []).append(name)
        return list(by_module.values())
    groups = group_parameters(net, net.group_matcher(coarse=coarse))
    return [groups[depth] for depth in sorted(groups)]


def _module_of(name: str) -> str:
    """`stem`, `stages.2`: the first word, and the number behind it."""
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
