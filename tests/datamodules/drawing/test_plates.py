import pytest
import torch

from vitrine.datamodules.drawing.atlas import LAYERS, atlas
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawing.plates import Plates, paint, place, random_plates
from vitrine.datamodules.drawing.random_stream import RandomStream


def upright(face: int, half_width: float) -> Plates:
    reach = torch.full((1, 2), half_width)
    return Plates(
        torch.tensor([face]),
        torch.zeros(1, 2),
        (torch.eye(2) * half_width)[None],
        torch.zeros(1, 2),
        torch.ones(1, LAYERS, 3),
        -reach,
        reach,
    )


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_disc_covers_its_area_whatever_the_number_of_pixels(size):
    disc = int(atlas().variants[CLASSES.index("no entry")])
    canvas = torch.zeros(1, 4, size, size)
    paint(canvas, upright(disc, 0.6), torch.tensor([0]), torch.tensor([2 / size]), cover=3)
    covered = canvas[0, 3].mean() * 4
    assert float(covered) == pytest.approx(torch.pi * 0.36, rel=0.01)
    assert torch.allclose(canvas[0, 0], canvas[0, 3], atol=1e-6)  # white on black: the cover is the colour


def test_only_the_images_named_are_painted():
    canvas = torch.zeros(3, 4, 32, 32)
    paint(canvas, upright(0, 0.5), torch.tensor([1]), torch.tensor([0.06]))
    assert canvas[1, :3].any() and not canvas[[0, 2]].any() and not canvas[:, 3].any()


def test_every_plate_is_as_wide_as_asked_for_and_stays_inside():
    faces = torch.arange(len(atlas().paints)).repeat(20)
    random = RandomStream(7, torch.arange(len(faces)))
    width = random.uniform(0.25, 0.7)
    plates = random_plates(random, faces, width, torch.ones(len(faces), LAYERS, 3))
    plates = place(plates, random.uniform(0, 1, 2), margin=0.0)
    canvas, rows = torch.zeros(len(faces), 4, 128, 128), torch.arange(len(faces))
    paint(canvas, plates, rows, torch.full((len(faces),), 2 / 128), cover=3)
    measured = canvas[:, 3].amax(1).sum(1) / 128  # how far each column is covered, summed over columns
    assert (measured - width).abs().max() < 2 / 128
    columns = (canvas[:, 3] > 0.5).any(1).sum(1)
    assert columns.min() > 0.2 * 128
