"""The rendered world: what is drawn is what the truth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.demo.render import CLASSES, make_picture, render
from curator.demo.scene import HEIGHTS, SHAPES, Camera, Scene, Shape, Solid, sample_scene
from curator.demo.shading import FARTHEST_M
from curator.demo.solids import BOUNDS, Frame, distance, normals

LEVEL = Camera(height=1.0, pitch=0.0, focal=1.0)


def scene_of(*solids: Solid, camera: Camera = LEVEL) -> Scene:
    return Scene(
        seed=1,
        solids=solids,
        ground="grass",
        sky="clear",
        camera=camera,
        light=(0.0, 1.0, 0.0),
        noise=0.0,
        blur=0.0,
    )


def ball(**changes: object) -> Solid:
    solid = Solid(shape="sphere", color="red", size="large", material="matte", x=0, z=5, yaw=0)
    return replace(solid, **changes)


def test_a_ray_along_the_axis_meets_a_sphere_at_its_front() -> None:
    # eye at height 1, ball of radius 0.8 standing at z = 5: its middle is at height 0.8
    picture = render(scene_of(ball(bottom=0.2)), 129)  # lifted, so that the middle is at eye level
    assert picture.depth[64, 64] == pytest.approx(5 - 0.8, abs=1e-3)
    assert CLASSES[picture.classes[64, 64]] == "sphere"
    # tangent: half the width is f * r / sqrt(z^2 - r^2) = 0.1621 picture widths = 20.9 pixels
    x0, y0, x1, y1 = picture.boxes[0]
    assert (x1 - x0, y1 - y0) == (pytest.approx(41.8, abs=1.5), pytest.approx(41.8, abs=1.5))


def test_the_ground_is_a_plane_at_height_zero() -> None:
    picture = render(scene_of(), 101)
    # row 75 is (75.5 - 50.5) / 101 of the width below the axis: depth = height * focal / that
    assert picture.depth[75, 50] == pytest.approx(101 / 25, rel=1e-4)
    assert (picture.depth[:50] == 0).all()
    assert (picture.classes[:50] == CLASSES.index("sky")).all()
    assert picture.depth.max() < FARTHEST_M


def test_what_stands_before_hides_what_stands_behind() -> None:
    picture = render(scene_of(ball(z=8), ball(color="blue", z=4)), 65)
    assert picture.instances[36, 32] == 2
    assert picture.visible[1] == 1
    assert picture.visible[0] < 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_point_to_the_eye_and_hits_lie_on_the_surface(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    origins = np.array([[0.3, 1.4, -6]], np.float32)
    targets = rng.uniform([-1, 0, -1], [1, 2, 1], (4000, 3)).astype(np.float32)
    rays = targets - origins
    t = distance(shape, origins, rays)
    hit = np.isfinite(t)
    assert hit.mean() > 0.25
    points = origins + t[hit, None] * rays[hit]
    outward = normals(shape, points)
    assert np.allclose(np.linalg.norm(outward, axis=1), 1, atol=1e-5)
    assert ((outward * rays[hit]).sum(1) < 0.05).all()
    middle = np.array([0, HEIGHTS[shape] / 2, 0])
    assert np.linalg.norm(points - middle, axis=1).max() < BOUNDS[shape] + 1e-3
    # a step back on the same ray, the surface is a step ahead
    again = distance(shape, points - 0.05 * rays[hit], rays[hit])
    assert np.allclose(again, 0.05, atol=5e-3)


def torus_distance(points: np.ndarray) -> np.ndarray:
    ring = np.hypot(points[..., 0], points[..., 1] - 1)
    return np.hypot(ring - 0.7, points[..., 2]) - 0.3


def test_rays_meet_a_torus_where_a_walk_in_small_steps_does() -> None:
    rng = np.random.default_rng(0)
    origins = rng.uniform(-4, 4, (600, 3)) + np.array([0, 1, 0])
    origins = origins[torus_distance(origins) > 0.1]
    rays = rng.uniform([-1, 0, -0.4], [1, 2, 0.4], origins.shape) - origins
    t = distance("torus", origins.astype(np.float32), rays.astype(np.float32))
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
def test_no_part_of_a_solid_is_cut_off(seed: int) -> None:
    scene, side = sample_scene(seed), 48
    camera = scene.camera
    places = (np.arange(side) + 0.5) / side - 0.5
    u, v = (grid.ravel() / camera.focal for grid in np.meshgrid(places, places))
    sin, cos = np.sin(camera.pitch), np.cos(camera.pitch)
    rays = np.stack([u, -v * cos - sin, cos - v * sin], -1).astype(np.float32)
    eye = np.array([[0, camera.height, 0]], np.float32)
    for number, solid in enumerate(scene.solids):
        frame = Frame(solid)
        t = distance(solid.shape, frame.points(eye), frame.directions(rays))
        alone = render(replace(scene, solids=(replace(solid, on=None),)), side)
        assert ((alone.instances.ravel() == 1) == np.isfinite(t)).all(), number


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_relations_come_in_pairs_that_agree(seed: int) -> None:
    scene = sample_scene(seed)
    back = {
        "left of": "right of",
        "right of": "left of",
        "in front of": "behind",
        "behind": "in front of",
        "on top of": "under",
        "under": "on top of",
    }
    held = set(scene.relations())
    assert held == {(b, back[name], a) for a, name, b in held}
    for a, name, b in held:
        if name == "on top of":
            assert scene.solids[a].bottom == scene.solids[b].height


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_truth_agrees_with_itself(seed: int) -> None:
    scene, picture = make_picture(seed, 64)
    for number, solid in enumerate(scene.solids):
        mask = picture.instances == number + 1
        assert mask.any()
        assert (picture.classes[mask] == CLASSES.index(solid.shape)).all()
        ys, xs = np.nonzero(mask)
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert tuple(picture.boxes[number]) == box
        assert abs(picture.depth[mask].mean() - solid.z) < 2 * solid.radius + 1
    assert (picture.depth[picture.classes == 0] == 0).all()


def test_a_seed_gives_the_same_picture_again() -> None:
    first, second = (make_picture(7, 48)[1] for _ in range(2))
    assert (first.rgb == second.rgb).all()
    assert (first.rgb != make_picture(8, 48)[1].rgb).any()
