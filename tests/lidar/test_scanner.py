"""Rays against solids: by hand, by brute force, by finite differences, and by trimesh's embree."""

import pytest
import torch

from vitrine.lidar.scanner import GROUND, NOTHING, Scanner, cast, enter_solids, measure, ray_directions
from vitrine.lidar.scenes import draw_scene
from vitrine.lidar.solids import box_solids, car_solids, roofs

COARSE = Scanner(beams=16, step=2.0)
CAR = torch.tensor([12.0, 2.0, 0.0, 4.4, 1.8, 1.6, 0.5], dtype=torch.float64)


def test_a_ray_meets_wall_ground_and_nothing_where_it_must():
    wall = box_solids(torch.tensor([[10.0, 0, 0, 1, 4, 3, 0]]))
    slope = 1 / 2**0.5
    directions = torch.tensor([[1.0, 0, 0], [slope, 0, -slope], [-1, 0, 0], [0, 1, 0]])
    hits = cast(torch.tensor([0.0, 0, 2]), directions, wall)
    torch.testing.assert_close(hits.distances[:2], torch.tensor([9.5, 2 / slope]))
    assert hits.solids.tolist() == [0, GROUND, NOTHING, NOTHING]
    assert cast(torch.tensor([0.0, 0, 2]), directions, wall, reach=5).solids[0] == NOTHING


def test_the_nearer_of_two_hides_the_other_in_any_order():
    near, far = [8.0, 0, 0, 1, 2, 1, 0], [12.0, 0, 0, 1, 4, 3, 0]
    directions = ray_directions(Scanner())
    origin = Scanner().origin
    first = cast(origin, directions, box_solids(torch.tensor([near, far])))
    second = cast(origin, directions, box_solids(torch.tensor([far, near])))
    assert torch.equal(first.distances, second.distances)
    assert {0, 1, GROUND} <= set(first.solids.tolist())
    alone = enter_solids(origin, directions, box_solids(torch.tensor([near])))[:, 0]
    assert torch.equal(first.solids == 0, alone.isfinite())


def test_a_car_fills_its_box_and_has_a_roof_at_its_height():
    car = car_solids(CAR)
    cos, sin = CAR[6].cos(), CAR[6].sin()
    generator = torch.Generator().manual_seed(0)
    local = (torch.rand(20000, 3, generator=generator, dtype=torch.float64) - 0.5) * 6 + torch.tensor(
        [0, 0, 1]
    )
    world = torch.stack(
        [
            CAR[0] + local[:, 0] * cos - local[:, 1] * sin,
            CAR[1] + local[:, 0] * sin + local[:, 1] * cos,
            local[:, 2],
        ],
        1,
    )
    inside = ((world @ car[..., :3].flatten(0, 1).T).view(-1, 2, 6) <= car[..., 3]).all(2).any(1)
    most, least = local[inside].amax(0), local[inside].amin(0)
    torch.testing.assert_close(most, torch.tensor([2.2, 0.9, 1.6]).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(least, torch.tensor([-2.2, -0.9, 0.2]).double(), atol=0.1, rtol=0)
    roof = roofs(CAR)
    above = torch.tensor([roof[0], roof[1], 5.0], dtype=torch.float64)
    down = torch.tensor([[0.0, 0, -1]], dtype=torch.float64)
    assert cast(above, down, car).distances.item() == pytest.approx(5 - 1.6)
    assert roof[2] == 1.6


def test_distances_have_the_gradients_of_finite_differences():
    directions = ray_directions(COARSE).double()
    origin = COARSE.origin.double()

    def distances(car):
        hits = cast(origin, directions, car_solids(car))
        return hits.distances[met] @ torch.linspace(1, 2, int(met.sum()), dtype=torch.float64)

    met = cast(origin, directions, car_solids(CAR)).solids >= 0
    assert met.sum() >= 5
    assert torch.autograd.gradcheck(distances, CAR.clone().requires_grad_(), eps=1e-7)


def test_noise_and_loss_are_of_a_ray_whatever_else_is_there():
    scanner, directions = Scanner(), ray_directions(Scanner())
    ground = cast(scanner.origin, directions, torch.zeros(0, 6, 4), scanner.reach)
    car = cast(scanner.origin, directions, car_solids(CAR.float()), scanner.reach)
    without, beside = measure(scanner, directions, ground, 3), measure(scanner, directions, car, 3)
    rest = beside.solids == GROUND
    rows = torch.searchsorted(without.rays, beside.rays[rest])
    assert torch.equal(without.points[rows], beside.points[rest])
    lost = 1 - len(without.rays) / ground.distances.isfinite().sum().item()
    assert lost == pytest.approx(scanner.dropout, abs=0.01)
    ranges = (without.points - scanner.origin).norm(dim=1)
    assert (ranges - ground.distances[without.rays]).std().item() == pytest.approx(scanner.noise, rel=0.05)
    assert not torch.equal(measure(scanner, directions, ground, 4).points, without.points)


@pytest.mark.slow
def test_a_street_is_scanned_as_embree_does():
    trimesh = pytest.importorskip("trimesh", reason="the oracle: pip install 'vitrine[physical]'")
    pytest.importorskip("embreex", reason="the oracle: pip install 'vitrine[physical]'")
    from scipy import optimize, spatial
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    scene, scanner = draw_scene(7), Scanner(step=1.0)
    origin, directions = scanner.origin.double(), ray_directions(scanner).double()
    solids = scene._replace(
        cars=scene.cars.double(), loads=scene.loads.double(), clutter=scene.clutter.double()
    )
    solids = solids.solids
    hits = cast(origin, directions, solids)
    pieces, owners = [], []
    for number, planes in enumerate(solids):
        # the point deepest inside
        matrix = torch.cat([planes[:, :3], torch.ones(6, 1)], 1)
        inner = optimize.linprog([0, 0, 0, -1], matrix, planes[:, 3], bounds=(None, None)).x[:3]
        spread = spatial.HalfspaceIntersection(torch.cat([planes[:, :3], -planes[:, 3:]], 1).numpy(), inner)
        piece = trimesh.convex.convex_hull(spread.intersections)
        pieces.append(piece)
        owners += [number] * len(piece.faces)
    ground = trimesh.Trimesh([[-99, -99, 0], [99, -99, 0], [99, 99, 0], [-99, 99, 0]], [[0, 1, 2], [0, 2, 3]])
    street = trimesh.util.concatenate([*pieces, ground])
    owner = torch.tensor([*owners, GROUND, GROUND])
    starts = origin.expand(len(directions), 3).numpy()
    points, rays, faces = RayMeshIntersector(street, scale_to_box=False).intersects_location(
        starts, directions.numpy(), multiple_hits=False
    )
    rays, found = torch.as_tensor(rays), torch.as_tensor(points)
    far = (found - origin).norm(dim=1)
    near = far < 60
    ours = hits.distances[rays[near]]
    # at silhouettes single precision may go past
    agree = (ours - far[near]).abs() < 1e-3
    assert agree.double().mean() > 0.998
    assert (hits.solids[rays[near]] == owner[torch.as_tensor(faces)[near]])[agree].double().mean() > 0.999
    assert set(hits.solids.tolist()) > {GROUND, 0}
