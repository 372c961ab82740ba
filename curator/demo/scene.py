"""Sample scenes of the rendered world: a few solids on a ground under a sky, and their relations.

After CLEVR (Johnson et al. 2017), with grounds, skies and depth added. A scene contains everything
that a caption can be right or wrong about: kinds of solids and their attributes, counts, relations.
It is a pure function of its seed.

World: metres; x to the right, y up, z away from the camera, which is above the origin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np

T = TypeVar("T")

Shape = Literal["sphere", "cube", "cylinder", "cone", "torus"]
Size = Literal["small", "large"]
Material = Literal["matte", "shiny", "striped", "dotted"]
Ground = Literal["grass", "sand", "snow", "tiles"]
Sky = Literal["clear", "cloudy", "sunset", "night"]
Relation = Literal["left of", "right of", "in front of", "behind", "on top of", "under"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
MATERIALS: tuple[Material, ...] = get_args(Material)
GROUNDS: tuple[Ground, ...] = get_args(Ground)
SKIES: tuple[Sky, ...] = get_args(Sky)
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.08, 0.08),
    "orange": (0.95, 0.45, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.05, 0.50, 0.15),
    "cyan": (0.10, 0.75, 0.80),
    "blue": (0.08, 0.20, 0.80),
    "purple": (0.45, 0.10, 0.60),
    "white": (0.95, 0.95, 0.95),
}
RADII: dict[Size, float] = {"small": 0.42, "large": 0.80}
"""Metres; a solid fits into a ball of this radius, within 20 %."""
HEIGHTS: dict[Shape, float] = {
    "sphere": 2.0,
    "cube": 1.5,
    "cylinder": 1.7,
    "cone": 2.0,
    "torus": 2.0,
}
"""Height of a solid in radii."""

_SUPPORTS = ("cube", "cylinder")
_MAX_SOLIDS = 6
_STACK_SHARE = 0.3
_SIDE_MARGIN = 0.12  # of the image's width: closer solids are neither left nor right
_DEPTH_MARGIN_M = 0.8
_NEAREST_M, _FARTHEST_M = 3.2, 8.5


@dataclass(frozen=True, slots=True)
class Solid:
    """One solid. Its base is at (x, bottom, z); `on` is the number of the solid below it."""

    shape: Shape
    color: str
    size: Size
    material: Material
    x: float
    z: float
    yaw: float
    bottom: float = 0.0
    on: int | None = None

    @property
    def radius(self) -> float:
        """Metres."""
        return RADII[self.size]

    @property
    def height(self) -> float:
        """Metres."""
        return HEIGHTS[self.shape] * self.radius


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera at (0, height, 0) looking along z, tilted down by `pitch` radians."""

    height: float
    pitch: float
    focal: float  # in image widths

    def project(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Project a point in metres to right and down of the centre, in image widths, and depth."""
        up, sin, cos = y - self.height, np.sin(self.pitch), np.cos(self.pitch)
        depth = z * cos - up * sin
        return self.focal * x / depth, -self.focal * (up * cos + z * sin) / depth, depth


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything visible, and the noise and blur of the camera."""

    seed: int
    solids: tuple[Solid, ...]
    ground: Ground
    sky: Sky
    camera: Camera
    light: tuple[float, float, float]  # unit vector towards the light
    noise: float  # standard deviation of the sensor's noise, 1 = white
    blur: float  # standard deviation of the lens blur, in 1/128 of the image's width

    def relations(self) -> list[tuple[int, Relation, int]]:
        """Return all true relations between two solids, as (subject, relation, object)."""
        found: list[tuple[int, Relation, int]] = []
        for a, first in enumerate(self.solids):
            for b, second in enumerate(self.solids):
                if a != b:
                    found.extend((a, name, b) for name in self._between(a, first, b, second))
        return found

    def _between(self, a: int, first: Solid, b: int, second: Solid) -> list[Relation]:
        if first.on == b:
            return ["on top of"]
        if second.on == a:
            return ["under"]
        across = [
            self.camera.project(s.x, s.bottom + s.height / 2, s.z)[0] for s in (first, second)
        ]
        names: list[Relation] = []
        if abs(across[0] - across[1]) > _SIDE_MARGIN:
            names.append("left of" if across[0] < across[1] else "right of")
        if abs(first.z - second.z) > _DEPTH_MARGIN_M:
            names.append("in front of" if first.z < second.z else "behind")
        return names


def sample_scene(seed: int) -> Scene:
    """Sample the scene of a seed. Solids do not intersect; one may stand on another."""
    rng = np.random.default_rng(seed)
    camera = Camera(
        height=rng.uniform(1.5, 2.6), pitch=rng.uniform(0.16, 0.30), focal=rng.uniform(0.95, 1.2)
    )
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.2)
    light = (
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
        float(-abs(np.cos(elevation) * np.cos(azimuth))),  # never from behind: faces stay lit
    )
    return Scene(
        seed=seed,
        solids=_sample_solids(rng, camera),
        ground=_pick(rng, GROUNDS),
        sky=_pick(rng, SKIES),
        camera=camera,
        light=light,
        noise=rng.uniform(0.0, 0.03),
        blur=rng.uniform(0.2, 0.7),
    )


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _sample_solids(rng: np.random.Generator, camera: Camera) -> tuple[Solid, ...]:
    wanted = int(rng.integers(1, _MAX_SOLIDS + 1))
    solids: list[Solid] = []
    for _ in range(20 * wanted):
        if len(solids) == wanted:
            break
        if solids and rng.random() < _STACK_SHARE and (top := _stack(rng, solids)) is not None:
            solids.append(top)
            continue
        z = rng.uniform(_NEAREST_M, _FARTHEST_M)
        half_width = 0.42 * z / camera.focal
        solid = _attributes(rng, x=rng.uniform(-half_width, half_width), z=z)
        if all(_apart(solid, other) for other in solids):
            solids.append(solid)
    return tuple(solids)


def _attributes(rng: np.random.Generator, *, x: float, z: float) -> Solid:
    return Solid(
        shape=_pick(rng, SHAPES),
        color=_pick(rng, tuple(COLORS)),
        size=_pick(rng, tuple(RADII)),
        material=_pick(rng, MATERIALS),
        x=float(x),
        z=float(z),
        yaw=float(rng.uniform(0, np.pi)),
    )


def _stack(rng: np.random.Generator, solids: list[Solid]) -> Solid | None:
    """Make a small solid on a large cube or cylinder with nothing on it; None if there is none."""
    taken = {solid.on for solid in solids}
    for number, below in enumerate(solids):
        if below.shape in _SUPPORTS and below.size == "large" and number not in taken:
            top = _attributes(rng, x=below.x, z=below.z)
            return replace(top, size="small", bottom=below.height, on=number)
    return None


def _apart(solid: Solid, other: Solid) -> bool:
    return bool(np.hypot(solid.x - other.x, solid.z - other.z) > solid.radius + other.radius + 0.2)
