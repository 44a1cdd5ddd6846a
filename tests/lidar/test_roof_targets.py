"""Meshes on roofs: a prepared target shows what a scan of the whole scene shows; attacks lower the loss."""

import math
from functools import cache

import pytest
import torch

from vitrine.core.random_numbers import make_key
from vitrine.lidar.grid import Grid, hard_occupancy
from vitrine.lidar.hiding import ellipsoid, roof_box
from vitrine.lidar.icosphere import mesh_edges
from vitrine.lidar.mesh_attacks import GradientAttack, SearchAttack, hiding_losses, view_losses
from vitrine.lidar.mesh_rays import intersect
from vitrine.lidar.network import STRIDE, BirdsEyeNetwork
from vitrine.lidar.roof_mesh import EXTENTS, from_roof, random_mesh, shape, sphere_mesh
from vitrine.lidar.roof_targets import hard_views, prepare, returned, soft_views
from vitrine.lidar.scanner import Scanner, cast, measure, ray_directions
from vitrine.lidar.scenes import Scene

FACES = sphere_mesh()[1]
EDGES = mesh_edges(FACES)
SCANNER, GRID = Scanner(sector=60, dropout=0.1), Grid(cell=0.25, ahead=20, aside=8)
NONE = torch.zeros(1, 7)


@cache
def target(x: float = 9.0, heading: float = 0.7):
    car = torch.tensor([[x, 1.0, 0.0, 4.4, 1.8, 1.5, heading]])
    wall = torch.tensor([[16.0, 1.0, 0.0, 0.5, 12.0, 3.5, 0.0]])
    return prepare(Scene(car, NONE, wall, 3), 0, SCANNER, GRID, 32)


def test_the_returns_are_those_of_the_whole_scan_with_the_mesh_in_the_scene():
    vertices, of = random_mesh(0), target()
    directions = ray_directions(SCANNER)
    hits = cast(SCANNER.origin, directions, of.scene.solids, SCANNER.reach)
    solid = from_roof(vertices, of.car)
    distances = intersect(solid, FACES, SCANNER.origin, directions)[0]
    assert (distances < hits.distances).sum() > 20
    hits = hits._replace(distances=torch.minimum(hits.distances, distances))
    whole = measure(SCANNER, directions, hits, make_key(of.scene.seed, 3)).points
    own = returned(of, vertices, FACES)
    assert len(whole) == len(own)
    torch.testing.assert_close(own.sort(0).values, whole.sort(0).values, rtol=0, atol=1e-4)


def test_a_view_is_the_occupancy_of_the_returns_around_the_car():
    targets = [target(), target(7.0, math.pi / 2)]
    vertices = random_mesh(1)
    views = hard_views(targets, vertices, FACES)
    for view, of in zip(views, targets):
        points = returned(of, vertices, FACES)
        assert torch.equal(view, hard_occupancy(of.grid, points + of.shift))
        assert not torch.equal(view, hard_occupancy(of.grid, returned(of, None, FACES) + of.shift))


@pytest.mark.parametrize("x", [24.0, 25.0])
def test_the_network_says_the_same_of_a_view_as_of_the_whole_scan(x):
    torch.manual_seed(0)
    network, grid = BirdsEyeNetwork(GRID.slices, width=4).eval(), Grid(cell=0.25, ahead=48, aside=24)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data *= 2  # else what it says hardly depends on what it sees
    of = prepare(target(x).scene, 0, SCANNER, grid, 144)
    row, column = ((grid.aside - of.grid.aside) * torch.tensor([0, 1]) - of.shift[:2]).div(grid.cell).tolist()
    points = returned(of, None, FACES)
    whole = network(hard_occupancy(grid, points)[None])[0][0]
    part = network(hard_occupancy(of.grid, points + of.shift)[None])[0][0]
    inner = slice(32, 40)  # places that nothing beyond the view's edges reaches
    beside = whole[round(row) // STRIDE :, round(column) // STRIDE :]
    assert part[inner, inner].std() > 1e-3
    torch.testing.assert_close(beside[inner, inner], part[inner, inner], rtol=0, atol=1e-5)


def test_a_soft_view_becomes_the_hard_one():
    vertices = random_mesh(2)
    targets = [target(), target(7.0, math.pi / 2)]
    soft = soft_views(targets, vertices, FACES, EDGES, 1e-5, 1e6)
    torch.testing.assert_close(soft, hard_views(targets, vertices, FACES), rtol=0, atol=1e-4)


def test_a_mesh_without_extent_is_as_good_as_none_softly_too():
    offsets = torch.full((162, 3), 40.0, requires_grad=True)  # every vertex in one corner of the box
    vertices = shape(offsets)
    soft = soft_views([target()], vertices, FACES, EDGES, 0.03, 3.0)
    hard = hard_views([target()], vertices.detach(), FACES)
    torch.testing.assert_close(soft.detach(), hard, rtol=0, atol=1e-4)
    soft.sum().backward()
    assert not offsets.grad.any()


def test_faces_without_area_cover_nothing():
    corners = 40.0 * sphere_mesh()[0].sign()  # where a search ends that goes too far: most faces are points
    soft = soft_views([target()], shape(corners), FACES, EDGES, 1e-5, 1e6)
    hard = hard_views([target()], shape(corners), FACES)
    assert not torch.equal(hard, hard_views([target()], shape(torch.full((162, 3), 40.0)), FACES))
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-4)


def test_what_stands_on_the_roof_beforehand_is_taken_away():
    bare = target()
    load = torch.cat([bare.car[:2], torch.tensor([1.5, 1.0, 1.0, 0.4, 0.7])])[None]
    loaded = prepare(bare.scene._replace(loads=load), 0, SCANNER, GRID, 32)
    assert torch.equal(loaded.base, bare.base) and torch.equal(loaded.behind, bare.behind)


@pytest.mark.parametrize("extents", [EXTENTS, (1.2, 1.1, 0.9)])
def test_a_mesh_stays_within_the_box_whatever_the_offsets(extents):
    generator = torch.Generator().manual_seed(0)
    vertices = shape(5 * torch.randn(20, 162, 3, generator=generator), extents)
    sides = torch.tensor(extents)
    low = torch.stack([-sides[0] / 2, -sides[1] / 2, torch.tensor(0.0)])
    assert (vertices >= low - 1e-6).all() and (vertices <= low + sides + 1e-6).all()
    for filled in (random_mesh(4, extents=extents), ellipsoid(extents), roof_box(extents)):
        torch.testing.assert_close(filled.amax(0) - filled.amin(0), sides)


def test_a_larger_box_keeps_all_rays_that_meet_a_larger_mesh():
    large = (1.2, 1.2, 1.0)
    of = prepare(target().scene, 0, SCANNER, GRID, 32, large)
    vertices = roof_box(large)
    hits = cast(SCANNER.origin, ray_directions(SCANNER), of.scene.solids, SCANNER.reach)
    solid = from_roof(vertices, of.car)
    distances = intersect(solid, FACES, SCANNER.origin, ray_directions(SCANNER))[0]
    hits = hits._replace(distances=torch.minimum(hits.distances, distances))
    whole = measure(SCANNER, ray_directions(SCANNER), hits, make_key(of.scene.seed, 3)).points
    assert of.extents == large
    assert torch.equal(hard_occupancy(GRID, returned(of, vertices, FACES)), hard_occupancy(GRID, whole))


def test_the_loss_is_that_of_the_overlapping_proposals_by_hand():
    truth = torch.tensor([5.0, 0.0, 4.0, 2.0, 0.0])
    boxes = torch.stack(
        [truth, truth + torch.tensor([2.0, 0, 0, 0, 0]), truth + torch.tensor([9.0, 0, 0, 0, 0])]
    )
    logits = torch.tensor([0.0, 2.0, 7.0])
    expected = math.log(2) + (1 / 3) * -math.log(1 - torch.tensor(2.0).sigmoid().item())
    assert hiding_losses(logits[None], boxes[None], truth[None]).item() == pytest.approx(expected, rel=1e-5)


def sees_no_car_under_much_cargo(views):
    """Logits that fall with each cell that is occupied above the roof, and rectangles that say nothing."""
    above = views[:, 7:].sum(1, keepdim=True)
    logits = 4 - 40 * torch.nn.functional.avg_pool2d(above, 13, 2, 6)[:, 0, :16, :16]
    return logits, logits[:, None].expand(-1, 6, -1, -1) * 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        GradientAttack(steps=8, scenes=2, smoothness=0.0, lr=0.2),
        SearchAttack(generations=4, population=6, scenes=2),
    ],
    ids=["gradient", "search"],
)
def test_an_attack_lowers_the_loss_on_hard_views(attack):
    targets = [target(), target(7.0, math.pi / 2)]
    start = -0.6 * sphere_mesh()[0]  # a small ball

    def loss(offsets):
        views = hard_views(targets, shape(offsets), FACES)
        return view_losses(sees_no_car_under_much_cargo, targets, views).mean()

    before = loss(start)
    found = attack(sees_no_car_under_much_cargo, targets, start)
    assert loss(found) < 0.9 * before
    assert torch.equal(found, attack(sees_no_car_under_much_cargo, targets, start))
