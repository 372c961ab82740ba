"""Compute the colours of a scene: light, soft shadows, surfaces, sky, lens blur and sensor noise.

Soft shadows use four rays per point towards an area light. Nothing here affects the truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from curator.demo.scene import COLORS, Ground, Scene, Sky, Thing
from curator.demo.solids import Array, Frame

Rgb = np.ndarray[Any, np.dtype[np.uint8]]

_AMBIENT = 0.42
_SHADOW_RAYS = 4
_LIGHT_SPREAD = 0.06  # standard deviation of a shadow ray's direction, along each axis
_HAZE_BEGINS_M, _HAZE_ENDS_M = 10.0, 40.0
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


def paint(
    scene: Scene,
    rays: Array,
    depth: Array,
    instances: np.ndarray[Any, np.dtype[np.uint8]],
    parts: np.ndarray[Any, np.dtype[np.uint8]],
    frames: list[Frame],
    outward: Array,
) -> Rgb:
    """Compute the image (side, side, 3) of P = side * side rays from their hits.

    Args:
        scene: what is seen.
        rays: (P, 3) directions.
        depth: (P,) in lengths of the rays; inf in the sky.
        instances: (P,) 0 for ground and sky, n + 1 for thing n.
        parts: (P,) 0 for ground and sky, k + 1 for `frames[k]`.
        frames: all parts of all things.
        outward: (P, 3) unit normals.
    """
    side = round(len(rays) ** 0.5)
    known = np.isfinite(depth)
    sky, ground = np.flatnonzero(~known), np.flatnonzero(known & (instances == 0))
    rgb = np.empty((len(rays), 3), np.float32)
    rgb[sky] = _sky(scene, rays, sky)
    rgb[ground] = _ground(scene, frames, rays[ground], depth[ground])
    for part, frame in enumerate(frames, 1):
        mine = np.flatnonzero(parts == part)
        if len(mine):
            thing = scene.things[int(instances[mine[0]]) - 1]
            rgb[mine] = _part(scene, frames, thing, frame, rays[mine], depth[mine], outward[mine])
    return _lens(scene, rgb.reshape(side, side, 3))


def _lens(scene: Scene, rgb: Array) -> Rgb:
    """Add lens blur and sensor noise."""
    shown = Image.fromarray((255 * np.clip(rgb, 0, 1)).astype(np.uint8))
    blurred = np.asarray(shown.filter(ImageFilter.GaussianBlur(scene.blur * len(rgb) / 128)))
    noise = np.random.default_rng(scene.seed).standard_normal(blurred.shape, np.float32)
    noisy: Rgb = np.clip(blurred + 255 * np.float32(scene.noise) * noise, 0, 255).astype(np.uint8)
    return noisy


# -- light -----------------------------------------------------------------------------------------


def _ground(scene: Scene, frames: list[Frame], rays: Array, depth: Array) -> Array:
    """Return colours (N, 3) of points of the ground."""
    light = np.array(scene.light, np.float32)
    points = _points(scene, rays, depth)
    shadow = _shadow(scene, frames, points + np.array([0, 2e-3, 0], np.float32), light)
    level = (_AMBIENT + 0.75 * light[1] * (1 - shadow)) * np.float32(_BRIGHTNESS[scene.sky])
    rgb: Array = _ground_albedo(scene.ground, points, depth) * level[:, None]
    far = np.flatnonzero(depth > _HAZE_BEGINS_M)
    haze = np.clip((depth[far] - _HAZE_BEGINS_M) / (_HAZE_ENDS_M - _HAZE_BEGINS_M), 0, 1) * 0.85
    rgb[far] += (np.array(_SKY_COLORS[scene.sky][0], np.float32) - rgb[far]) * haze[:, None]
    return rgb


def _part(
    scene: Scene,
    frames: list[Frame],
    thing: Thing,
    frame: Frame,
    rays: Array,
    depth: Array,
    outward: Array,
) -> Array:
    """Return colours (N, 3) of points of one part of a thing."""
    light = np.array(scene.light, np.float32)
    points = _points(scene, rays, depth)
    lit = np.maximum(outward @ light, 0)
    facing = np.flatnonzero(lit)
    lit[facing] *= 1 - _shadow(scene, frames, points[facing] + 2e-3 * outward[facing], light)
    level = _AMBIENT * (0.7 + 0.3 * outward[:, 1]) + 0.75 * lit
    color = np.array(frame.part.tint or COLORS[thing.color], np.float32)
    rgb: Array = _albedo(thing, color, frame.in_radii(points)) * level[:, None]
    if thing.material == "shiny":
        rgb *= 0.65  # the reflected part is taken from the surface colour
        rgb += _shine(rays, outward, light, lit)[:, None]
    rgb *= _BRIGHTNESS[scene.sky]
    return rgb


def _points(scene: Scene, rays: Array, depth: Array) -> Array:
    points: Array = np.array([0, scene.camera.height, 0], np.float32) + depth[:, None] * rays
    return points


def _shine(rays: Array, outward: Array, light: Array, lit: Array) -> Array:
    """Return the light that a glossy surface adds: a highlight (Blinn 1977) and some sky."""
    halfway = light - rays / np.sqrt(np.einsum("ij,ij->i", rays, rays))[:, None]
    halfway /= np.sqrt(np.einsum("ij,ij->i", halfway, halfway))[:, None]
    mirrored = np.maximum(np.einsum("ij,ij->i", outward, halfway), 0) ** 40 * (lit > 0)
    shine: Array = mirrored + 0.3 * np.clip(outward[:, 1], 0, 1) ** 2
    return shine


def _shadow(scene: Scene, frames: list[Frame], points: Array, light: Array) -> Array:
    """Return the share of light (points,) that things block, from a few rays to an area light."""
    rng = np.random.default_rng(scene.seed)
    lights = light + rng.normal(0, _LIGHT_SPREAD, (_SHADOW_RAYS, 3)).astype(np.float32)
    blocked = np.zeros((_SHADOW_RAYS, len(points)), bool)
    for frame, near in zip(frames, _could_shade(frames, points, light), strict=True):
        asked = np.flatnonzero(near)
        if len(asked):
            origins = np.tile(points[asked], (_SHADOW_RAYS, 1))
            hits = np.isfinite(frame.distance(origins, np.repeat(lights, len(asked), axis=0)))
            blocked[:, asked] |= hits.reshape(_SHADOW_RAYS, -1)
    shares: Array = blocked.mean(0, dtype=np.float32)
    return shares


def _could_shade(
    frames: list[Frame], points: Array, light: Array
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return (parts, points): whether a ball around the part meets the cone of shadow rays."""
    centres = np.array([frame.centre for frame in frames], np.float32)
    centres = centres.reshape(-1, 3)  # also without things
    radii = np.array([frame.reach_m for frame in frames], np.float32)[:, None]
    along = (centres @ light)[:, None] - points @ light
    squares = (
        np.einsum("ij,ij->i", points, points) + np.einsum("ij,ij->i", centres, centres)[:, None]
    )
    gap = squares - 2 * centres @ points.T - along * along
    widths = radii + 2 * np.float32(_LIGHT_SPREAD) * np.maximum(along, 0)
    could: np.ndarray[Any, np.dtype[np.bool_]] = (gap < widths * widths) & (along > -radii)
    return could


# -- surfaces --------------------------------------------------------------------------------------


def _waves(seed: int, side: int = 256) -> Array:
    """Make a seamless tile of smooth noise in 0..1."""
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
    fade = np.exp(-depth / 18)  # distant detail would alias
    mix = 0.5 + (mix - 0.5) * fade
    return dark + (bright - dark) * mix[:, None].astype(np.float32)


def _albedo(thing: Thing, color: Array, local: Array) -> Array:
    """Return surface colours (N, 3) of points of a thing, given in its own frame in radii."""
    second = np.float32(0.12) if thing.color == "white" else np.float32(0.95)
    if thing.material == "striped":
        mark = np.sin(11 * local[:, 1]) > 0.35  # noqa: PLR2004 - by eye
    elif thing.material == "dotted":
        cell = (
            np.sin(9 * local[:, 0] + 0.6) * np.sin(9 * local[:, 1]) * np.sin(9 * local[:, 2] + 1.2)
        )
        mark = np.abs(cell) > 0.42  # noqa: PLR2004 - by eye
    else:
        return np.broadcast_to(color, local.shape)
    return np.where(mark[:, None], second, color)


def _sky(scene: Scene, all_rays: Array, places: np.ndarray[Any, np.dtype[np.int64]]) -> Array:
    """Return colours (N, 3) of the rays with indices `places`, which hit nothing."""
    horizon, above = (np.array(color, np.float32) for color in _SKY_COLORS[scene.sky])
    rays = all_rays[places]
    across, height = rays[:, 0] / rays[:, 2], rays[:, 1] / rays[:, 2]
    rgb: Array = horizon + (above - horizon) * np.clip(height / 0.5, 0, 1)[:, None]
    drift = scene.seed % 251
    if scene.sky == "cloudy":
        cloud = np.clip(2.4 * _noise(180 * across + drift, 420 * height + drift) - 0.9, 0, 1)
        rgb += (0.97 - rgb) * cloud[:, None]
    elif scene.sky == "night":
        stars = np.random.default_rng(scene.seed).random(len(all_rays), np.float32)[places] > 0.995  # noqa: PLR2004 - by eye
        rgb[stars & (height > 0)] = 0.8
    return rgb
