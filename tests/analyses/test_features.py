"""The analysis shows each unit's optimised picture beside what excites it in the data set."""

import dataclasses

import pytest
import torch
from torch import nn

from vitrine.analyses import ANALYSES, paint
from vitrine.analyses.activations import activations
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.analyses.features import Features, channel, colour_matrix, logit, visualize
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError


class Blobs(ImageDataset):
    """Grey images with a coloured square somewhere."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.full((3, 24, 24), 0.4) + 0.05 * torch.randn(3, 24, 24, generator=generator)
        row, column = torch.randint(0, 18, (2,), generator=generator).tolist()
        image[index % 3, row : row + 6, column : column + 6] = 0.9
        return image.clamp(0, 1), index % 3


@pytest.fixture
def subject():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, 2), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    data = Blobs()
    images, labels = zip(*(data[i] for i in range(4)))
    probes = Probes(torch.stack(images), torch.tensor(labels), torch.arange(4))
    units = {"0": [0, 2, 4], "1": [1, 3]}
    return Subject(
        network.eval().requires_grad_(False), probes, data, ["red", "green", "blue"], units, seed=5
    )


def fitted(subject):
    return colour_matrix(subject.images(range(len(subject.dataset)))[0])


def test_each_unit_and_class_gets_its_picture_with_what_it_reaches(subject):
    results = list(Features(steps=6, crops=2)(subject))
    figures = {f.key: f for f in results if hasattr(f, "image")}
    assert list(figures) == [f"0/unit-{u:03d}" for u in (0, 2, 4)] + ["1/unit-001", "1/unit-003"] + [
        f"logits/{name}" for name in ("red", "green", "blue")
    ]
    figure = figures["1/unit-003"]
    picture = visualize(subject.network, [channel("1", 3)], size=24, steps=6, seed=5, colours=fitted(subject))
    side = 96  # four times as large: whole pixels
    shown = paint.resize(paint.picture(picture[0]), side)
    assert figure.image.shape == (side, 3 * side + 2 * paint.GAP, 3)
    assert (figure.image[:, :side].int() - shown.int()).abs().max() <= 1
    peak = activations(subject.network, picture, ["1"])["1"][0, 3].max().item()
    top = dataset_examples(subject)["1"].values[3, 0].item()
    assert figure.values["activation"] == pytest.approx(peak, rel=1e-3)
    assert figure.values["dataset_maximum"] == pytest.approx(top)
    assert figure.values["multiple"] == pytest.approx(peak / top, rel=1e-3)
    assert (figure.layer, figure.unit) == ("1", 3) and "times the data set's maximum" in figure.caption
    red = figures["logits/red"]
    picture = visualize(subject.network, [logit(0)], size=24, steps=6, seed=5, colours=fitted(subject))
    assert red.values["logit"] == pytest.approx(subject.network(picture)[0, 0].item(), rel=1e-3)
    assert red.label == 0


def test_a_picture_does_not_depend_on_which_units_are_shown(subject):
    few = dataclasses.replace(subject, units={"1": [3]}, cache={})
    every = {f.key: f for f in Features(steps=6)(subject) if hasattr(f, "image")}
    (alone,) = [f for f in Features(steps=6, classes=0)(few) if hasattr(f, "image")]
    assert (alone.image.int() - every["1/unit-003"].image.int()).abs().max() <= 1


def test_negative_variants_and_course_are_shown_on_request(subject):
    settings = Features(steps=4, crops=1, classes=0, negative=True, variants=2, course=[0, 2])
    figures = {f.key: f for f in settings(subject) if hasattr(f, "image")}
    assert figures["0/unit-002"].image.shape[1] == 2 * 96 + paint.GAP  # the picture, and a crop
    least = figures["0/unit-002/negative"]
    assert least.image.shape[1] == 96 and (least.layer, least.unit) == ("0", 2)
    assert figures["0/unit-002/diverse"].image.shape[1] == 2 * 96 + paint.GAP
    strip = figures["0/unit-002/course"]
    assert strip.image.shape[1] == 3 * 96 + 2 * paint.GAP and "0, 2, 4" in strip.caption
    last, first = strip.image[:, -96:].int(), figures["0/unit-002"].image[:, :96].int()
    assert (last - first).abs().max() <= 1


def test_the_negative_excites_its_unit_least(subject):
    figures = {
        f.key: f
        for f in Features(steps=24, crops=0, classes=0, negative=True)(subject)
        if hasattr(f, "image")
    }
    units = [key for key in figures if f"{key}/negative" in figures]
    gaps = [figures[k].values["activation"] - figures[f"{k}/negative"].values["activation"] for k in units]
    assert len(units) == 5 and min(gaps) >= 0 and max(gaps) > 0  # none where a ReLU keeps both at 0


def test_a_warm_start_goes_on_from_the_checkpoint_before(subject):
    settings = Features(steps=1, lr=1e-6, crops=0, classes=1, warm_start=True)
    first = [f for f in Features(steps=24, crops=1, classes=1)(subject) if hasattr(f, "image")]
    later = dataclasses.replace(subject, previous={"features": first}, cache={})
    again = {f.key: f for f in settings(later) if hasattr(f, "image")}
    for figure in first:
        a, b = (f.image[:, :96].float().clamp(3, 252) for f in (figure, again[figure.key]))
        assert (a - b).abs().max() <= 3  # a step of nearly nothing


def test_a_warm_start_is_refused_of_images_whose_pictures_show_other_channels():
    for channels in (1, 2, 3, 4, 5):
        images, network = torch.zeros(1, channels, 8, 8), nn.Conv2d(channels, 2, 3)
        Features().check(network, images)
        if channels in (1, 3):
            Features(warm_start=True).check(network, images)
            continue
        with pytest.raises(SettingError, match=f"^warm_start: .*have {channels} channels"):
            Features(warm_start=True).check(network, images)


def test_it_leaves_alone_what_is_random(subject):
    rng = torch.get_rng_state()
    list(Features(steps=2)(subject))
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("name", ["features", "dream", "style"])
def test_the_registry_knows_it(name):
    assert dataclasses.is_dataclass(ANALYSES[name])


@pytest.mark.slow
def test_dead_units_and_classes_are_called_dead_and_shown_grey(subject):
    with torch.no_grad():
        subject.network[1][0].bias[1] = -100.0
        subject.network[4].weight[2] = 0.0
    settings = Features(steps=24, crops=0, negative=True, variants=2, course=[2])
    figures = {figure.key: figure for figure in settings(subject) if hasattr(figure, "image")}
    dead = {key for key, figure in figures.items() if figure.values.get("dead")}
    assert {"1/unit-001", "1/unit-001/negative", "logits/blue"} <= dead
    assert not {"1/unit-003", "0/unit-002", "logits/red"} & dead
    for key in (*dead, "1/unit-001/diverse", "1/unit-001/course"):
        tile = figures[key].image[:96, :96]
        assert (tile == tile[0, 0]).all() and tile[0, 0, 0] in (127, 128)
    for key in dead:
        assert "dead" in figures[key].caption
    assert figures["1/unit-001"].values["activation"] == 0


def test_pictures_have_the_shape_of_images_that_are_not_square(subject):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 5 * 9, 3)
    )  # takes images of 12 x 20 only
    images = torch.rand(4, 3, 12, 20)
    probes = dataclasses.replace(subject.probes, images=images)
    data = dataclasses.replace(
        subject, network=network.eval(), probes=probes, units={"1": [0]}, dataset=Oblong()
    )
    figures = {f.key: f for f in Features(steps=3, crops=1)(data) if hasattr(f, "image")}
    options = {"size": (12, 20), "steps": 3, "seed": 5, "colours": fitted(data)}
    (picture,) = visualize(network, [channel("1", 0)], **options)
    assert picture.shape == (3, 12, 20)
    shown = figures["1/unit-000"].image
    assert shown.shape == (100, 2 * 100 + paint.GAP, 3)  # in squares of five times its longer side
    assert torch.equal(shown[20:80:5, 0:100:5], paint.picture(picture))
    assert set(figures) > {"logits/red"}
    again = dataclasses.replace(data, previous={"features": list(figures.values())})
    first = next(iter(Features(steps=1, crops=1, warm_start=True, lr=1e-9)(again)))
    near = shown[20:80:5, 0:100:5].int() - first.image[20:80:5, 0:100:5].int()
    assert near.abs().max() <= 6  # inversion keeps away from black and white


class Oblong(ImageDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(index)), index % 3
