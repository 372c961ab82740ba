"""The rendered world: what is drawn is what the truth says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.demo.render import (
    CLASSES,
    FARTHEST_M,
    MIN_PIXEL_SHARE,
    MIN_VISIBLE_SHARE,
    RenderedImage,
    make_image,
    render,
)
from curator.demo.scene import (
    KINDS,
    MATERIALS,
    PLAIN,
    Camera,
    Kind,
    Material,
    Scene,
    Thing,
    sample_scene,
)
from curator.demo.solids import COMPOSITES, Array, Frame

LEVEL = Camera(height=1.0, pitch=0.0, focal=1.0)
TILTED = Camera(height=2.0, pitch=0.3, focal=1.1)
DOWN, NORTH, SOUTH = (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)


def scene_of(*things: Thing, camera: Camera = LEVEL) -> Scene:
    return Scene(
        seed=1,
        things=things,
        ground="grass",
        sky="clear",
        camera=camera,
        light=(0.0, 1.0, 0.0),
        noise=0.0,
        blur=0.0,
    )


def thing(kind: Kind = "ball", **changes: Any) -> Thing:
    found = Thing(kind=kind, color="red", material="matte", radius=1.0, x=0.0, z=5.0, yaw=0.0)
    return replace(found, **changes)


def first_hit(
    seen: Thing, origin: tuple[float, ...], direction: tuple[float, ...]
) -> tuple[float, Array]:
    """The distance to the nearest part, and the normal there; inf and zeros for a miss."""
    origins, rays = np.array([origin], np.float32), np.array([direction], np.float32)
    frames = [Frame(seen, part) for part in COMPOSITES[seen.kind]]
    t = [float(frame.distance(origins, rays)[0]) for frame in frames]
    nearest = int(np.argmin(t))
    if not np.isfinite(t[nearest]):
        return np.inf, np.zeros(3)
    return t[nearest], frames[nearest].normals(origins + np.float32(t[nearest]) * rays)[0]


def slope(radius: float, height: float, sign: int = 1) -> tuple[float, float, float]:
    """The outward normal at the front of a cone: as steep as its wall is flat."""
    length = float(np.hypot(radius, height))
    return (0.0, sign * radius / length, -height / length)


# Of things of radius 1 at the origin: heights and half widths are those of COMPOSITES by hand. Rays
# go north from z = -5, or down from y = 5, so that distances are 5 less the coordinate that is hit.
HITS: list[tuple[Kind, tuple[float, ...], tuple[float, ...], float, tuple[float, ...]]] = [
    ("ball", (0, 1, -5), NORTH, 4.0, (0, 0, -1)),
    ("ball", (0.6, 1, -5), NORTH, 5 - 0.8, (0.6, 0, -0.8)),
    ("ball", (0, 5, 0), DOWN, 3.0, (0, 1, 0)),
    ("box", (0.8, 0.1, -5), NORTH, 5 - 0.825, (0, 0, -1)),  # 1.1 x 1.5 m wide and high
    ("box", (0.8, 5, 0.8), DOWN, 5 - 1.65, (0, 1, 0)),
    ("cone", (0, 0.5, -5), NORTH, 5 - 0.95 * 0.75, slope(0.95, 2)),
    ("cone", (0.475, 5, 0), DOWN, 4.0, (2 / 4.9025**0.5, 0.95 / 4.9025**0.5, 0)),
    ("ring", (0.7, 1, -5), NORTH, 5 - 0.3, (0, 0, -1)),
    ("ring", (0, 5, 0), DOWN, 3.0, (0, 1, 0)),
    ("snowman", (0, 0.64, -5), NORTH, 5 - 0.64, (0, 0, -1)),  # the body
    ("snowman", (0, 1.56, -5), NORTH, 5 - 0.44, (0, 0, -1)),  # the head, from 1.12 to 2.00
    ("snowman", (0, 5, 0), DOWN, 3.0, (0, 1, 0)),
    ("tree", (0, 0.3, -5), NORTH, 5 - 0.1875, (0, 0, -1)),  # the trunk: 0.25 x 0.75
    ("tree", (0, 1.35, -5), NORTH, 5 - 0.40375, slope(0.8075, 1.6)),  # the crown, 0.55 to 2.15
    ("tree", (0.5, 0, 0), (0, 1, 0), 0.55, (0, -1, 0)),  # the crown from below
    ("mushroom", (0, 0.4, -5), NORTH, 5 - 0.3, (0, 0, -1)),  # the stem: 0.40 x 0.75
    ("mushroom", (0, 1.28, -5), NORTH, 5 - 0.95, (0, 0, -1)),  # the cap, from 0.80 to 1.76
    ("mushroom", (0, 5, 0), DOWN, 5 - 1.76, (0, 1, 0)),
    ("table", (0.76, 0.5, -5), NORTH, 5 - 0.46 - 0.0975, (0, 0, -1)),  # the legs
    ("table", (-0.76, 0.5, -5), NORTH, 5 - 0.46 - 0.0975, (0, 0, -1)),
    ("table", (0.76, 0.5, 5), SOUTH, 5 - 0.46 - 0.0975, (0, 0, 1)),
    ("table", (-0.76, 0.5, 5), SOUTH, 5 - 0.46 - 0.0975, (0, 0, 1)),
    ("table", (0, 1.24, -5), NORTH, 5 - 0.6, (0, 0, -1)),  # the top, 1.8 x 0.24 x 1.2
    ("table", (0.89, 5, 0.59), DOWN, 5 - 1.36, (0, 1, 0)),
    ("hourglass", (0, 0.28, -5), NORTH, 5 - 0.55575, slope(0.741, 1.12)),  # 3/4 of 0.741
    ("hourglass", (0, 1.74, -5), NORTH, 5 - 0.55575, slope(0.741, 1.12, sign=-1)),
    ("hourglass", (0, 5, 0), DOWN, 5 - 2.02, (0, 1, 0)),  # the base of the cone upside down
    ("hourglass", (0.7, 5, 0), DOWN, 5 - 2.02, (0, 1, 0)),
    ("pillar", (0.48, 0.1, -5), NORTH, 5 - 0.495, (0, 0, -1)),  # the foot, up to 0.21
    ("pillar", (0, 1, -5), NORTH, 5 - 0.36, (0, 0, -1)),  # the shaft, up to 1.825
    ("pillar", (0.48, 1.9, -5), NORTH, 5 - 0.495, (0, 0, -1)),  # the head, up to 2.03
    ("pillar", (0.48, 5, 0.48), DOWN, 5 - 2.03, (0, 1, 0)),
]


@pytest.mark.parametrize(("kind", "origin", "direction", "distance", "normal"), HITS)
def test_a_ray_meets_each_part_where_it_is(
    kind: Kind,
    origin: tuple[float, ...],
    direction: tuple[float, ...],
    distance: float,
    normal: tuple[float, ...],
) -> None:
    found, outward = first_hit(thing(kind, z=0.0), origin, direction)
    assert found == pytest.approx(distance, abs=1e-5)
    assert outward == pytest.approx(np.array(normal), abs=1e-5)
    # A thing of half the size, moved: origins move with it, distances are half as long.
    moved = thing(kind, radius=0.5, x=1.0, z=3.0)
    from_there = (1 + origin[0] / 2, origin[1] / 2, 3 + origin[2] / 2)
    assert first_hit(moved, from_there, direction)[0] == pytest.approx(distance / 2, abs=1e-5)


def test_every_kind_and_every_part_is_tried() -> None:
    hit = set()
    for kind, origin, direction, *_ in HITS:
        seen = thing(kind, z=0.0)
        o, d = np.array([origin], np.float32), np.array([direction], np.float32)
        t = [float(Frame(seen, part).distance(o, d)[0]) for part in COMPOSITES[kind]]
        hit.add((kind, int(np.argmin(t))))
    assert hit == {(kind, n) for kind in KINDS for n in range(len(COMPOSITES[kind]))}


@pytest.mark.parametrize(
    ("kind", "origin", "direction"),
    [
        ("ring", (0, 1, -5), NORTH),  # through the hole
        ("table", (0, 0.5, -5), NORTH),  # between the legs
        ("table", (0.91, 5, 0), DOWN),
        ("snowman", (0.5, 1.56, -5), NORTH),  # past the head
        ("tree", (0.5, 0.3, -5), NORTH),  # past the trunk
        ("mushroom", (0.5, 0.4, -5), NORTH),  # past the stem
        ("hourglass", (0.1, 1.01, -5), NORTH),  # past the waist, less than 0.08 wide
        ("hourglass", (0.75, 5, 0), DOWN),
        ("pillar", (0.4, 1, -5), NORTH),  # past the shaft
        ("ball", (0, 1, 5), NORTH),  # behind the origin
    ],
)
def test_a_ray_goes_past(
    kind: Kind, origin: tuple[float, ...], direction: tuple[float, ...]
) -> None:
    assert first_hit(thing(kind, z=0.0), origin, direction)[0] == np.inf


def test_things_are_turned_about_their_axis() -> None:
    across = first_hit(thing("table", z=0.0, yaw=np.pi / 2), (0, 1.24, -5), NORTH)
    assert across[0] == pytest.approx(5 - 0.9, abs=1e-5)  # the long side
    assert across[1] == pytest.approx(np.array([0, 0, -1]), abs=1e-5)
    corner = first_hit(thing("box", z=0.0, yaw=np.pi / 4), (0, 1, -5), NORTH)
    assert corner[0] == pytest.approx(5 - 0.825 * 2**0.5, abs=1e-5)


def test_the_base_of_an_hourglass_is_seen_from_above() -> None:
    camera = Camera(height=4.0, pitch=0.6, focal=1.0)
    seen = render(scene_of(thing("hourglass", z=4.0), camera=camera), 128)
    up = np.array([0, -np.cos(0.6), -np.sin(0.6)])
    flat = (seen.instances == 1) & (seen.normals @ up > 0.999)
    assert flat.sum() > 200
    # Seen at height 2.02: the eye is 1.98 above, so depth * (downward part of the ray) is 1.98.
    rows = (np.arange(128) + 0.5) / 128 - 0.5
    fall = rows * np.cos(0.6) + np.sin(0.6)
    assert (seen.depth * fall[:, None])[flat] == pytest.approx(1.98, abs=1e-4)


def test_a_ray_along_the_axis_meets_a_ball_at_its_front() -> None:
    # The eye is at height 1, as is the middle of a ball of radius 1 that stands at z = 5.
    image = render(scene_of(thing()), 129)
    assert image.depth[64, 64] == pytest.approx(5 - 1, abs=1e-4)
    assert CLASSES[image.classes[64, 64]] == "ball"
    assert image.normals[64, 64] == pytest.approx(np.array([0, 0, -1]), abs=1e-5)
    # tangent: half the width is f * r / sqrt(z^2 - r^2) = 0.2041 image widths = 26.3 pixels
    x0, y0, x1, y1 = image.boxes[0]
    assert (x1 - x0, y1 - y0) == (pytest.approx(52.7, abs=1.5), pytest.approx(52.7, abs=1.5))


def test_the_ground_is_a_plane_at_height_zero_that_ends_at_ten_metres() -> None:
    image = render(scene_of(), 101)
    # row 75 is (75.5 - 50.5) / 101 of the width below the axis: depth = height * focal / that
    assert image.depth[75, 50] == pytest.approx(101 / 25, rel=1e-4)
    assert image.depth[61, 50] == pytest.approx(101 / 11, rel=1e-4)  # 9.2 m
    # From row 60 up, 10.1 m and more: ground without depth or normals.
    assert (image.depth[:61] == 0).all()
    assert (image.normals[:61] == 0).all()
    assert (image.classes[51:] == CLASSES.index("ground")).all()
    assert (image.classes[:50] == CLASSES.index("sky")).all()
    assert image.depth.max() < FARTHEST_M == 10


def test_the_ground_s_normal_is_up_in_the_axes_of_the_camera() -> None:
    image = render(scene_of(camera=TILTED), 64)
    known = image.depth > 0
    assert known.mean() > 0.5
    up = np.array([0, -np.cos(0.3), -np.sin(0.3)])  # the camera looks down: up is towards it
    assert np.abs(image.normals[known] - up).max() < 1e-6


def points(image: RenderedImage, camera: Camera) -> np.ndarray:
    """Where the pixels' rays end, in the camera's axes, (side, side, 3)."""
    side = len(image.depth)
    places = ((np.arange(side) + 0.5) / side - 0.5) / camera.focal
    right, down = np.meshgrid(places, places)
    return np.stack([right, down, np.ones_like(right)], -1) * image.depth[..., None]


@pytest.mark.parametrize("camera", [LEVEL, TILTED])
def test_normals_of_a_ball_lie_along_its_radii(camera: Camera) -> None:
    ball = thing(x=0.4, radius=0.9, yaw=1.0)
    image = render(scene_of(ball, camera=camera), 96)
    mine = image.instances == 1
    assert mine.sum() > 800
    across, down, depth = camera.project(ball.x, ball.radius, ball.z)
    middle = np.array([across / camera.focal * depth, down / camera.focal * depth, depth])
    radii = (points(image, camera)[mine] - middle) / ball.radius
    assert np.abs(image.normals[mine] - radii).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_normals_are_those_of_the_depth(kind: Kind) -> None:
    """Of the depths of four neighbours, wherever the surface is smooth at that scale."""
    camera, side = Camera(height=2.2, pitch=0.24, focal=1.2), 512
    image = render(scene_of(thing(kind, yaw=0.4, z=4.5), camera=camera), side)
    at = points(image, camera)

    def crossed(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        normal = np.cross(dy, dx)  # towards the camera
        return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)

    inner = at[1:-1, 1:-1]
    forward = crossed(at[1:-1, 2:] - inner, at[2:, 1:-1] - inner)
    backward = crossed(inner - at[1:-1, :-2], inner - at[:-2, 1:-1])
    both = crossed(at[1:-1, 2:] - at[1:-1, :-2], at[2:, 1:-1] - at[:-2, 1:-1])
    stored = image.normals[1:-1, 1:-1]
    on_thing = image.instances[1:-1, 1:-1] == 1
    smooth = on_thing & ((forward * backward).sum(-1) > np.cos(0.1))
    assert smooth.sum() > 0.7 * on_thing.sum()
    wrong_by = np.arccos(np.clip((stored * both).sum(-1)[smooth], -1, 1))
    assert np.quantile(wrong_by, 0.99) < 0.02  # radians
    assert np.median(wrong_by) < 0.005


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_normals_are_unit_vectors_that_face_the_camera_where_there_is_depth(seed: int) -> None:
    scene = sample_scene(seed)
    image = render(scene, 48)
    known = image.depth > 0
    assert (image.normals[~known] == 0).all()
    assert np.abs(np.linalg.norm(image.normals[known], axis=1) - 1).max(initial=0) < 1e-5
    facing = (image.normals * points(image, scene.camera)).sum(-1)[known]
    assert facing.max(initial=0) < 0.02  # 0 at the rim, up to the error of the hit


def test_what_stands_before_hides_what_stands_behind() -> None:
    image = render(scene_of(thing(z=8), thing(color="blue", z=4)), 65)
    assert image.instances[36, 32] == 2
    assert image.visible[1] == 1
    assert image.visible[0] < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_hits_lie_on_the_surface_within_reach_of_the_part(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    seen = thing(kind, z=0.0, yaw=0.7)
    origins = np.array([[0.3, 1.4, -6]], np.float32)
    for part in COMPOSITES[kind]:
        frame = Frame(seen, part)
        targets = frame.centre + rng.uniform(-1, 1, (4000, 3)).astype(np.float32) * frame.reach_m
        rays = targets - origins
        t = frame.distance(origins, rays)
        hit = np.isfinite(t)
        assert hit.mean() > 0.05
        ends = origins + t[hit, None] * rays[hit]
        outward = frame.normals(ends)
        assert np.allclose(np.linalg.norm(outward, axis=1), 1, atol=1e-5)
        assert ((outward * rays[hit]).sum(1) < 0.05).all()
        assert np.linalg.norm(ends - frame.centre, axis=1).max() < frame.reach_m + 1e-3
        # a step back on the same ray, the surface is a step ahead
        again = frame.distance(ends - 0.05 * rays[hit], rays[hit])
        assert np.allclose(again, 0.05, atol=5e-3)


def torus_distance(points: np.ndarray) -> np.ndarray:
    ring = np.hypot(points[..., 0], points[..., 1] - 1)
    return np.hypot(ring - 0.7, points[..., 2]) - 0.3


def test_rays_meet_a_torus_where_a_walk_in_small_steps_does() -> None:
    rng = np.random.default_rng(0)
    origins = rng.uniform(-4, 4, (600, 3)) + np.array([0, 1, 0])
    origins = origins[torus_distance(origins) > 0.1]
    rays = rng.uniform([-1, 0, -0.4], [1, 2, 0.4], origins.shape) - origins
    frame = Frame(thing("ring", z=0.0), COMPOSITES["ring"][0])
    t = frame.distance(origins.astype(np.float32), rays.astype(np.float32))
    steps = np.linspace(0, 3, 3001)
    walk = torus_distance(origins[:, None] + steps[:, None] * rays[:, None])
    first = np.where((walk <= 0).any(1), steps[(walk <= 0).argmax(1)], np.inf)
    grazing = np.abs(walk.min(1)) < 1e-3  # the walk may step over it
    assert np.isfinite(first).sum() > 200
    assert grazing.sum() < 20
    assert (np.isfinite(t) == np.isfinite(first))[~grazing].all()
    hit = np.isfinite(t)
    assert np.abs(torus_distance(origins[hit] + t[hit, None] * rays[hit])).max() < 1e-5
    both = hit & ~grazing
    assert np.abs(t[both] - first[both]).max() <= 1.1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_no_part_of_a_thing_is_cut_off(seed: int) -> None:
    scene, side = sample_scene(seed), 48
    camera = scene.camera
    places = (np.arange(side) + 0.5) / side - 0.5
    u, v = (grid.ravel() / camera.focal for grid in np.meshgrid(places, places))
    sin, cos = np.sin(camera.pitch), np.cos(camera.pitch)
    rays = np.stack([u, -v * cos - sin, cos - v * sin], -1).astype(np.float32)
    eye = np.array([[0, camera.height, 0]], np.float32)
    for one in scene.things:
        parts = [Frame(one, part).distance(eye, rays) for part in COMPOSITES[one.kind]]
        alone = render(replace(scene, things=(one,)), side)
        assert ((alone.instances.ravel() == 1) == np.isfinite(parts).any(0)).all(), one


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_relations_come_in_pairs_that_agree(seed: int) -> None:
    scene = sample_scene(seed)
    back = {
        "left of": "right of",
        "right of": "left of",
        "in front of": "behind",
        "behind": "in front of",
    }
    held = set(scene.relations())
    assert held == {(b, back[name], a) for a, name, b in held}


@given(st.integers(0, 10**6))
def test_things_are_one_or_two_apart_from_each_other(seed: int) -> None:
    scene = sample_scene(seed)
    assert 1 <= len(scene.things) <= 2
    if len(scene.things) == 2:
        a, b = scene.things
        assert np.hypot(a.x - b.x, a.z - b.z) > a.radius + b.radius
    for one in scene.things:
        assert 0.8 <= one.radius <= 1.15


def test_scenes_have_every_kind_and_patterns_only_on_request() -> None:
    plain = [one for seed in range(300) for one in sample_scene(seed).things]
    assert {one.kind for one in plain} == set(KINDS)
    assert {one.material for one in plain} == set(PLAIN)
    every = [one for seed in range(300) for one in sample_scene(seed, MATERIALS).things]
    assert {one.material for one in every} == set(MATERIALS) == {*PLAIN, "striped", "dotted"}
    # The same scenes but for the materials.
    assert [replace(one, material="matte") for one in plain] == [
        replace(one, material="matte") for one in every
    ]


def test_stripes_and_dots_show() -> None:
    def red_pixels(material: Material) -> np.ndarray:
        shown = scene_of(thing(material=material))
        image = render(shown, 96)
        return image.rgb[image.instances == 1].astype(int)

    matte = red_pixels("matte")
    patterns: tuple[Material, ...] = ("striped", "dotted")
    for material in patterns:
        marked = red_pixels(material)
        whiter = marked[:, 2] > matte[:, 2] + 40  # a red ball has hardly any blue
        assert 0.1 < whiter.mean() < 0.6, material
    assert (red_pixels("shiny") != matte).any()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_truth_agrees_with_itself(seed: int) -> None:
    scene, image = make_image(seed, 64)
    for number, one in enumerate(scene.things):
        mask = image.instances == number + 1
        assert mask.mean() >= MIN_PIXEL_SHARE
        assert image.visible[number] >= MIN_VISIBLE_SHARE
        assert (image.classes[mask] == CLASSES.index(one.kind)).all()
        ys, xs = np.nonzero(mask)
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert tuple(image.boxes[number]) == box
        assert (image.depth[mask] > 0).all()
        assert abs(image.depth[mask].mean() - one.z) < one.radius + 1
    nothing = image.instances == 0
    assert set(np.unique(image.classes[nothing])) <= {0, CLASSES.index("ground")}
    assert image.instances.max() == len(scene.things)
    assert (image.depth[image.classes == 0] == 0).all()
    assert image.depth.max() < FARTHEST_M


def test_a_seed_gives_the_same_image_again() -> None:
    first, second = (make_image(7, 48)[1] for _ in range(2))
    assert (first.rgb == second.rgb).all()
    assert (first.rgb != make_image(8, 48)[1].rgb).any()
