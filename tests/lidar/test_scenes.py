"""Streets by seed: nothing overlaps, loads stand on roofs, and points belong to what they are said to."""

import torch

from vitrine.lidar.boxes import contains, corners, from_above, pairwise_iou
from vitrine.lidar.frames import frame_of, mirrored
from vitrine.lidar.grid import Grid
from vitrine.lidar.scanner import Scanner
from vitrine.lidar.scenes import Streets, draw_scene, returns, scan_scene
from vitrine.lidar.solids import roofs

SCENES = [draw_scene(seed) for seed in range(6)]
COARSE = Scanner(beams=24, step=1.5, noise=0.0, dropout=0.0)


def test_a_seed_is_a_street_and_loads_are_all_that_their_share_changes():
    assert all(torch.equal(a, b) for a, b in zip(draw_scene(1)[:3], SCENES[1][:3]))
    assert not torch.equal(SCENES[0].cars, SCENES[1].cars)
    bare, laden = draw_scene(1, Streets(roof_loads=0)), draw_scene(1, Streets(roof_loads=1))
    assert torch.equal(bare.cars, laden.cars) and torch.equal(bare.clutter, laden.clutter)
    assert not bare.loaded.any() and laden.loaded.all()


def test_things_keep_apart_and_loads_stand_on_roofs():
    for scene in SCENES:
        things = from_above(torch.cat([scene.cars, scene.clutter]))
        assert (pairwise_iou(things, things) > 0).sum() == len(things)
        loads, roof = scene.loads[scene.loaded], roofs(scene.cars)[scene.loaded]
        assert contains(from_above(roof)[:, None], corners(from_above(loads)), 1.001).all()
        assert torch.equal(loads[:, 2], roof[:, 2]) and (loads[:, 5] <= 0.5).all()


def test_points_lie_in_the_car_that_returned_them_and_in_no_other():
    for scene in SCENES[:3]:
        scan = scan_scene(scene, COARSE)
        owner = scene.cars_of(scan.solids)
        for number, car in enumerate(from_above(scene.cars)):
            inside = contains(car, scan.points[:, :2], 1.001) & (scan.points[:, 2] > 0.01)
            assert torch.equal(inside, owner == number)
        assert torch.equal(
            returns(scene, scan), torch.stack([(owner == n).sum() for n in range(len(scene.cars))])
        )


def test_a_frame_mirrored_is_the_frame_of_the_mirrored_street():
    grid, scene = Grid(cell=1), SCENES[2]
    turned = [of * torch.tensor([1, -1, 1, 1, 1, 1, -1]) for of in scene[:3]]
    expected = frame_of(scene._replace(cars=turned[0], loads=turned[1], clutter=turned[2]), COARSE, grid)
    found = mirrored(frame_of(scene, COARSE, grid), grid)
    torch.testing.assert_close(found.boxes, expected.boxes)
    # a return at a silhouette may go either way
    assert len(set(found.cells.tolist()) ^ set(expected.cells.tolist())) <= 0.02 * len(found.cells)
