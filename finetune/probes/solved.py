"""The probe `solved`: the best linear map of frozen features, its L2 strength chosen on validation.

A row is a cell of the finest feature map, with all levels scaled to that map (bilinearly) and
standardised. Segmentation is multinomial logistic regression on the shares of the classes among the
cell's labelled pixels; depth is ridge regression of the cell's mean log metres. Both are convex, so
the result depends on no learning rate, number of steps or initial weights. The strength is the one
with the best score of the task on validation images, at the labels' own size; the test images play
no part in it. Without validation images a fifth of the training images is held out for the choice,
and the chosen strength is then fitted on all of them.

The weights go into the task's `LinearHead`, so evaluation is that of any other probe. The
certificate that is stored with the result says how close to the optimum they are.

Cost: 4 * cells * channels * classes FLOPs per evaluation of the loss, 100 to 200 evaluations; the
rows are kept in memory, at most `max_values` numbers of 4 bytes. If there are more, cells are drawn
at random, by the seed.

Shapes: N cells, D channels of all levels, K classes (1 for depth).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from curator.core.errors import UsageError
from curator.core.progress import bar
from curator.core.stopping import StopRequest
from finetune.feeding import Kept
from finetune.heads import LinearHead
from finetune.layouts import IGNORE, Array, Boxes, Split
from finetune.protocols import SOLVED
from finetune.scaling import scaled
from finetune.tasks.base import PixelTask
from finetune.tasks.depth import Depth
from finetune.tasks.segmentation import Segmentation

_CHUNK = 1 << 15
_NORM_EPS = 1e-5
_FLAT = 1e-3  # of a score: less is no reason to want a wider range of strengths

KeptOf = Callable[[Split], Sequence[Kept] | None]
"""Split -> its kept feature maps, or None if they do not fit in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One strength: its score on the validation images, and how far it was fitted.

    `gradient_norm` is relative to the one at zero weights; 0 iterations: solved in closed form.
    """

    strength: float
    score: float
    loss: float
    gradient_norm: float
    iterations: int
    evaluations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How the weights were found, and how close to the optimum they are; stored with the result.

    Attributes:
        strength: the one chosen; `curve` has all that were tried, descending.
        metric: what it was chosen by, on the images that `chosen_on` describes.
        at_edge: whether the best strength is the last one allowed, and the one beside it is worse
            by more than a thousandth: a wider range might do better.
        loss: the mean loss of a cell plus the penalty, at the weights that were evaluated.
        gradient_norm: of that loss by the weights, Euclidean; `gradient_norm_at_zero`: the same at
            zero weights, for scale.
        hit_cap: whether the solver stopped at its limit of iterations, or at the precision of
            float32, before its tolerance.
        cells: number of labelled cells in the fit, of `cells_in_all` cells of the training images
            (those drawn have no label, or more cells than fit in memory).
        seconds: of the fit, without features.
    """

    strength: float
    metric: str
    chosen_on: str
    curve: list[Tried]
    at_edge: bool
    loss: float
    gradient_norm: float
    gradient_norm_at_zero: float
    iterations: int
    evaluations: int
    hit_cap: bool
    cells: int
    cells_in_all: int
    channels: int
    seconds: float
    flops: int

    def to_json(self) -> dict[str, Any]:
        """Return all values."""
        return asdict(self)


def solve(
    task: Depth | Segmentation,
    *,
    train: Split,
    rest: Split,
    val: Split,
    chosen_on: str,
    kept_of: KeptOf,
    stop: StopRequest,
) -> Certificate:
    """Choose the strength and set the weights of the task's linear head.

    Args:
        train: the images to learn from.
        rest: those of them that the strength is chosen with: without the held-out ones.
        val: the images that it is chosen on, described by `chosen_on`.

    Raises:
        UsageError: there is no labelled cell.
        StoppedError: a stop was requested.
    """
    began = time.monotonic()
    assert isinstance(task.head, LinearHead), "a solved probe is linear"
    metric = task.options.spec.metrics[0]
    sign = 1 if metric.higher_is_better else -1
    problem = _problem(task, rest, kept_of(rest), stop)
    kept = kept_of(val)
    tried: dict[float, Tried] = {}
    weights: dict[float, tuple[torch.Tensor, torch.Tensor]] = {}

    def attempt(strength: float) -> None:
        fit = problem.fit(strength, final=False, stop=stop)
        weights[strength] = problem.weights_DK, problem.bias_K
        problem.write(task.head)  # type: ignore[arg-type]  # asserted above
        score = task.evaluate(val, kept=kept, stop=stop).metrics[metric.name]
        tried[strength] = Tried(
            strength=strength,
            score=score,
            loss=fit.loss,
            gradient_norm=fit.gradient_norm / problem.gradient_norm_at_zero,
            iterations=fit.iterations,
            evaluations=fit.evaluations,
        )
        advance(1)

    def best() -> float:
        """Return the strength with the best score; the strongest among equals."""
        return max(sorted(tried, reverse=True), key=lambda one: sign * tried[one].score)

    lowest, highest = SOLVED["strength_limits"]
    with bar("strengths", len(SOLVED["strengths"]), "strengths") as advance:
        for strength in SOLVED["strengths"]:
            attempt(strength)
        while best() == min(tried) and min(tried) > lowest:
            attempt(_next(min(tried), 1 / SOLVED["strength_step"]))
        problem.weights_DK, problem.bias_K = weights[max(tried)]
        while best() == max(tried) and max(tried) < highest:
            attempt(_next(max(tried), SOLVED["strength_step"]))
    chosen = best()
    if rest.names != train.names:
        problem = _problem(task, train, kept_of(train), stop)
    problem.weights_DK, problem.bias_K = weights[chosen]
    fit = problem.fit(chosen, final=True, stop=stop)
    problem.write(task.head)
    return Certificate(
        strength=chosen,
        metric=metric.name,
        chosen_on=chosen_on,
        curve=[tried[one] for one in sorted(tried, reverse=True)],
        at_edge=_at_edge(tried, chosen),
        loss=fit.loss,
        gradient_norm=fit.gradient_norm,
        gradient_norm_at_zero=problem.gradient_norm_at_zero,
        iterations=fit.iterations,
        evaluations=fit.evaluations,
        hit_cap=fit.gradient_norm > SOLVED["tolerance"] * problem.gradient_norm_at_zero,
        cells=problem.num_cells,
        cells_in_all=problem.num_in_all,
        channels=problem.num_channels,
        seconds=time.monotonic() - began,
        flops=problem.flops,
    )


def _at_edge(tried: Mapping[float, Tried], chosen: float) -> bool:
    if len(tried) < 2:  # noqa: PLR2004 - a single strength has none beside it
        return False
    order = sorted(tried)
    beside = {order[0]: order[1], order[-1]: order[-2]}
    if chosen not in beside:
        return False
    score = tried[chosen].score
    return abs(score - tried[beside[chosen]].score) > _FLAT * abs(score)


def _next(strength: float, factor: float) -> float:
    return float(f"{strength * factor:.3g}")  # 1e-06, not 9.999e-07


@dataclass(frozen=True, slots=True)
class _Fit:
    loss: float
    gradient_norm: float
    iterations: int
    evaluations: int


class _Problem(ABC):
    """Standardised rows, and the weights that were fitted last, from which a fit starts."""

    gradient_norm_at_zero: float
    weights_DK: torch.Tensor
    bias_K: torch.Tensor

    def __init__(self, rows: _Rows) -> None:
        self.num_in_all, self.levels = rows.num_in_all, rows.levels
        weight = rows.weights_N.double()
        self.weights_N = (weight / weight.sum()).float()
        self.num_cells, self.num_channels = rows.features_ND.shape
        self.features_ND, self.targets_NK = rows.features_ND, rows.targets_NK
        self.mean_D, moments = self._moments(weight / weight.sum())
        spread = (moments.diag() - self.mean_D.square()).clamp(min=0).sqrt()
        # A channel that hardly varies next to its mean is constant but for rounding.
        is_constant = spread <= 1e-6 * (1 + self.mean_D.abs())
        self.spread_D = torch.where(is_constant, math.inf, spread)
        centred = moments - self.mean_D[:, None] * self.mean_D
        self.covariance_DD = centred / self.spread_D[:, None] / self.spread_D
        for start in range(0, self.num_cells, _CHUNK):
            part = self.features_ND[start : start + _CHUNK]
            part.sub_(self.mean_D.float()).div_(self.spread_D.float())
        values, self.axes_DD = torch.linalg.eigh(self.covariance_DD.cpu())
        device = self.features_ND.device
        self.variances_D = values.clamp(min=0).to(device)
        self.axes_DD = self.axes_DD.to(device)
        self.flops = 2 * self.num_cells * self.num_channels**2

    def _moments(self, weight_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean (D,) and second moments (D, D) in float64."""
        width = self.num_channels
        mean = self.features_ND.new_zeros(width, dtype=torch.float64)
        moments = self.features_ND.new_zeros(width, width, dtype=torch.float64)
        for start in range(0, self.num_cells, _CHUNK):
            part = self.features_ND[start : start + _CHUNK].double()
            weighted = part * weight_N[start : start + _CHUNK, None]
            mean += weighted.sum(0)
            moments += weighted.T @ part
        return mean, moments

    @abstractmethod
    def fit(self, strength: float, *, final: bool, stop: StopRequest) -> _Fit:
        """Minimise the loss at a strength, starting at the weights fitted last."""

    def write(self, head: LinearHead) -> None:
        """Set the head's weights to those fitted last."""
        start = 0
        norms: Any = head.norms  # a ModuleList says only Module
        shares: Any = head.shares
        for level, (norm, share) in enumerate(zip(norms, shares, strict=True)):
            share.weight.data.zero_()
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - _NORM_EPS)  # the norm only subtracts the mean
            norm.eps = _NORM_EPS
            if level not in self.levels:
                continue
            part = slice(start, start + share.weight.shape[1])
            start = part.stop
            norm.running_mean.copy_(self.mean_D[part])
            share.weight.data.copy_(
                (self.weights_DK[part] / self.spread_D[part, None]).T[:, :, None, None]
            )
        shares[0].bias.data.copy_(self.bias_K)


class _Ridge(_Problem):
    """Ridge regression of one standardised number, in closed form."""

    def __init__(self, rows: _Rows) -> None:
        super().__init__(rows)
        weight = self.weights_N.double()
        target = self.targets_NK[:, 0].double()
        self.bias_K = (weight @ target / weight.sum())[None]
        pull = self.features_ND.new_zeros(self.num_channels, dtype=torch.float64)
        self.left_over = float(weight @ (target - self.bias_K).square())
        for start in range(0, self.num_cells, _CHUNK):
            part = slice(start, start + _CHUNK)
            pull += self.features_ND[part].double().T @ (
                weight[part] * (target[part] - self.bias_K)
            )
        self.pull_D = pull
        self.gradient_norm_at_zero = float(pull.norm())

    def fit(self, strength: float, *, final: bool, stop: StopRequest) -> _Fit:
        """Solve (C + strength) w = p; the loss is half the squared error plus the penalty."""
        stop.check("nothing of this cell has been written yet")
        along = (self.axes_DD.T @ self.pull_D) / (self.variances_D + strength)
        weights = self.axes_DD @ along
        self.weights_DK = weights[:, None]
        by_covariance = self.covariance_DD @ weights
        gradient = by_covariance + strength * weights - self.pull_D
        squares = self.left_over - 2 * self.pull_D @ weights + weights @ by_covariance
        loss = 0.5 * float(squares + strength * weights.square().sum())
        return _Fit(loss, float(gradient.norm()), 0, 0)


class _Logistic(_Problem):
    """Multinomial logistic regression on soft labels.

    The unknowns are preconditioned: the weights of a class are P v, P = (c C + strength)^(-1/2), C
    the covariance of the features and c the mean of p (1 - p) of the class. In v the loss is nearly
    round, so L-BFGS needs tens of iterations where it needs hundreds in the weights.
    """

    def __init__(self, rows: _Rows) -> None:
        super().__init__(rows)
        self.targets_KN = self.targets_NK.T.contiguous()
        number = len(self.targets_KN)
        self.curvature_K = self.targets_KN.new_ones(number)
        # Zero weights, and the bias that fits the classes' shares; that of a class without a pixel
        # would be minus infinity.
        self.weights_DK = self.mean_D.new_zeros(self.num_channels, number)
        shares_K = self.targets_KN.double() @ self.weights_N.double()
        self.bias_K = shares_K.clamp(min=1e-6).log()
        _, gradient, bias_gradient = self._at(self.weights_DK, self.bias_K)
        self.gradient_norm_at_zero = _norm(gradient, bias_gradient)

    def _at(
        self, weights_DK: torch.Tensor, bias_K: torch.Tensor
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Return the mean loss of a cell and its gradient by weights and bias, no penalty.

        Sets `curvature_K`, the mean of p (1 - p).
        """
        weights_KD, bias_K1 = weights_DK.float().T, bias_K.float()[:, None]
        gradient_KD = torch.zeros_like(weights_DK.T)
        bias_gradient = torch.zeros_like(bias_K)
        curvature = torch.zeros_like(bias_K)
        loss = torch.zeros((), dtype=torch.float64, device=weights_DK.device)
        # Classes come first: a softmax over rows of a dozen numbers is no vector operation, and
        # with it an evaluation takes twice as long.
        for start in range(0, self.num_cells, _CHUNK):
            part = slice(start, start + _CHUNK)
            features_nD, target_Kn = self.features_ND[part], self.targets_KN[:, part]
            weight_n = self.weights_N[part]
            log_p = torch.addmm(bias_K1, weights_KD, features_nD.T).log_softmax(0)
            loss -= (weight_n * target_Kn * log_p).sum(dtype=torch.float64)
            p = log_p.exp_()
            curvature += (weight_n * p * (1 - p)).sum(1)
            error_Kn = weight_n * (p - target_Kn)
            gradient_KD += error_Kn @ features_nD
            bias_gradient += error_Kn.sum(1)
        self.flops += 4 * self.features_ND.numel() * len(bias_K)
        self.curvature_K = curvature.clamp(min=1e-4)
        return float(loss), gradient_KD.T, bias_gradient

    def fit(self, strength: float, *, final: bool, stop: StopRequest) -> _Fit:
        """See `_Problem`."""
        goal = SOLVED["tolerance" if final else "path_tolerance"] * self.gradient_norm_at_zero
        width, number = self.weights_DK.shape
        device = self.features_ND.device
        # The bias is one more row, of a feature of variance 1.
        variances = torch.cat([self.variances_D, self.variances_D.new_ones(1)])
        scale_DK = (variances[:, None] * self.curvature_K + strength).rsqrt()
        norms: list[float] = []

        def unpacked(flat: Array) -> tuple[torch.Tensor, torch.Tensor]:
            found = torch.from_numpy(flat).to(device).view(width + 1, number)
            found = scale_DK * found
            return self.axes_DD @ found[:width], found[width]

        def loss_and_gradient(flat: Array) -> tuple[float, Array]:
            stop.check("nothing of this cell has been written yet")
            weights, bias = unpacked(flat)
            loss, gradient, bias_gradient = self._at(weights, bias)
            gradient += strength * weights
            norms.append(_norm(gradient, bias_gradient))
            by_unknown = scale_DK * torch.cat([self.axes_DD.T @ gradient, bias_gradient[None]])
            penalty = 0.5 * strength * float(weights.square().sum())
            return loss + penalty, by_unknown.flatten().cpu().numpy()

        def close_enough(_: Array) -> None:
            if norms[-1] <= goal:  # the point evaluated last is the one that was accepted
                raise StopIteration

        start = torch.cat([self.axes_DD.T @ self.weights_DK, self.bias_K[None]]) / scale_DK
        found = minimize(
            loss_and_gradient,
            start.flatten().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            callback=close_enough,
            options={
                "maxiter": SOLVED["iterations" if final else "path_iterations"],
                "maxfun": 10 * SOLVED["iterations"],
                "maxcor": SOLVED["history"],
                "ftol": 0.0,  # only the gradient decides
                "gtol": 0.0,
            },
        )
        self.weights_DK, self.bias_K = unpacked(found.x)
        loss, gradient, bias_gradient = self._at(self.weights_DK, self.bias_K)
        norm = _norm(gradient + strength * self.weights_DK, bias_gradient)
        loss += 0.5 * strength * float(self.weights_DK.square().sum())
        return _Fit(loss, norm, int(found.nit), int(found.nfev))


def _norm(*gradients: torch.Tensor) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in gradients))


# -- rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rows:
    """`levels` are those with features of their own; `num_in_all` counts all cells of the split."""

    features_ND: torch.Tensor
    targets_NK: torch.Tensor
    weights_N: torch.Tensor
    levels: list[int]
    num_in_all: int


def _problem(
    task: PixelTask, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
) -> _Problem:
    rows = _rows(task, split, kept, stop)
    return _Ridge(rows) if isinstance(task, Depth) else _Logistic(rows)


def _rows(task: PixelTask, split: Split, kept: Sequence[Kept] | None, stop: StopRequest) -> _Rows:
    """Return the labelled cells of a split, or as many as fit, in order."""
    device = task.mean.device
    chosen = np.empty(0, np.int64)
    features, targets, weights = (torch.empty(0) for _ in range(3))
    levels: list[int] = []
    first, end, num_cells = 0, 0, 0
    for items, maps_BChw in task.chunks(split, kept, stop):
        finest = (maps_BChw[0].shape[-2], maps_BChw[0].shape[-1])
        size = (SOLVED["finer"] * finest[0], SOLVED["finer"] * finest[1])
        if not levels:
            levels = _different(maps_BChw)
            width = sum(maps_BChw[level].shape[1] for level in levels)
            num_cells = size[0] * size[1]
            chosen = _drawn(
                num_cells * len(split), SOLVED["max_values"] // width, task.options.seed
            )
            features = torch.empty(len(chosen), width, device=device)
        # As the head does it: to the finest map, and from there to the pixels.
        finest_maps = [scaled(maps_BChw[level].float(), finest) for level in levels]
        scaled_up = scaled(torch.cat(finest_maps, 1), size)
        rows_BnD = scaled_up.permute(0, 2, 3, 1).flatten(1, 2)
        for item, rows_nD in zip(items, rows_BnD, strict=True):
            last = np.searchsorted(chosen, (first + 1) * num_cells)
            cells = chosen[np.searchsorted(chosen, first * num_cells) : last] - first * num_cells
            target_nK, weight_n = _labels(task, item.target, size)
            cells = cells[weight_n[cells] > 0]
            rows = slice(end, end + len(cells))
            if not end:
                targets = torch.empty(len(chosen), target_nK.shape[1])
                weights = torch.empty(len(chosen))
            features[rows] = rows_nD[torch.from_numpy(cells).to(device)]
            targets[rows] = torch.from_numpy(target_nK[cells]).float()
            weights[rows] = torch.from_numpy(weight_n[cells]).float()
            first, end = first + 1, rows.stop
    if not end:
        raise UsageError("no cell to learn from is labelled", reason="dense.empty")
    return _Rows(
        features[:end],
        targets[:end].to(device),
        weights[:end].to(device),
        levels,
        num_cells * len(split),
    )


def _different(maps_BChw: Sequence[torch.Tensor]) -> list[int]:
    """Return the levels that do not repeat an earlier one, as those of a net of few stages do."""
    found: list[int] = []
    for level, here in enumerate(maps_BChw):
        if not any(torch.equal(maps_BChw[other], here) for other in found):
            found.append(level)
    return found


def _drawn(number: int, at_most: int, seed: int) -> Array:
    """Return all of `number` cells, or `at_most` of them drawn without replacement; ascending."""
    if number <= at_most:
        return np.arange(number)
    drawn = np.random.default_rng((seed, number)).choice(number, at_most, replace=False)
    return np.sort(drawn)


def _labels(task: PixelTask, target: Array | Boxes, size: tuple[int, int]) -> tuple[Array, Array]:
    """Return (n, K) targets and (n,) labelled shares of the cells of an image, row by row.

    A pixel belongs to the cell that its centre lies in.
    """
    assert not isinstance(target, Boxes), "a solved probe is for maps"
    rows, columns = (
        ((np.arange(length) + 0.5) * cells / length).astype(np.int64)
        for length, cells in zip(target.shape, size, strict=True)
    )
    cell = (rows[:, None] * size[1] + columns).ravel()
    num_cells = size[0] * size[1]
    pixels = np.bincount(cell, minlength=num_cells)
    flat = target.ravel()
    if isinstance(task, Depth):
        has_reading = flat > 0
        logs = np.log(flat, where=has_reading, out=np.zeros(flat.shape, np.float64))
        number = np.bincount(cell, weights=has_reading, minlength=num_cells)
        total = np.bincount(cell, weights=logs, minlength=num_cells)
        mean = total / np.maximum(number, 1)
        target_n = (mean - float(task.log_mean)) / float(task.log_spread)
        return target_n[:, None], number / np.maximum(pixels, 1)
    num_classes = task.head.shares[0].out_channels  # type: ignore[union-attr,index]  # linear
    is_labelled = flat != IGNORE
    counts = np.bincount(
        cell[is_labelled] * num_classes + flat[is_labelled], minlength=num_cells * num_classes
    ).reshape(num_cells, num_classes)
    number = counts.sum(1)
    return counts / np.maximum(number, 1)[:, None], number / np.maximum(pixels, 1)
