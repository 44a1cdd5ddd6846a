import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from vitrine.analyses import example_search
from vitrine.analyses.base import Figure, Histogram, Probes, Scalar, Subject
from vitrine.analyses.examples import (
    BINS,
    Examples,
    TopExamples,
    dataset_examples,
    histogram,
    merge,
    top_examples,
)
from vitrine.analyses.receptive_field import receptive_field
from vitrine.analyses.top_k import RunningTop
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.registry import UnknownName


def integer_network(inplace=False):
    """Small whole numbers everywhere: sums are exact in any order, and ties are frequent."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 2),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape))
    return network.eval()


def integer_images(n=41):
    images = torch.randint(0, 2, (n, 3, 8, 12), generator=torch.Generator().manual_seed(1)).float()
    return images, torch.arange(n) % 4


def batches(images, labels, size, indices=None):
    order = torch.arange(len(images)) if indices is None else indices
    for start in range(0, len(order), size):
        at = order[start : start + size]
        yield (images[at], labels[at]) if indices is None else (images[at], labels[at], at)


def brute_force(network, images, labels, layer, k):
    """Every activation kept and sorted in Python: by value, then by index; then the first place of the
    maximum."""
    maps = network[: int(layer) + 1](images)
    maps = maps if maps.ndim == 4 else maps[:, :, None, None]
    rows = []
    for unit in range(maps.shape[1]):
        scored = sorted((-maps[n, unit].max().item(), n) for n in range(len(images)))[:k]
        places = [(maps[n, unit] == maps[n, unit].max()).nonzero()[0].tolist() for _, n in scored]
        rows.append(([-v for v, _ in scored], [n for _, n in scored], places))
    values, indices, positions = (torch.tensor(x) for x in zip(*rows))
    return TopExamples(values, indices, positions, labels[indices])


def assert_same(a, b):
    for name in ("values", "indices", "positions", "labels"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


@pytest.mark.parametrize("inplace", [False, True])  # an in-place ReLU overwrites what the layer gave
def test_one_pass_finds_what_sorting_every_activation_finds(inplace):
    network, (images, labels) = integer_network(), integer_images()
    layers = ["0", "1", "2", "3", "4", "7"]
    found = top_examples(integer_network(inplace), batches(images, labels, 8), layers, k=9)
    with torch.no_grad():
        for layer in layers:
            assert_same(found[layer], brute_force(network, images, labels, layer, 9))
    assert (found["0"].values[:, :-1] >= found["0"].values[:, 1:]).all()
    assert found["3"].values.min() < 0 or found["7"].values.min() < 0  # negative activations are activations


@pytest.mark.parametrize("size", [1, 7, 41])
def test_the_answer_depends_neither_on_batch_size_nor_on_order_and_padding(size):
    network, (images, labels) = integer_network(), integer_images()
    expected = top_examples(network, batches(images, labels, 8), ["1", "3"])
    found = top_examples(network, batches(images, labels, size), ["1", "3"])
    shuffled = torch.randperm(41, generator=torch.Generator().manual_seed(size))
    padded = torch.cat([shuffled, shuffled[:10]])  # a sampler that repeats images
    disordered = top_examples(network, batches(images, labels, size, padded), ["1", "3"])
    for layer in ("1", "3"):
        assert_same(found[layer], expected[layer])
        assert_same(disordered[layer], expected[layer])


@pytest.mark.parametrize(("pixels", "most"), [(96 * 10, 10), (1, 8), (96 * 99, 41)])
def test_few_images_at_once_find_the_same(monkeypatch, pixels, most):
    network, (images, labels) = integer_network(), integer_images()
    order = torch.cat([torch.arange(40, -1, -1), torch.arange(3)])
    expected = [top_examples(network, batches(images, labels, 5, *o), ["1", "3"]) for o in ((), (order,))]
    monkeypatch.setattr(example_search, "PIXELS_AT_ONCE", pixels)
    passes = []  # after those that found out about the layers' layout
    network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    found = [top_examples(network, batches(images, labels, 41, *o), ["1", "3"]) for o in ((), (order,))]
    for ours, theirs in zip(found, expected):
        for layer in ("1", "3"):
            assert_same(ours[layer], theirs[layer])
    assert max(passes) == most and sum(passes) == 41 + 44


def test_the_shares_of_ranks_merge_into_the_whole_and_their_padding_is_dropped():
    network, (images, labels) = integer_network(), integer_images()
    whole = top_examples(network, batches(images, labels, 8), ["3"])["3"]
    shares = [torch.cat([torch.arange(rank, 41, 4), torch.tensor([0, 1])]) for rank in range(4)]
    parts = [top_examples(network, batches(images, labels, 8, share), ["3"])["3"] for share in shares]
    assert_same(merge(parts), whole)


@pytest.mark.parametrize("size", [8, 41])
def test_the_largest_activation_on_every_image_is_kept_of_the_units_asked_for(size):
    network, (images, labels) = integer_network(), integer_images()
    found = top_examples(network, batches(images, labels, size), ["1", "3"], peaks_of={"3": [6, 0]})
    with torch.no_grad():
        expected = network[:4](images).amax((2, 3)).T[[6, 0]]
    assert torch.equal(found["3"].peaks, expected) and found["1"].peaks is None
    again = torch.cat([torch.arange(41), torch.arange(5)])  # a sampler's padding counts once
    padded = top_examples(network, batches(images, labels, size, again), ["3"], peaks_of={"3": [6, 0]})
    assert torch.equal(padded["3"].peaks, expected)
    first, rest = (
        top_examples(network, batches(images, labels, size, part), ["3"], peaks_of={"3": [6, 0]})["3"]
        for part in (torch.arange(20), torch.arange(20, 41))
    )
    assert torch.equal(merge([first, rest]).peaks, expected)


def test_a_figure_tells_how_activations_are_spread_and_of_which_classes_the_images_are():
    network = integer_network()
    given = subject(network)
    figure = next(f for f in Examples()(given) if isinstance(f, Figure) and f.key == "3/unit-006")
    with torch.no_grad():
        peaks = network[:4](given.images(range(41))[0]).amax((2, 3))[:, 6]
    low, high = peaks.min().item(), peaks.max().item()
    assert (figure.histogram.low, figure.histogram.high) == (low, high)
    assert figure.scores[0] == figure.values["activation"] == high
    counts, _ = np.histogram(peaks.double().numpy(), bins=BINS, range=(low, high))
    shares = figure.histogram.shares
    assert shares == pytest.approx((counts / 41).tolist(), abs=2e-6) and sum(shares) == pytest.approx(
        1, abs=1e-4
    )
    classes = {name: figure.class_shares.get(name, 0) for name in "abcd"}
    labels = dataset_examples(given)["3"].labels[6]
    assert classes == pytest.approx(
        {name: (labels == i).float().mean().item() for i, name in enumerate("abcd")}
    )


def test_a_histogram_of_one_value_or_of_none():
    assert histogram(torch.tensor([2.0, 2.0])) == Histogram(2.0, 2.0, [1.0] + [0.0] * (BINS - 1))
    assert histogram(torch.tensor([torch.nan])) is None


def test_the_way_that_asks_a_gpu_nothing_finds_the_same():
    network, (images, labels) = integer_network(), integer_images()
    expected = brute_force(network, images, labels, "3", 9)
    dense = RunningTop(9, dense=True)
    with torch.no_grad():
        for start in range(0, 41, 8):
            at = torch.arange(start, min(start + 8, 41))
            dense.update(network[:4](images[at]), at)
    found = dense.result()
    for name in ("values", "indices", "positions"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_images_of_another_size_than_the_first_are_refused():
    network, (images, labels) = integer_network(), integer_images()
    for size, found in (((8, 16), "2 x 6"), ((12, 12), "4 x 4")):
        other = torch.zeros(3, 3, *size), labels[:3]
        with pytest.raises(ValueError, match=f"maps of {found} after maps of 2 x 4.* images of one size"):
            top_examples(network, [(images, labels), other], ["3"])


def test_fewer_images_than_k_are_all_there():
    network, (images, labels) = integer_network(), integer_images(5)
    found = top_examples(network, batches(images, labels, 2), ["3"], k=9)["3"]
    assert found.values.shape == (7, 5)
    assert found.indices.sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 7
    pairs = [
        top_examples(network, batches(images, labels, 2, torch.arange(r, 5, 2)), ["3"])["3"] for r in (0, 1)
    ]
    assert_same(merge(pairs), found)


def test_nan_comes_last_and_minus_zero_equals_zero():
    network = nn.Sequential(nn.Identity())
    images = torch.tensor([-0.0, float("nan"), 0.0, -3.0, float("inf"), 2.0]).reshape(6, 1, 1, 1)
    found = top_examples(network, [(images, torch.zeros(6, dtype=torch.int64))], ["0"], k=6)["0"]
    assert found.indices.tolist() == [[4, 5, 0, 2, 3, 1]]
    assert found.values.tolist() == [[float("inf"), 2, 0, 0, -3, float("-inf")]]


def test_dead_units_are_never_above_zero():
    network, (images, labels) = integer_network(), integer_images()
    with torch.no_grad():
        network[0].weight[2], network[0].bias[2] = 0, 0
    assert top_examples(network, batches(images, labels, 8), ["1"])[
        "1"
    ].dead.nonzero().flatten().tolist() == [2]


def test_entropy_of_classes_is_in_bits():
    labels = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])
    top = TopExamples(torch.zeros(3, 4), labels, torch.zeros(3, 4, 2), labels)
    assert top.class_entropy.tolist() == [0, 1, 2]


def test_nothing_deeper_than_the_deepest_layer_is_computed_and_the_network_is_left_alone():
    class Forbidden(nn.Module):
        def forward(self, x):
            raise AssertionError("deeper than asked for")

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), Forbidden()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = integer_images()
    twice = [top_examples(network, batches(images, labels, 8), ["2"])["2"] for _ in range(2)]
    assert_same(*twice)
    assert network[1].training and not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_wrong_arguments_are_named():
    network, (images, labels) = integer_network(), integer_images()
    with pytest.raises(UnknownName, match="layer"):
        top_examples(network, batches(images, labels, 8), ["9"])
    with pytest.raises(ValueError, match="k is 0"):
        top_examples(network, batches(images, labels, 8), ["1"], k=0)
    with pytest.raises(ValueError, match="no images"):
        top_examples(network, [], ["1"])
    with pytest.raises(ValueError, match=r"'aux1' takes no part|'aux1.fc1' takes no part"):
        googlenet = torchvision.models.googlenet(init_weights=False, num_classes=2)
        top_examples(googlenet, [(torch.rand(2, 3, 64, 64), torch.zeros(2))], ["aux1.fc1"])


class Pictures(ImageDataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return (self.images[index] * 255).to(torch.uint8), int(self.labels[index])


def subject(network, previous=None):
    images, labels = integer_images()
    probes = Probes(images[:4], labels[:4], torch.arange(4))
    units = {"1": (0, 3), "3": (6,), "7": (1,)}
    return Subject(
        network, probes, Pictures(images, labels), list("abcd"), units, batch_size=16, previous=previous or {}
    )


def test_each_unit_gets_a_sheet_and_each_layer_its_curves():
    network = integer_network()
    given = subject(network)
    results = list(Examples()(given))
    figures = [r for r in results if isinstance(r, Figure)]
    scalars = {r.key: r.value for r in results if isinstance(r, Scalar)}
    assert [f.key for f in figures] == ["1/unit-000", "1/unit-003", "3/unit-006", "7/unit-001"]
    top = dataset_examples(given)
    assert dataset_examples(given) is top
    for figure in figures:
        best = top[figure.layer]
        assert figure.image.dtype == torch.uint8 and figure.image.shape[2] == 3
        assert figure.values["activation"] == best.values[figure.unit, 0].item()
        assert figure.indices == best.indices[figure.unit].tolist()
        assert figure.scores == best.values[figure.unit].tolist()
    assert set(scalars) == {f"{kind}/{layer}" for kind in ("dead_units", "class_entropy") for layer in "137"}


def test_the_crop_is_the_receptive_field_of_the_maximum():
    network = integer_network()
    given = subject(network)
    figure = next(f for f in Examples(k=1, tile=12)(given) if isinstance(f, Figure) and f.layer == "3")
    best = dataset_examples(given, 1)["3"]
    top, left, bottom, right = receptive_field(network, "3", best.positions[6, 0], (8, 12)).tolist()
    assert 0 < bottom - top <= 8 and 0 < right - left <= 8
    crop = given.dataset[best.indices[6, 0].item()][0][:, top:bottom, left:right].float()
    shown = figure.image[:12, :12].permute(2, 0, 1).float()
    size = [round(side * 12 / max(crop.shape[1:])) for side in crop.shape[1:]]
    expected = nn.functional.interpolate(crop[None], size, mode="bilinear", antialias=True)[0]
    top, left = (12 - size[0]) // 2, (12 - size[1]) // 2  # centred on paper
    torch.testing.assert_close(shown[:, top : top + size[0], left : left + size[1]], expected, atol=1, rtol=0)


def test_the_overlap_with_the_checkpoint_before_is_a_curve():
    network = integer_network()
    first = [r for r in Examples()(subject(network)) if isinstance(r, Figure)]
    again = list(Examples()(subject(network, {"examples": first})))
    assert {r.key: r.value for r in again if isinstance(r, Scalar) and r.key.startswith("overlap")} == {
        "overlap/1": 1.0,
        "overlap/3": 1.0,
        "overlap/7": 1.0,
    }
