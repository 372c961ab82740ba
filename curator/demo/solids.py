"""Intersect rays with things, in closed form or as a bracketed root of a quartic; find normals.

A thing is a composite of primitives (`COMPOSITES`). A primitive is intersected in its own frame, in
which it has a fixed size, stands at the origin and has y up; `Frame` converts both ways. Rays may
have any length; a hit at parameter t is at origins + t * rays. Only hits in front of the origin
count; origins must be outside the primitive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from curator.demo.scene import Kind, Thing

Array = np.ndarray[Any, np.dtype[Any]]
"""A float32 array; numpy's types lose the dtype in arithmetic."""

Primitive = Literal["sphere", "cube", "cylinder", "cone", "torus"]
HEIGHTS: dict[Primitive, float] = {
    "sphere": 2.0,
    "cube": 1.5,
    "cylinder": 1.7,
    "cone": 2.0,
    "torus": 2.0,
}

_EPS = np.float32(1e-3)
_INF = np.float32(np.inf)
_HALF_SIDE = np.float32(HEIGHTS["cube"] / 2)
_CYLINDER_RADIUS = np.float32(0.75)
_CONE_RADIUS = np.float32(0.95)
_RING_RADIUS, _TUBE_RADIUS = 0.70, 0.30
_TOUCH = 1e-9  # a ray in the ring's plane begins its search on the surface, where F is about 0
_MAX_STEPS = 40
_SMALL_STEP = 1e-5  # in the primitive's units; the error after such a step is about its square


@dataclass(frozen=True, slots=True)
class Part:
    """A primitive of a composite, in radii of the thing.

    The primitive is scaled along its three axes, turned upside down or not, and put with its base
    at (x, bottom, z). `tint` replaces the thing's color, as of a tree's trunk.
    """

    primitive: Primitive
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bottom: float = 0.0
    x: float = 0.0
    z: float = 0.0
    upside_down: bool = False
    tint: tuple[float, float, float] | None = None

    @property
    def height(self) -> float:
        """Height in radii of the thing."""
        return HEIGHTS[self.primitive] * self.scale[1]

    @property
    def reach(self) -> float:
        """Radius, in radii of the thing, of a ball that contains the part, centred in it."""
        width = max(self.scale[0], self.scale[2])
        if self.primitive == "cube":
            return float(np.linalg.norm(np.array(self.scale) * HEIGHTS["cube"] / 2))
        if self.primitive == "cylinder":
            return float(np.hypot(_CYLINDER_RADIUS * width, self.height / 2))
        if self.primitive == "cone":
            return float(np.hypot(_CONE_RADIUS * width, self.height / 2))
        return max(self.scale)


_BROWN, _CREAM = (0.28, 0.16, 0.08), (0.88, 0.82, 0.70)

COMPOSITES: dict[Kind, tuple[Part, ...]] = {
    "ball": (Part("sphere"),),
    "box": (Part("cube", (1.1, 1.1, 1.1)),),
    "cone": (Part("cone"),),
    "ring": (Part("torus"),),
    "snowman": (
        Part("sphere", (0.64, 0.64, 0.64)),
        Part("sphere", (0.44, 0.44, 0.44), bottom=1.12),
    ),
    "tree": (
        Part("cylinder", (0.25, 0.45, 0.25), tint=_BROWN),
        Part("cone", (0.85, 0.80, 0.85), bottom=0.55),
    ),
    "mushroom": (
        Part("cylinder", (0.40, 0.65, 0.40), tint=_CREAM),
        Part("sphere", (0.95, 0.48, 0.95), bottom=0.80),
    ),
    "table": (
        *(
            Part("cylinder", (0.13, 0.66, 0.13), x=x, z=z, tint=_BROWN)
            for x in (-0.76, 0.76)
            for z in (-0.46, 0.46)
        ),
        Part("cube", (1.20, 0.16, 0.80), bottom=1.12),
    ),
    "hourglass": (
        Part("cone", (0.78, 0.56, 0.78)),
        Part("cone", (0.78, 0.56, 0.78), bottom=0.90, upside_down=True),
    ),
    "pillar": (
        Part("cube", (0.66, 0.14, 0.66)),
        Part("cylinder", (0.48, 0.95, 0.48), bottom=0.21),
        Part("cube", (0.66, 0.14, 0.66), bottom=1.82),
    ),
}
"""The parts of every kind; what the camera sees of them is one thing of one class."""


class Frame:
    """The frame of one part of a thing: converts from metres in the world to the primitive's."""

    def __init__(self, thing: Thing, part: Part) -> None:
        self.part = part
        sin, cos = np.sin(thing.yaw), np.cos(thing.yaw)
        self._turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
        self._foot = np.array([thing.x, 0, thing.z], np.float32)
        self._thing_radius = np.float32(thing.radius)
        # A primitive upside down: its base, the origin of its frame, is at the top of the part.
        base = part.bottom + (part.height if part.upside_down else 0.0)
        self._origin = np.array([part.x, base, part.z], np.float32)
        flip = -1.0 if part.upside_down else 1.0
        self._scale = np.array(part.scale, np.float32) * np.array([1, flip, 1], np.float32)
        self.reach_m = part.reach * thing.radius

    @cached_property
    def centre(self) -> Array:
        """The middle of the part (3,), in metres in the world."""
        middle = np.array(
            [self.part.x, self.part.bottom + self.part.height / 2, self.part.z], np.float32
        )
        centre: Array = middle * self._thing_radius @ self._turn + self._foot
        return centre

    def in_radii(self, points: Array) -> Array:
        """Convert points (N, 3) from the world to the frame of the thing, in its radii."""
        return (points - self._foot) @ self._turn.T / self._thing_radius

    def points(self, points: Array) -> Array:
        """Convert points (N, 3) from the world to the primitive's frame."""
        return (self.in_radii(points) - self._origin) / self._scale

    def directions(self, rays: Array) -> Array:
        """Convert directions (N, 3) from the world to the primitive's frame; t of a hit stays."""
        return rays @ self._turn.T / (self._thing_radius * self._scale)

    def distance(self, origins: Array, rays: Array) -> Array:
        """Return t (N,) of the first hit, inf for a miss, for `origins` (N, 3) or (1, 3)."""
        return _DISTANCES[self.part.primitive](self.points(origins), self.directions(rays))

    def normals(self, points: Array) -> Array:
        """Return outward unit normals (N, 3), in the world, at points (N, 3) of the surface."""
        # Normals are scaled by the inverse of what scales points.
        found: Array = _NORMALS[self.part.primitive](self.points(points)) / self._scale
        found = found @ self._turn
        found /= np.sqrt(_dot(found, found))[:, None]
        return found


def _dot(a: Array, b: Array) -> Array:
    summed: Array = np.einsum("ij,ij->i", *np.broadcast_arrays(a, b))
    return summed


# -- hits ------------------------------------------------------------------------------------------


def _sphere(origins: Array, rays: Array) -> Array:
    from_centre = origins - np.array([0, 1, 0], np.float32)
    a, b = _dot(rays, rays), _dot(from_centre, rays)
    root, real = _safe_root(b * b - a * (_dot(from_centre, from_centre) - 1))
    return np.where(real, _first_ahead((-b - root) / a, (-b + root) / a), _INF)


def _cube(origins: Array, rays: Array) -> Array:
    centred = origins - np.array([0, _HALF_SIDE, 0], np.float32)
    inverse = 1 / np.where(np.abs(rays) < 1e-9, np.float32(1e-9), rays)  # noqa: PLR2004 - not 0, to divide by
    middle, half = -centred * inverse, np.abs(inverse) * _HALF_SIDE
    near, far = (middle - half).T, (middle + half).T
    enter = np.maximum(np.maximum(near[0], near[1]), near[2])
    leave = np.minimum(np.minimum(far[0], far[1]), far[2])
    return np.where((enter <= leave) & (enter > _EPS), enter, _INF)


def _cylinder(origins: Array, rays: Array) -> Array:
    height = np.float32(HEIGHTS["cylinder"])
    (ox, oy, oz), (dx, dy, dz) = origins.T, rays.T
    a = np.maximum(dx * dx + dz * dz, np.float32(1e-12))
    b = ox * dx + oz * dz
    root, real = _safe_root(b * b - a * (ox * ox + oz * oz - _CYLINDER_RADIUS**2))
    side = np.where(real, (-b - root) / a, _INF)
    y = oy + np.where(real, side, 0) * dy
    side = np.where((side > _EPS) & (y >= 0) & (y <= height), side, _INF)
    lid = (height - oy) / np.where(np.abs(dy) < 1e-9, np.float32(1e-9), dy)  # noqa: PLR2004 - as above
    x, z = ox + lid * dx, oz + lid * dz
    on_lid = (lid > _EPS) & (x * x + z * z <= _CYLINDER_RADIUS**2)
    return np.minimum(side, np.where(on_lid, lid, _INF))


def _cone(origins: Array, rays: Array) -> Array:
    height = np.float32(HEIGHTS["cone"])
    slope = _CONE_RADIUS / height
    (ox, oy, oz), (dx, dy, dz) = origins.T, rays.T
    oy = oy - height  # from the tip
    a = dx * dx + dz * dz - slope**2 * dy * dy
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)  # noqa: PLR2004 - not 0, to divide by
    b = ox * dx + oz * dz - slope**2 * oy * dy
    root, real = _safe_root(b * b - a * (ox * ox + oz * oz - slope**2 * oy * oy))
    # The base: seen only where a cone stands on its tip.
    base = (-height - oy) / np.where(np.abs(dy) < 1e-9, np.float32(1e-9), dy)  # noqa: PLR2004 - as above
    x, z = ox + base * dx, oz + base * dz
    t = np.where((base > _EPS) & (x * x + z * z <= _CONE_RADIUS**2), base, _INF)
    for candidate in ((-b - root) / a, (-b + root) / a):
        y = oy + candidate * dy
        good = real & (candidate > _EPS) & (y <= 0) & (y >= -height)
        t = np.where(good, np.minimum(t, candidate), t)
    return t


def _torus(origins: Array, rays: Array) -> Array:
    """Intersect rays with an upright ring whose axis is z.

    With t measured from the ray's point nearest to the centre, the surface is the zero of a quartic
    F(t) = t^4 + a t^2 + b t + c, positive outside. F falls towards its first turning point, and
    again from the second to the third; if it ends below 0, the ray enters there. Turning points
    are roots of a cubic in closed form, so no grazing hit is missed.
    """
    t = np.full(len(rays), _INF, np.float32)
    origins = np.broadcast_to(origins, rays.shape).astype(np.float64) - (0, 1, 0)
    lengths = np.sqrt(np.einsum("ij,ij->i", rays, rays, dtype=np.float64))
    unit = rays / lengths[:, None]
    start = _dot(origins, unit)
    gap = _dot(origins, origins) - start * start
    reach = (_RING_RADIUS + _TUBE_RADIUS) ** 2
    near = np.flatnonzero((gap < reach) & (np.sqrt(np.maximum(reach - gap, 0)) > start))
    start, gap, dz = start[near], gap[near], unit[near, 2]
    z0 = origins[near, 2] - start * dz
    e, four = gap + _RING_RADIUS**2 - _TUBE_RADIUS**2, 4 * _RING_RADIUS**2
    a, b = 2 * e - four + four * dz * dz, 2 * four * z0 * dz
    c = e * e - four * (gap - z0 * z0)
    first, second, third = _turning_points(a / 2, b / 4)
    begin = start + _EPS * lengths[near]  # start of the part of the ray in front of its origin
    entries = ((-np.sqrt(reach - gap), first), (second, third))
    for low, high in reversed(entries):  # nearer hits overwrite farther ones
        low = np.maximum(low, begin)  # noqa: PLW2901 - not before the origin
        with np.errstate(invalid="ignore"):  # nan where a quartic turns only once
            goes_in = np.flatnonzero(
                (low < high) & (_quartic(a, b, c, low) > -_TOUCH) & (_quartic(a, b, c, high) <= 0)
            )
        a_, b_, c_ = a[goes_in], b[goes_in], c[goes_in]
        root = _falling_root(a_, b_, c_, low[goes_in], high[goes_in])
        hits = near[goes_in]
        t[hits] = (root - start[goes_in]) / lengths[hits]
    return t


def _quartic(a: Array, b: Array, c: Array, t: Array) -> Array:
    square = t * t
    value: Array = (square + a) * square + b * t + c
    return value


def _turning_points(p: Array, q: Array) -> tuple[Array, Array, Array]:
    """Return the real roots of t^3 + p t + q in ascending order; nan for roots that are not real.

    Uses Cardano's formula for one real root, Viete's for three.
    """
    discriminant = q * q / 4 + p**3 / 27
    once = np.sqrt(np.maximum(discriminant, 0))
    single = np.cbrt(-q / 2 + once) + np.cbrt(-q / 2 - once)
    scale = np.sqrt(np.maximum(-p / 3, 1e-12))
    angle = np.arccos(np.clip(-q / (2 * scale**3), -1, 1)) / 3
    least, middle, most = (2 * scale * np.cos(angle - turn * 2 * np.pi / 3) for turn in (2, 1, 0))
    three = discriminant < 0
    return (
        np.where(three, least, single),
        np.where(three, middle, np.nan),
        np.where(three, most, np.nan),
    )


def _falling_root(a: Array, b: Array, c: Array, low: Array, high: Array) -> Array:
    """Find the root of quartics that fall from `low` to `high` by Newton steps kept in between.

    `high` is a minimum, so the parabola fitted there gives the starting point.
    """
    depth, bend = -_quartic(a, b, c, high), 6 * high * high + a
    t: Array = np.maximum(high - np.sqrt(depth / np.maximum(bend, 1e-12)), low)
    for _ in range(_MAX_STEPS):
        value = _quartic(a, b, c, t)
        low, high = np.where(value > 0, t, low), np.where(value > 0, high, t)
        slope = (4 * t * t + 2 * a) * t + b
        stepped = t - value / np.where(slope < 0, slope, -1e-30)
        stepped = np.where((stepped >= low) & (stepped <= high), stepped, (low + high) / 2)
        done = np.abs(stepped - t).max(initial=0) < _SMALL_STEP
        t = stepped
        if done:
            break
    return t


def _first_ahead(near: Array, far: Array) -> Array:
    return np.where(near > _EPS, near, np.where(far > _EPS, far, _INF))


def _safe_root(value: Array) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    return np.sqrt(np.maximum(value, 0)), value >= 0


_DISTANCES: dict[Primitive, Callable[[Array, Array], Array]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}


# -- normals, of any length ------------------------------------------------------------------------


def _sphere_normals(points: Array) -> Array:
    return points - np.array([0, 1, 0], np.float32)


def _cube_normals(points: Array) -> Array:
    centred = points - np.array([0, _HALF_SIDE, 0], np.float32)
    rows, axis = np.arange(len(points)), np.abs(centred).argmax(1)
    found = np.zeros_like(points)
    found[rows, axis] = np.sign(centred[rows, axis])
    return found


def _cylinder_normals(points: Array) -> Array:
    x, y, z = points.T
    found = points * np.array([1, 0, 1], np.float32)
    on_lid = np.float32(HEIGHTS["cylinder"]) - y < _CYLINDER_RADIUS - np.sqrt(x * x + z * z)
    found[on_lid] = (0, 1, 0)
    return found


def _cone_normals(points: Array) -> Array:
    slope = _CONE_RADIUS / np.float32(HEIGHTS["cone"])
    x, y, z = points.T
    wall = slope * (np.float32(HEIGHTS["cone"]) - y)  # radius of the cone at this height
    # Not 0 at the tip, where x and z are 0 too.
    found = np.stack([x, np.maximum(slope * wall, np.float32(1e-6)), z], 1)
    found[y < wall - np.sqrt(x * x + z * z)] = (0, -1, 0)  # the base
    return found


def _torus_normals(points: Array) -> Array:
    x, y, z = points.T
    y = y - 1
    pull = 1 - np.float32(_RING_RADIUS) / np.maximum(np.sqrt(x * x + y * y), np.float32(1e-6))
    return np.stack([x * pull, y * pull, z], 1)


_NORMALS: dict[Primitive, Callable[[Array], Array]] = {
    "sphere": _sphere_normals,
    "cube": _cube_normals,
    "cylinder": _cylinder_normals,
    "cone": _cone_normals,
    "torus": _torus_normals,
}
