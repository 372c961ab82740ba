"""Ray-cast a scene in numpy, with its truth: classes, instances, boxes, depth and normals.

One ray per pixel, through its centre, gives both colour and truth, so labels are exact for that
ray; blur and noise affect only the colours (`curator.demo.shading`). A part of a thing is
intersected only with the rays of its bounding rectangle. Visibility is computed before the colours:
a scene rejected for a hidden thing costs a fraction of an image (benchmarks/world.py).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from curator.demo.scene import KINDS, PLAIN, Camera, Material, Scene, sample_scene
from curator.demo.shading import paint
from curator.demo.solids import COMPOSITES, Array, Frame

CLASSES = ("sky", "ground", *KINDS)
"""Names of the semantic classes; a class's number is its index."""

FARTHEST_M = 10.0
"""Ground beyond this distance has neither depth nor normal, like the sky: the values are 0."""
MIN_PIXEL_SHARE = 0.025
"""Every thing of a scene covers at least this share of the image..."""
MIN_VISIBLE_SHARE = 0.6
"""... and at least this share of the pixels it would cover if nothing were in front of it."""

ATTEMPTS = 1000
"""Scene seeds that each seed of `make_image` may try; the next seed's range begins after them."""

_JPEG = {"quality": 92, "subsampling": 0}
_LEAST_ANGLE = 0.05  # radians between a ray and the image plane, for parts that reach behind it


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """A rendered scene.

    Attributes:
        rgb: (side, side, 3) uint8.
        classes: (side, side) uint8, indices into `CLASSES`.
        instances: (side, side) uint8, 0 for none, n + 1 for thing n of the scene.
        depth: (side, side) float32, metres along the camera's axis; 0 for no depth.
        normals: (side, side, 3) float32, outward unit normals of the surfaces in the camera's
            axes: right, down, away from the camera; zeros where there is no depth.
        boxes: (number of things, 4) int32, x0, y0, x1, y1 of the visible pixels, ends excluded;
            zeros for a thing that is not visible.
        visible: (number of things,) float32, the share of the thing that is not hidden.
    """

    rgb: np.ndarray[Any, np.dtype[np.uint8]]
    classes: np.ndarray[Any, np.dtype[np.uint8]]
    instances: np.ndarray[Any, np.dtype[np.uint8]]
    depth: Array
    normals: Array
    boxes: np.ndarray[Any, np.dtype[np.int32]]
    visible: Array

    def jpeg(self) -> bytes:
        """Encode the colours as a JPEG, as in the files of the world."""
        out = io.BytesIO()
        Image.fromarray(self.rgb).save(out, "JPEG", **_JPEG)
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class _View:
    """The hits of all rays of an image: `depth` is inf in the sky, else as in `RenderedImage`.

    `parts` are numbers of `frames`, one more than the index, 0 for none. `pixels` and `alone`
    (number of things,) count the rays that hit a thing first, and those that would hit it if it
    were alone.
    """

    rays: Array  # (P, 3)
    depth: Array  # (P,)
    frames: list[Frame]
    parts: np.ndarray[Any, np.dtype[np.uint8]]  # (P,)
    instances: np.ndarray[Any, np.dtype[np.uint8]]  # (P,)
    pixels: np.ndarray[Any, np.dtype[np.int64]]
    alone: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def visible(self) -> Array:
        """Share of each thing that is not hidden."""
        shares: Array = (self.pixels / np.maximum(self.alone, 1)).astype(np.float32)
        return shares

    @property
    def shows_all(self) -> bool:
        """Whether every thing is large enough and not hidden too much."""
        large = self.pixels >= MIN_PIXEL_SHARE * len(self.rays)
        return bool(large.all() and (self.visible >= MIN_VISIBLE_SHARE).all())


def make_image(
    seed: int, side: int = 128, materials: tuple[Material, ...] = PLAIN
) -> tuple[Scene, RenderedImage]:
    """Return the first scene of a seed in which all things are clearly visible, and its image."""
    for attempt in range(ATTEMPTS):
        scene = sample_scene(seed * ATTEMPTS + attempt, materials)
        view = _look(scene, side)
        if view.shows_all:
            return scene, _image(scene, view, side)
    raise AssertionError(f"no scene of seed {seed} has all its things in sight")


def render(scene: Scene, side: int) -> RenderedImage:
    """Render any scene as a square image, even if things are hidden."""
    return _image(scene, _look(scene, side), side)


def _look(scene: Scene, side: int) -> _View:
    rays = _rays(scene.camera, side)
    eye = np.array([[0, scene.camera.height, 0]], np.float32)
    frames: list[Frame] = []
    parts, instances = np.zeros((2, side * side), np.uint8)
    alone = np.zeros(len(scene.things), np.int64)
    depth = np.full(side * side, np.inf, np.float32)
    down = rays[:, 1] < -1e-4  # noqa: PLR2004 - the horizon
    depth[down] = eye[0, 1] / -rays[down, 1]
    for number, thing in enumerate(scene.things):
        covered = np.zeros(side * side, bool)
        for part in COMPOSITES[thing.kind]:
            frame = Frame(thing, part)
            frames.append(frame)
            pixels = _window(scene.camera, frame, side)
            t = frame.distance(eye, rays[pixels])
            covered[pixels] |= np.isfinite(t)
            nearer = np.flatnonzero(t < depth[pixels])
            at = pixels[nearer]
            depth[at], instances[at], parts[at] = t[nearer], number + 1, len(frames)
        alone[number] = covered.sum()
    seen = np.bincount(instances, minlength=len(scene.things) + 1)[1:]
    return _View(rays, depth, frames, parts, instances, seen, alone)


@lru_cache(maxsize=4)
def _across(side: int) -> tuple[Array, Array]:
    """Return the pixels' offsets from the centre to the right and down, in image widths."""
    places = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    right, down = np.meshgrid(places, places)
    return right.ravel(), down.ravel()


def _rays(camera: Camera, side: int) -> Array:
    """Return rays through the centres of all pixels, of length 1 along the camera's axis."""
    u, v = (places / np.float32(camera.focal) for places in _across(side))
    sin, cos = np.float32(np.sin(camera.pitch)), np.float32(np.cos(camera.pitch))
    return np.stack([u, -v * cos - sin, cos - v * sin], -1)


def _window(camera: Camera, frame: Frame, side: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the pixel numbers in the bounding rectangle of a ball around the part."""
    x, y, z = (float(value) for value in frame.centre)
    across, down, depth = camera.project(x, y, z)
    x0, x1 = _span(across / camera.focal, depth, frame.reach_m, camera.focal, side)
    y0, y1 = _span(down / camera.focal, depth, frame.reach_m, camera.focal, side)
    return (np.arange(y0, y1)[:, None] * side + np.arange(x0, x1)).ravel()


def _span(slope: float, depth: float, reach: float, focal: float, side: int) -> tuple[int, int]:
    """Return the pixels, end excluded, between the two planes through the eye tangent to a ball."""
    middle, away = np.arctan(slope), depth * np.hypot(1, slope)
    half = np.arcsin(reach / away) if away > reach else np.pi / 2
    limit = np.pi / 2 - _LEAST_ANGLE
    ends = (np.tan(np.clip(middle + turn, -limit, limit)) for turn in (-half, half))
    first, last = ((focal * end + 0.5) * side for end in ends)
    return int(np.clip(np.floor(first), 0, side)), int(np.clip(np.ceil(last), 0, side))


# -- truth -----------------------------------------------------------------------------------------


def _image(scene: Scene, view: _View, side: int) -> RenderedImage:
    known, on_thing = np.isfinite(view.depth), view.instances > 0
    kind_class = [CLASSES.index(thing.kind) for thing in scene.things]
    classes = np.array([0, *kind_class], np.uint8)[view.instances]
    classes[known & ~on_thing] = CLASSES.index("ground")
    outward = _normals(scene, view)
    near = known & (on_thing | (view.depth < FARTHEST_M))
    grid = view.instances.reshape(side, side)
    return RenderedImage(
        rgb=paint(scene, view.rays, view.depth, view.instances, view.parts, view.frames, outward),
        classes=classes.reshape(side, side),
        instances=grid,
        depth=np.where(near, view.depth, np.float32(0)).reshape(side, side),
        normals=_in_camera(scene.camera, outward * near[:, None]).reshape(side, side, 3),
        boxes=np.array([_box(grid == n + 1) for n in range(len(kind_class))], np.int32),
        visible=view.visible,
    )


def _normals(scene: Scene, view: _View) -> Array:
    """Return outward unit normals (P, 3) in the world, zeros in the sky."""
    found = np.zeros_like(view.rays)
    found[np.isfinite(view.depth)] = (0, 1, 0)
    eye = np.array([0, scene.camera.height, 0], np.float32)
    for number, frame in enumerate(view.frames, 1):
        mine = np.flatnonzero(view.parts == number)
        found[mine] = frame.normals(eye + view.depth[mine, None] * view.rays[mine])
    return found


def _in_camera(camera: Camera, directions: Array) -> Array:
    """Turn directions (P, 3) in the world into the camera's axes: right, down, away from it."""
    sin, cos = np.float32(np.sin(camera.pitch)), np.float32(np.cos(camera.pitch))
    axes = np.array([[1, 0, 0], [0, -cos, -sin], [0, -sin, cos]], np.float32)
    turned: Array = directions @ axes.T
    return turned


def _box(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return (0, 0, 0, 0)
    return (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
