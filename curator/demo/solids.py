"""Where rays meet solids: closed forms for all but the torus, which is marched along its distance.

All functions work in the frame of the solid, in radii: origin in the middle of its foot, y up.
`origins` is (N, 3) or (1, 3), `rays` is (N, 3) of any length; a hit at parameter t lies at
origins + t * rays. They return t (N,), inf for a miss, and the normal (N, 3) at the hit, which
means nothing at a miss. Only hits in front of the origin count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curator.demo.scene import HEIGHTS, Shape

Array = np.ndarray[Any, np.dtype[Any]]
"""Of float32; numpy's types lose that on the way through arithmetic."""
Hit = tuple[Array, Array]

_EPS = np.float32(1e-3)
_INF = np.float32(np.inf)
_HALF_SIDE = np.float32(HEIGHTS["cube"] / 2)
_CYLINDER_RADIUS = np.float32(0.75)
_CONE_RADIUS = np.float32(0.95)
_RING_RADIUS, _TUBE_RADIUS = np.float32(0.70), np.float32(0.30)
_MARCH_STEPS = 28


def intersect(shape: Shape, origins: Array, rays: Array) -> Hit:
    """Meet one shape; see the module."""
    return _SHAPES[shape](origins, rays)


def _dot(a: Array, b: Array) -> Array:
    summed: Array = np.einsum("ij,ij->i", *np.broadcast_arrays(a, b))
    return summed


def _sphere(origins: Array, rays: Array) -> Hit:
    from_centre = origins - np.array([0, 1, 0], np.float32)
    a, b = _dot(rays, rays), _dot(from_centre, rays)
    root, real = _safe_root(b * b - a * (_dot(from_centre, from_centre) - 1))
    t = np.where(real, _first_ahead((-b - root) / a, (-b + root) / a), _INF)
    return t, from_centre + _finite(t)[:, None] * rays


def _cube(origins: Array, rays: Array) -> Hit:
    centred = origins - np.array([0, _HALF_SIDE, 0], np.float32)
    inverse = 1 / np.where(np.abs(rays) < 1e-9, np.float32(1e-9), rays)  # noqa: PLR2004 - not 0, to divide by
    middle, half = -centred * inverse, np.abs(inverse) * _HALF_SIDE
    near_of, far = middle - half, (middle + half).min(1)
    axis = near_of.argmax(1)
    near = near_of[np.arange(len(axis)), axis]
    t = np.where((near <= far) & (near > _EPS), near, _INF)
    normal = np.zeros_like(rays)
    rows = np.arange(len(rays))
    normal[rows, axis] = -np.sign(rays[rows, axis])
    return t, normal


def _cylinder(origins: Array, rays: Array) -> Hit:
    height = np.float32(HEIGHTS["cylinder"])
    ox, oy, oz = (origins[:, i] for i in range(3))
    dx, dy, dz = (rays[:, i] for i in range(3))
    a = np.maximum(dx * dx + dz * dz, np.float32(1e-12))
    b = ox * dx + oz * dz
    root, real = _safe_root(b * b - a * (ox * ox + oz * oz - _CYLINDER_RADIUS**2))
    side = np.where(real, (-b - root) / a, _INF)
    y = oy + _finite(side) * dy
    side = np.where((side > _EPS) & (y >= 0) & (y <= height), side, _INF)
    lid = _disc(origins, rays, height, _CYLINDER_RADIUS)
    t = np.minimum(side, lid)
    at = origins + _finite(t)[:, None] * rays
    normal = at * np.array([1, 0, 1], np.float32)
    normal[lid < side] = (0, 1, 0)
    return t, normal


def _cone(origins: Array, rays: Array) -> Hit:
    height = np.float32(HEIGHTS["cone"])
    slope = _CONE_RADIUS / height
    ox, oy, oz = origins[:, 0], origins[:, 1] - height, origins[:, 2]  # from the tip
    dx, dy, dz = (rays[:, i] for i in range(3))
    a = dx * dx + dz * dz - slope**2 * dy * dy
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)  # noqa: PLR2004 - not 0, to divide by
    b = ox * dx + oz * dz - slope**2 * oy * dy
    root, real = _safe_root(b * b - a * (ox * ox + oz * oz - slope**2 * oy * oy))
    t = np.full(np.broadcast_shapes(b.shape, dx.shape), _INF, np.float32)
    for candidate in ((-b - root) / a, (-b + root) / a):
        y = oy + candidate * dy
        good = real & (candidate > _EPS) & (y <= 0) & (y >= -height)
        t = np.where(good, np.minimum(t, candidate), t)
    at = origins + _finite(t)[:, None] * rays
    return t, np.stack([at[:, 0], slope**2 * (height - at[:, 1]), at[:, 2]], 1)


def _torus(origins: Array, rays: Array) -> Hit:
    """A ring that stands upright, its axis along z."""
    origins = np.broadcast_to(origins - np.array([0, 1, 0], np.float32), rays.shape)
    length = np.sqrt(_dot(rays, rays))
    unit = rays / length[:, None]
    b = _dot(origins, unit)
    reach = _RING_RADIUS + _TUBE_RADIUS
    root, near = _safe_root(b * b - _dot(origins, origins) + reach * reach)
    walked = np.maximum(-b - root, _EPS)
    todo = np.flatnonzero(near & (-b + root > 0))
    t = np.full(len(rays), _INF, np.float32)
    for _ in range(_MARCH_STEPS):
        gap = _torus_distance(origins[todo] + walked[todo, None] * unit[todo])
        there = gap < 2 * _EPS
        t[todo[there]] = walked[todo[there]]
        walked[todo] += gap
        todo = todo[~there & (walked[todo] < (-b + root)[todo])]
        if not len(todo):
            break
    at = origins + _finite(t)[:, None] * unit
    ring = np.hypot(at[:, 0], at[:, 1])
    pull = 1 - _RING_RADIUS / np.maximum(ring, np.float32(1e-6))
    return t / length, np.stack([at[:, 0] * pull, at[:, 1] * pull, at[:, 2]], 1)


def _torus_distance(at: Array) -> Array:
    return np.hypot(np.hypot(at[:, 0], at[:, 1]) - _RING_RADIUS, at[:, 2]) - _TUBE_RADIUS


def _disc(origins: Array, rays: Array, height: np.float32, radius: np.float32) -> Array:
    dy = np.where(np.abs(rays[:, 1]) < 1e-9, np.float32(1e-9), rays[:, 1])  # noqa: PLR2004 - not 0, to divide by
    t = (height - origins[:, 1]) / dy
    x, z = origins[:, 0] + t * rays[:, 0], origins[:, 2] + t * rays[:, 2]
    return np.where((t > _EPS) & (x * x + z * z <= radius * radius), t, _INF)


def _first_ahead(near: Array, far: Array) -> Array:
    return np.where(near > _EPS, near, np.where(far > _EPS, far, _INF))


def _safe_root(value: Array) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    return np.sqrt(np.maximum(value, 0)), value >= 0


def _finite(t: Array) -> Array:
    return np.where(np.isfinite(t), t, np.float32(0))


_SHAPES: dict[Shape, Callable[[Array, Array], Hit]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}
