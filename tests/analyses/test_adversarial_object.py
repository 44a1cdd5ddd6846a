import io
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from vitrine.analyses import paint
from vitrine.analyses.adversarial_object import AdversarialObject, pattern_texture
from vitrine.analyses.base import Figure, File, Probes, Scalar, Subject
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.core.registry import UnknownName
from vitrine.objects import shapes
from vitrine.objects.render import render
from vitrine.objects.textures import CLASSES
from vitrine.objects.views import turntable

FEW = {"enabled": True, "mesh": "cube", "steps": 14, "draws": 3, "views": 8, "shown": 3, "eps": 0.2}


class Red(nn.Module):
    """Rings where the middle of the image is rather red than green, dots where it is the other way."""

    def forward(self, images):
        red, green, _ = images[:, :, 4:-4, 4:-4].mean((2, 3)).unbind(1)
        signs = torch.tensor([{"rings": 1.0, "dots": -1.0}.get(name, 0.0) for name in CLASSES])
        return 40 * (red - green - 0.15)[:, None] * signs


def subject(classes=CLASSES) -> Subject:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Subject(Red().eval(), Probes(images, torch.tensor([0, 1]), torch.arange(2)), [], classes, {})


def test_its_turntable_has_a_row_a_texture_and_its_scalars_are_the_shares_that_the_caption_tells():
    results = list(AdversarialObject(**FEW, target="rings")(subject()))
    figures = [r for r in results if isinstance(r, Figure)]
    scalars = {r.key: r.value for r in results if isinstance(r, Scalar)}
    (figure,) = figures
    assert figure.key == "cube/dots as rings" and figure.label == CLASSES.index("rings")
    side = 128
    assert figure.image.shape == (LINE + 3 * (side + LINE + GAP) - GAP, LINE + 3 * (side + GAP) - GAP, 3)
    turned = figure.turntable
    assert list(turned.views) == ["0°", "120°", "240°"]
    (left, top), (across, down) = turned.first, turned.pitch
    cube, texture = shapes.make("cube"), pattern_texture("dots", 0)
    for view, picture in enumerate(render(cube, texture[None], turntable(3), 16)):
        tile = figure.image[top : top + side, left + view * across :][:, :side]
        assert torch.equal(tile, paint.resize(paint.picture(picture), side))
    assert down == side + LINE + GAP and list(turned.rows) == ["clean", "one view", "all views"]
    for row, verdicts in turned.rows.items():
        assert [verdict.startswith("rings") for verdict in verdicts] == list(turned.highlighted[row])
    assert list(scalars) == ["hit/clean", "hit/one view", "hit/all views"]
    assert scalars["hit/all views"] > max(scalars["hit/one view"], scalars["hit/clean"])
    assert f"all views {scalars['hit/all views']:.1%}" in figure.caption
    assert figure.values == {key.removeprefix("hit/"): value for key, value in scalars.items()}
    files = {r.name: r.text for r in results if isinstance(r, File)}
    assert list(files) == ["object.obj", "object.mtl", "object.png"]
    assert "mtllib object.mtl" in files["object.obj"] and "map_Kd object.png" in files["object.mtl"]
    assert Image.open(io.BytesIO(files["object.png"])).size == tuple(texture.shape[1:])


def test_of_a_network_that_knows_no_patterns_the_target_is_the_class_after_what_it_sees():
    figure, *_ = AdversarialObject(**FEW)(subject([f"class {i}" for i in range(8)]))
    assert figure.key == "cube/dots as the next class"
    assert figure.caption.startswith("cube: class 4, to be taken for class 5 (red) from any side")


def test_a_network_of_grey_images_is_refused():
    grey = replace(subject(), probes=Probes(torch.rand(1, 1, 16, 16), torch.zeros(1).long(), torch.zeros(1)))
    with pytest.raises(ValueError, match="images: have 1 channels, expected 3"):
        list(AdversarialObject(**FEW)(grey))


def test_an_unknown_pattern_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean dots"):
        pattern_texture("dotz", 0)
    assert pattern_texture("dots", 0).shape == (3, 128, 128)
