"""Sample scenes of the rendered world: one or two things on a ground under a sky.

After CLEVR (Johnson et al. 2017), with composite things, grounds, skies and depth. A scene contains
everything that a caption can be right or wrong about: kinds of things, their colors and materials,
counts, relations. It is a pure function of its seed and of the materials that it may use.

Things are few and large, and their kinds are what the dense tasks ask for. In an earlier world of
up to six small solids the captions' effect on dense tasks was hard to see
(docs/results/2026-11-27-demo-study.md).

World: metres; x to the right, y up, z away from the camera, which is above the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

T = TypeVar("T")

Kind = Literal[
    "ball",
    "box",
    "cone",
    "ring",
    "snowman",
    "tree",
    "mushroom",
    "table",
    "hourglass",
    "pillar",
]
Material = Literal["matte", "shiny", "striped", "dotted"]
Ground = Literal["grass", "sand", "snow", "tiles"]
Sky = Literal["clear", "cloudy", "sunset", "night"]
Relation = Literal["left of", "right of", "in front of", "behind"]

KINDS: tuple[Kind, ...] = get_args(Kind)
MATERIALS: tuple[Material, ...] = get_args(Material)
PLAIN: tuple[Material, ...] = ("matte", "shiny")
"""The materials without a pattern, which a world uses unless it asks for patterns."""
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

_RADII_M = (0.80, 1.15)
_NEAREST_M, _FARTHEST_M = 3.4, 5.4
_GAP_M = 0.2
_MOST_THINGS = 2
_SIDE_MARGIN = 0.12  # of the image's width: closer things are neither left nor right
_DEPTH_MARGIN_M = 0.8


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, standing on the ground at (x, z), turned by `yaw` radians about its axis.

    `radius` is in metres; a thing is about two radii high (`curator.demo.solids.COMPOSITES`).
    """

    kind: Kind
    color: str
    material: Material
    radius: float
    x: float
    z: float
    yaw: float


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
    things: tuple[Thing, ...]
    ground: Ground
    sky: Sky
    camera: Camera
    light: tuple[float, float, float]  # unit vector towards the light
    noise: float  # standard deviation of the sensor's noise, 1 = white
    blur: float  # standard deviation of the lens blur, in 1/128 of the image's width

    def relations(self) -> list[tuple[int, Relation, int]]:
        """Return all true relations between two things, as (subject, relation, object)."""
        return [
            (a, name, b)
            for a, first in enumerate(self.things)
            for b, second in enumerate(self.things)
            if a != b
            for name in self._between(first, second)
        ]

    def _between(self, first: Thing, second: Thing) -> list[Relation]:
        across = [
            self.camera.project(thing.x, thing.radius, thing.z)[0] for thing in (first, second)
        ]
        names: list[Relation] = []
        if abs(across[0] - across[1]) > _SIDE_MARGIN:
            names.append("left of" if across[0] < across[1] else "right of")
        if abs(first.z - second.z) > _DEPTH_MARGIN_M:
            names.append("in front of" if first.z < second.z else "behind")
        return names


def sample_scene(seed: int, materials: tuple[Material, ...] = PLAIN) -> Scene:
    """Sample the scene of a seed. Things do not intersect."""
    rng = np.random.default_rng(seed)
    camera = Camera(
        height=rng.uniform(1.2, 2.2), pitch=rng.uniform(0.10, 0.24), focal=rng.uniform(0.95, 1.2)
    )
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.2)
    light = (
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
        float(-abs(np.cos(elevation) * np.cos(azimuth))),  # never from behind: faces stay lit
    )
    return Scene(
        seed=seed,
        things=_sample_things(rng, camera, materials),
        ground=_pick(rng, GROUNDS),
        sky=_pick(rng, SKIES),
        camera=camera,
        light=light,
        noise=rng.uniform(0.0, 0.03),
        blur=rng.uniform(0.2, 0.7),
    )


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _sample_things(
    rng: np.random.Generator, camera: Camera, materials: tuple[Material, ...]
) -> tuple[Thing, ...]:
    wanted = int(rng.integers(1, _MOST_THINGS + 1))
    things: list[Thing] = []
    for _ in range(20 * wanted):
        if len(things) == wanted:
            break
        z = rng.uniform(_NEAREST_M, _FARTHEST_M)
        half_width_m = 0.42 * z / camera.focal
        thing = Thing(
            kind=_pick(rng, KINDS),
            color=_pick(rng, tuple(COLORS)),
            material=_pick(rng, materials),
            radius=float(rng.uniform(*_RADII_M)),
            x=float(rng.uniform(-half_width_m, half_width_m)),
            z=float(z),
            yaw=float(rng.uniform(0, np.pi)),
        )
        if all(
            np.hypot(thing.x - other.x, thing.z - other.z) > thing.radius + other.radius + _GAP_M
            for other in things
        ):
            things.append(thing)
    return tuple(things)
