"""Intersect rays with solids, in closed form or as a bracketed root of a quartic; find normals.

All functions work in the frame of a solid, in units of its radius: origin at the centre of its
base, y up (`Frame` converts both ways). Rays may have any length; a hit at parameter t is at
origins + t * rays. Only hits in front of the origin count; origins must be outside the solid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curator.demo.scene import HEIGHTS, Shape, Solid

Array = np.ndarray[Any, np.dtype[Any]]
"""A float32 array; numpy's types lose the dtype in arithmetic."""

_EPS = np.float32(1e-3)
_INF = np.float32(np.inf)
_HALF_SIDE = np.float32(HEIGHTS["cube"] / 2)
_CYLINDER_RADIUS = np.float32(0.75)
_CONE_RADIUS = np.float32(0.95)
_RING_RADIUS, _TUBE_RADIUS = 0.70, 0.30
_MAX_STEPS = 40
_SMALL_STEP = 1e-5  # in radii; the error after such a step is about its square

BOUNDS: dict[Shape, float] = {
    "sphere": 1.0,
    "cube": 1.5 * 3**0.5 / 2,
    "cylinder": float(np.hypot(0.75, HEIGHTS["cylinder"] / 2)),
    "cone": float(np.hypot(0.95, HEIGHTS["cone"] / 2)),
    "torus": 1.0,
}
"""Radius of a ball that contains the solid, centred at half its height."""


class Frame:
    """The frame of one solid: converts from metres in the world to radii, and normals back."""

    def __init__(self, solid: Solid) -> None:
        sin, cos = np.sin(solid.yaw), np.cos(solid.yaw)
        self._turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
        self._foot = np.array([solid.x, solid.bottom, solid.z], np.float32)
        self._radius = np.float32(solid.radius)

    def points(self, points: Array) -> Array:
        """Convert points (N, 3) from the world to the solid's frame."""
        return (points - self._foot) @ self._turn.T / self._radius

    def directions(self, rays: Array) -> Array:
        """Convert directions (N, 3) from the world to the solid's frame; t of a hit stays."""
        return rays @ self._turn.T / self._radius

    def out(self, normals: Array) -> Array:
        """Convert unit normals (N, 3) from the solid's frame to the world."""
        turned: Array = normals @ self._turn
        return turned


def distance(shape: Shape, origins: Array, rays: Array) -> Array:
    """Return t (N,) of the first hit, inf for a miss; `origins` (N, 3) or (1, 3), `rays` (N, 3)."""
    return _DISTANCES[shape](origins, rays)


def normals(shape: Shape, points: Array) -> Array:
    """Return outward unit normals (N, 3) at points (N, 3) of the surface."""
    found = _NORMALS[shape](points)
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
    t = np.full(np.broadcast_shapes(b.shape, dx.shape), _INF, np.float32)
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
                (low < high) & (_quartic(a, b, c, low) > 0) & (_quartic(a, b, c, high) <= 0)
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


_DISTANCES: dict[Shape, Callable[[Array, Array], Array]] = {
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
    height = np.float32(HEIGHTS["cone"])
    x, y, z = points.T
    up = np.maximum(
        (_CONE_RADIUS / height) ** 2 * (height - y), np.float32(1e-6)
    )  # not 0 at the tip
    return np.stack([x, up, z], 1)


def _torus_normals(points: Array) -> Array:
    x, y, z = points.T
    y = y - 1
    pull = 1 - np.float32(_RING_RADIUS) / np.maximum(np.sqrt(x * x + y * y), np.float32(1e-6))
    return np.stack([x * pull, y * pull, z], 1)


_NORMALS: dict[Shape, Callable[[Array], Array]] = {
    "sphere": _sphere_normals,
    "cube": _cube_normals,
    "cylinder": _cylinder_normals,
    "cone": _cone_normals,
    "torus": _torus_normals,
}
