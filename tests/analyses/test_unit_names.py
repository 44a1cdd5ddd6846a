"""Units are named by the masks that their highest places agree with, exactly as a brute force finds."""

import contextlib
import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.dissection import likeness, monosemanticity
from vitrine.analyses.unit_names import UnitNames
from vitrine.core.image_dataset import ImageDataset

CLASSES = ["cat", "dog", "cow"]
COUNT, SIDE = 60, 16


class Blobs(ImageDataset):
    """Images in noise: a bright square in the channel of its colour, and masks of its two halves."""

    labels = torch.arange(COUNT) % 3
    known = True

    def __init__(self):
        draw = torch.Generator().manual_seed(3)
        self.images = torch.rand(COUNT, 3, SIDE, SIDE, generator=draw) * 0.3
        self.left = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
        self.right = self.left.clone()
        for i, (y, x) in enumerate(torch.randint(0, SIDE - 8, (COUNT, 2), generator=draw).tolist()):
            self.left[i, y : y + 4, x : x + 2] = True
            self.right[i, y : y + 4, x + 2 : x + 4] = True
            self.images[i, int(self.labels[i])] += 0.6 * (self.left[i] + 0.5 * self.right[i])

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])

    def masks(self, indices):
        return {"left": self.left[indices], "right": self.right[indices]} if self.known else {}


def network():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1, bias=False)
    first.weight.data[:3] = torch.eye(3)[:, :, None, None]  # units 0 to 2 see the colours of the classes
    first.weight.data[4] = -1.0  # a dead unit, once rectified
    layers = [first, nn.ReLU(inplace=True), nn.AvgPool2d(4), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()]
    return (
        nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        .eval()
        .requires_grad_(False)
    )


def subject(dataset, **more):
    probes = Probes(dataset.images[:2], dataset.labels[:2], torch.arange(2))
    return Subject(network(), probes, dataset, CLASSES, {"1": [0, 4], "4": [2]}, **more)


@pytest.fixture(scope="module")
def found():
    return list(UnitNames(batch_size=7)(subject(Blobs())))


def brute_force(dataset, layer):
    """The IoU of every unit with every part, of all classes and of each, by the definition."""
    net = network()
    with torch.no_grad():
        maps = net[: layer + 1](dataset.images)
    masks = torch.stack([dataset.left, dataset.right])
    table = torch.zeros(maps.shape[1], 2, 4)
    for unit in range(maps.shape[1]):
        values = maps[:, unit].flatten().sort(descending=True).values
        on = (
            F.interpolate(maps[:, unit, None], (SIDE, SIDE), mode="bilinear")[:, 0]
            > values[int(0.005 * len(values))]
        )
        for part, kind in itertools.product(range(2), range(4)):
            shown = masks[part] & ((dataset.labels == kind - 1) | (kind == 0))[:, None, None]
            table[unit, part, kind] = (on & shown).sum() / (on | shown).sum()
    return table


@pytest.mark.parametrize("layer", [1, 4])
def test_names_and_ious_are_those_of_a_brute_force(found, layer):
    table = brute_force(Blobs(), layer)
    (figure,) = [f for f in found if isinstance(f, Figure) and f.key == str(layer)]
    columns = figure.table.columns
    concepts = [
        f"{part}{of}" for part in ("left", "right") for of in ("", *(f" of {name}" for name in CLASSES))
    ]
    assert columns["IoU"] == sorted(columns["IoU"], reverse=True)
    for unit, name, iou in zip(columns["unit"], columns["name"], columns["IoU"]):
        own = table[int(unit)].flatten()
        assert iou == pytest.approx(own.max().item(), abs=1e-6)
        assert name == (concepts[int(own.argmax())] if iou else "")
    detected = (table.flatten(1).amax(1) > 0.04).float().mean().item()
    (share,) = [o.value for o in found if isinstance(o, Scalar) and o.key == f"detectors_in/{layer}"]
    assert share == pytest.approx(detected)


def test_units_that_see_a_class_are_called_after_it(found):
    columns = next(f for f in found if isinstance(f, Figure) and f.key == "1").table.columns
    names = dict(zip(columns["unit"], columns["name"]))
    assert [names[str(unit)] for unit in range(3)] == ["left of cat", "left of dog", "left of cow"]
    assert names["4"] == "" and columns["IoU"][-1] == 0
    scalars = {o.key: o.value for o in found if isinstance(o, Scalar)}
    whole = next(f for f in found if isinstance(f, Figure) and f.key == "units/concepts")
    counted = dict(zip(whole.table.columns["concept"], whole.table.columns["units called so"]))
    assert scalars["detectors/left"] == sum(n for name, n in counted.items() if name.startswith("left")) >= 3


def test_a_units_own_page_says_its_name(found):
    figures = {f.key: f for f in found if isinstance(f, Figure) and f.unit is not None}
    assert list(figures) == ["1/unit-000", "1/unit-004", "4/unit-002"]
    shown = figures["1/unit-000"]
    assert "unit 0: left of cat, IoU" in shown.caption and shown.layer == "1" and len(shown.indices) == 4
    assert all(Blobs.labels[i] == 0 for i in shown.indices)
    assert shown.values["iou"] > 0.04 and -1 <= shown.values["monosemanticity"] <= 1
    assert "nowhere active" in figures["1/unit-004"].caption


class Waiting(Exception):
    """A rank asks for what the other has not given yet."""


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(found):
    given = [[], []]  # by each rank, at one collective after another

    def advance(rank):
        calls = itertools.count()

        def all_gather(value):
            call = next(calls)
            if call == len(given[rank]):
                given[rank].append(value)
            if call >= len(given[1 - rank]):
                raise Waiting
            return [given[0][call], given[1][call]]

        return list(UnitNames()(subject(Blobs(), rank=rank, world_size=2, all_gather=all_gather)))

    results = []
    while not results:
        for rank in (0, 1):
            with contextlib.suppress(Waiting):
                results.append(advance(rank))
    for mine, theirs in zip(found, results[0], strict=True):
        assert mine.key == theirs.key
        if isinstance(mine, Scalar):
            assert mine.value == pytest.approx(theirs.value, abs=1e-6)
        else:
            assert torch.equal(mine.image, theirs.image) and mine.caption == theirs.caption


def test_without_masks_units_are_measured_by_how_alike_their_images_are():
    dataset = Blobs()
    dataset.known = False
    found = list(UnitNames()(subject(dataset)))
    scalars = {o.key for o in found if isinstance(o, Scalar)}
    assert scalars == {"monosemanticity/1", "monosemanticity/4", "monosemanticity/any"}
    figures = [f for f in found if isinstance(f, Figure)]
    assert {f.key for f in figures} == {"1/unit-000", "1/unit-004", "4/unit-002"}
    assert "how alike the images are" in figures[0].caption and "iou" not in figures[0].values


def test_a_head_that_is_called_by_keyword_is_read_as_any_other():
    class ByKeyword(nn.Sequential):
        def forward(self, x):
            *layers, head = self
            return head(input=nn.Sequential(*layers)(x))

    dataset = Blobs()
    given = dataclasses.replace(subject(dataset), network=ByKeyword(*network()).eval())
    scalars = [[o.value for o in UnitNames()(s) if isinstance(o, Scalar)] for s in (given, subject(dataset))]
    assert scalars[0] == scalars[1]


def test_monosemanticity_is_the_weighted_mean_over_pairs():
    draw = torch.Generator().manual_seed(1)
    activations, embeddings = torch.rand(3, 9, generator=draw), torch.randn(9, 4, generator=draw)
    activations[1] = 0  # dead: of no pair
    unit = F.normalize(embeddings, dim=1)
    found = monosemanticity(activations, embeddings)
    for row in (0, 2):
        a = (activations[row] - activations[row].min()) / (activations[row].max() - activations[row].min())
        pairs = list(itertools.combinations(range(9), 2))
        weights = torch.stack([a[i] * a[j] for i, j in pairs])
        cosines = torch.stack([unit[i] @ unit[j] for i, j in pairs])
        assert found[row].item() == pytest.approx(
            ((weights * cosines).sum() / weights.sum()).item(), abs=1e-5
        )
    assert found[1].isnan()
    every = torch.stack([unit[i] @ unit[j] for i, j in pairs])
    assert likeness(embeddings) == pytest.approx(every.mean().item(), abs=1e-6)
