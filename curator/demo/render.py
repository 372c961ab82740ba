"""Ray casting of a scene in numpy, with its truth: classes, instances, boxes and depth per pixel.

One ray a pixel through its centre gives colour and truth together, so masks and depth are exact for
that ray; blur and noise touch the colours only. Shadows are soft: four rays a point towards an
area light. Solids are met inside the rectangle of the picture that holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from curator.demo.scene import COLORS, SHAPES, Camera, Ground, Scene, Sky, Solid, sample_scene
from curator.demo.solids import Array, intersect

CLASSES = ("sky", "ground", *SHAPES)
"""Names of the semantic classes; the number of a class is its place."""

MIN_PIXEL_SHARE = 0.004
"""Every solid of a scene covers at least this share of the picture..."""
MIN_VISIBLE_SHARE = 0.35
"""... and at least this share of what it would cover if nothing stood before it."""

FARTHEST_M = 40.0
"""Ground beyond has no depth, like the sky: its value is 0."""

_AMBIENT = 0.42
_SHADOW_RAYS = 4
_SKY_COLORS: dict[Sky, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "clear": ((0.72, 0.85, 0.98), (0.20, 0.45, 0.85)),  # at the horizon, above
    "cloudy": ((0.80, 0.84, 0.88), (0.45, 0.58, 0.75)),
    "sunset": ((1.00, 0.62, 0.30), (0.45, 0.25, 0.50)),
    "night": ((0.10, 0.12, 0.25), (0.01, 0.01, 0.06)),
}
_BRIGHTNESS: dict[Sky, float] = {"clear": 1.0, "cloudy": 0.92, "sunset": 0.9, "night": 0.72}
_GROUND_COLORS: dict[Ground, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "grass": ((0.20, 0.38, 0.10), (0.38, 0.55, 0.18)),
    "sand": ((0.72, 0.58, 0.38), (0.86, 0.74, 0.52)),
    "snow": ((0.78, 0.82, 0.88), (0.93, 0.95, 0.97)),
    "tiles": ((0.30, 0.30, 0.34), (0.62, 0.62, 0.66)),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered scene.

    Attributes:
        rgb: (side, side, 3) uint8.
        classes: (side, side) uint8, places in `CLASSES`.
        instances: (side, side) uint8, 0 for none, n + 1 for solid n of the scene.
        depth: (side, side) float32, metres along the camera's axis; 0 where there is none.
        boxes: (number of solids, 4) int32, x0, y0, x1, y1 of the visible pixels, ends excluded;
            zeros for a solid that is not visible.
        visible: (number of solids,) float32, the share of the solid that nothing hides.
    """

    rgb: np.ndarray[Any, np.dtype[np.uint8]]
    classes: np.ndarray[Any, np.dtype[np.uint8]]
    instances: np.ndarray[Any, np.dtype[np.uint8]]
    depth: Array
    boxes: np.ndarray[Any, np.dtype[np.int32]]
    visible: Array


def make_picture(seed: int, side: int = 128) -> tuple[Scene, Picture]:
    """The scene of a seed with all its solids in plain sight, and its picture."""
    for attempt in range(1000):
        scene = sample_scene(seed * 1000 + attempt)
        picture = render(scene, side)
        pixels = np.bincount(picture.instances.ravel(), minlength=len(scene.solids) + 1)[1:]
        enough = pixels[: len(scene.solids)] >= MIN_PIXEL_SHARE * side * side
        if enough.all() and (picture.visible >= MIN_VISIBLE_SHARE).all():
            return scene, picture
    raise AssertionError(f"no scene of seed {seed} has all its solids in sight")


def render(scene: Scene, side: int) -> Picture:
    """Draw a scene of any kind, whatever is hidden in it, as a square picture."""
    rays = _rays(scene.camera, side)
    eye = np.array([[0, scene.camera.height, 0]], np.float32)
    depth = np.full(side * side, np.inf, np.float32)
    normals = np.zeros((side * side, 3), np.float32)
    instances = np.zeros(side * side, np.uint8)
    alone = np.zeros(len(scene.solids), np.int64)
    down = rays[:, 1] < -1e-4  # noqa: PLR2004 - the horizon
    depth[down] = eye[0, 1] / -rays[down, 1]
    normals[down] = (0, 1, 0)
    for number, solid in enumerate(scene.solids):
        pixels = _window(scene.camera, solid, side)
        turn = _turn(solid.yaw)
        t, normal = intersect(
            solid.shape, _local(eye, solid, turn), _spin(rays[pixels], turn, solid)
        )
        alone[number] = np.isfinite(t).sum()
        nearer = t < depth[pixels]
        at = pixels[nearer]
        depth[at], instances[at] = t[nearer], number + 1
        normals[at] = normal[nearer] @ turn
    points = eye + np.where(np.isfinite(depth), depth, 0)[:, None] * rays
    rgb = _shade(scene, rays, points, normals, instances, depth)
    return _finish(scene, side, rgb, instances, depth, alone)


def _rays(camera: Camera, side: int) -> Array:
    """Rays through the centres of all pixels, of length 1 along the camera's axis."""
    across = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    u, v = np.meshgrid(across / camera.focal, across / camera.focal)
    sin, cos = np.float32(np.sin(camera.pitch)), np.float32(np.cos(camera.pitch))
    rays = np.stack([u, -v * cos - sin, cos - v * sin], -1)
    return rays.reshape(-1, 3).astype(np.float32)


def _window(camera: Camera, solid: Solid, side: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers of the pixels in a rectangle that holds the whole solid."""
    across, down, depth = camera.project(solid.x, solid.bottom + solid.height / 2, solid.z)
    reach = 1.35 * solid.radius * camera.focal / max(depth - 1.35 * solid.radius, 0.3)
    x0, x1 = (int(np.clip((across + d + 0.5) * side, 0, side)) for d in (-reach, reach + 1 / side))
    y0, y1 = (int(np.clip((down + d + 0.5) * side, 0, side)) for d in (-reach, reach + 1 / side))
    return (np.arange(y0, y1)[:, None] * side + np.arange(x0, x1)).ravel()


def _turn(yaw: float) -> Array:
    """The rotation about y that takes world directions to those of a solid."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)


def _local(points: Array, solid: Solid, turn: Array) -> Array:
    foot = np.array([solid.x, solid.bottom, solid.z], np.float32)
    return (points - foot) @ turn.T / np.float32(solid.radius)


def _spin(rays: Array, turn: Array, solid: Solid) -> Array:
    return rays @ turn.T / np.float32(solid.radius)


# -- light -----------------------------------------------------------------------------------------


def _shade(
    scene: Scene,
    rays: Array,
    points: Array,
    normals: Array,
    instances: np.ndarray[Any, np.dtype[np.uint8]],
    depth: Array,
) -> Array:
    """Colours (pixels, 3) of all rays."""
    hit = np.flatnonzero(np.isfinite(depth))
    normals = normals[hit] / np.linalg.norm(normals[hit], axis=1, keepdims=True)
    light = np.array(scene.light, np.float32)
    albedo = _ground_albedo(scene.ground, points[hit], depth[hit])
    gloss = np.zeros(len(hit), np.float32)
    for number, solid in enumerate(scene.solids):
        mine = instances[hit] == number + 1
        local = _local(points[hit[mine]], solid, _turn(solid.yaw))
        albedo[mine] = _solid_albedo(solid, local)
        gloss[mine] = 1.0 if solid.material == "shiny" else 0.0
    facing = np.maximum(normals @ light, 0)
    lit = facing * (1 - _shadow(scene, points[hit] + 2e-3 * normals, light))
    halfway = light - rays[hit] / np.linalg.norm(rays[hit], axis=1, keepdims=True)
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    shine = gloss * np.maximum((normals * halfway).sum(1), 0) ** 40 * (lit > 0)
    shine += 0.3 * gloss * np.clip(normals[:, 1], 0, 1) ** 2
    from_sky = _AMBIENT * (0.7 + 0.3 * normals[:, 1])
    albedo *= (1 - 0.35 * gloss)[:, None]  # what a mirror shows is missing from the paint
    rgb = _sky(scene, rays)
    brightness = _BRIGHTNESS[scene.sky]
    rgb[hit] = (albedo * (from_sky + 0.75 * lit)[:, None] + shine[:, None]) * brightness
    haze = np.clip((depth[hit] - 10) / (FARTHEST_M - 10), 0, 1)[:, None] * 0.85
    horizon = np.array(_SKY_COLORS[scene.sky][0], np.float32)
    ground = instances[hit, None] == 0
    rgb[hit] = np.where(ground, rgb[hit] * (1 - haze) + horizon * haze, rgb[hit])
    return rgb


def _shadow(scene: Scene, points: Array, light: Array) -> Array:
    """Share of the light (points,) that solids keep away, by a few rays into an area light."""
    rng = np.random.default_rng(scene.seed)
    lights = light + rng.normal(0, 0.06, (_SHADOW_RAYS, 3)).astype(np.float32)
    blocked = np.zeros((_SHADOW_RAYS, len(points)), bool)
    for solid in scene.solids:
        centre = np.array([solid.x, solid.bottom + solid.height / 2, solid.z], np.float32)
        to_centre = centre - points
        along = to_centre @ light
        gap = (to_centre * to_centre).sum(1) - along * along
        near = (1.35 * solid.radius + 0.12 * np.maximum(along, 0)) ** 2
        asked = np.flatnonzero((gap < near) & (along > -1.35 * solid.radius))
        if not len(asked):
            continue
        turn = _turn(solid.yaw)
        origins = np.tile(_local(points[asked], solid, turn), (_SHADOW_RAYS, 1))
        rays = np.repeat(_spin(lights, turn, solid), len(asked), axis=0)
        t, _ = intersect(solid.shape, origins, rays)
        blocked[:, asked] |= np.isfinite(t).reshape(_SHADOW_RAYS, -1)
    shares: Array = blocked.mean(0, dtype=np.float32)
    return shares


# -- surfaces --------------------------------------------------------------------------------------


def _waves(seed: int, side: int = 256) -> Array:
    """A tile of smooth noise in 0..1 that repeats without a seam."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    fx, fy = np.fft.rfftfreq(side), np.fft.fftfreq(side)
    spectrum /= (np.hypot(fx, fy[:, None]) + 1 / side) ** 1.3
    noise = np.fft.irfft2(spectrum, (side, side))
    low, high = np.quantile(noise, [0.02, 0.98])
    tile: Array = np.clip((noise - low) / (high - low), 0, 1).astype(np.float32)
    return tile


_NOISE = _waves(0)


def _noise(x: Array, y: Array) -> Array:
    side = len(_NOISE)
    return _NOISE[(y.astype(np.int64)) % side, (x.astype(np.int64)) % side]


def _ground_albedo(ground: Ground, points: Array, depth: Array) -> Array:
    dark, bright = (np.array(color, np.float32) for color in _GROUND_COLORS[ground])
    x, z = points[:, 0], points[:, 2]
    mix: Array
    if ground == "tiles":
        mix = ((np.floor(x) + np.floor(z)) % 2).astype(np.float32)
    elif ground == "sand":
        mix = (
            0.5
            + 0.3 * np.sin(5 * z + 3 * _noise(8 * x, 8 * z))
            + 0.4 * (_noise(30 * x, 30 * z) - 0.5)
        )
    else:
        mix = 0.4 * _noise(6 * x, 6 * z) + 0.6 * _noise(50 * x, 25 * z)
    fade = np.exp(-depth / 18)  # far detail would only alias
    mix = 0.5 + (mix - 0.5) * fade
    return dark + (bright - dark) * mix[:, None].astype(np.float32)


def _solid_albedo(solid: Solid, local: Array) -> Array:
    """Colours (N, 3) of points of a solid, given in its own frame."""
    color = np.array(COLORS[solid.color], np.float32)
    second = np.float32(0.12) if solid.color == "white" else np.float32(0.95)
    if solid.material == "striped":
        mark = np.sin(11 * local[:, 1]) > 0.35  # noqa: PLR2004 - by eye
    elif solid.material == "dotted":
        cell = (
            np.sin(9 * local[:, 0] + 0.6) * np.sin(9 * local[:, 1]) * np.sin(9 * local[:, 2] + 1.2)
        )
        mark = np.abs(cell) > 0.42  # noqa: PLR2004 - by eye
    else:
        return np.broadcast_to(color, local.shape)
    return np.where(mark[:, None], second, color)


def _sky(scene: Scene, rays: Array) -> Array:
    horizon, above = (np.array(color, np.float32) for color in _SKY_COLORS[scene.sky])
    up = np.clip(rays[:, 1] / rays[:, 2] / 0.5, 0, 1)[:, None]
    rgb = horizon + (above - horizon) * up
    across, height = rays[:, 0] / rays[:, 2], rays[:, 1] / rays[:, 2]
    drift = scene.seed % 251
    if scene.sky == "cloudy":
        cloud = np.clip(2.4 * _noise(180 * across + drift, 420 * height + drift) - 0.9, 0, 1)
        rgb += (0.97 - rgb) * cloud[:, None]
    elif scene.sky == "night":
        stars = np.random.default_rng(scene.seed).random(len(rays), np.float32) > 0.995  # noqa: PLR2004 - by eye
        rgb[stars & (height > 0)] = 0.8
    return rgb.astype(np.float32)


# -- lens and truth --------------------------------------------------------------------------------


def _finish(
    scene: Scene,
    side: int,
    rgb: Array,
    instances: np.ndarray[Any, np.dtype[np.uint8]],
    depth: Array,
    alone: np.ndarray[Any, np.dtype[np.int64]],
) -> Picture:
    shown = Image.fromarray((255 * np.clip(rgb, 0, 1)).astype(np.uint8).reshape(side, side, 3))
    blurred = np.asarray(shown.filter(ImageFilter.GaussianBlur(scene.blur * side / 128)))
    noise = np.random.default_rng(scene.seed).standard_normal(blurred.shape, np.float32)
    noisy = np.clip(blurred + 255 * np.float32(scene.noise) * noise, 0, 255).astype(np.uint8)
    shape_class = [CLASSES.index(solid.shape) for solid in scene.solids]
    known = np.isfinite(depth)
    classes = np.where(known, 1, 0).astype(np.uint8)
    on_solid = instances > 0
    classes[on_solid] = np.array([0, *shape_class], np.uint8)[instances[on_solid]]
    seen = np.bincount(instances, minlength=len(shape_class) + 1)[1:]
    near = known & (on_solid | (depth < FARTHEST_M))
    grid = instances.reshape(side, side)
    return Picture(
        rgb=noisy,
        classes=classes.reshape(side, side),
        instances=grid,
        depth=np.where(near, depth, 0).astype(np.float32).reshape(side, side),
        boxes=np.array([_box(grid == n + 1) for n in range(len(shape_class))], np.int32),
        visible=(seen / np.maximum(alone, 1)).astype(np.float32),
    )


def _box(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return (0, 0, 0, 0)
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
