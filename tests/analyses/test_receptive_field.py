import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from vitrine.analyses.activations import activations
from vitrine.analyses.receptive_field import (
    effective_field,
    equal_windows,
    hull,
    receptive_field,
    receptive_fields,
)
from vitrine.core.registry import UnknownName

NAN = float("nan")


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "vit":
        return torchvision.models.VisionTransformer(96, 16, 2, 2, 32, 64, num_classes=5).double().eval()
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # A float64 convolution is a matrix product: Winograd's tiles would carry a NaN further than it reaches.
    return torchvision.models.get_model(name, weights=None, **options).double().eval()


def activation_is_nan(network, layer, position, images, unit=None):
    """Whether the layer (or its unit) is touched at the position by the NaNs in each image."""
    with torch.no_grad():
        maps = activations(network, images, [layer])[layer][:, :, position[0], position[1]]
    return maps.isnan().any(1) if unit is None else maps[:, unit].isnan()


def assert_exact(network, layer, position, size, unit=None):
    """NaNs spread to all that depends on them: none outside the box does harm, each of its edges does."""
    top, left, bottom, right = receptive_field(network, layer, position, size, unit=unit).tolist()
    images = torch.rand(5, 3, size, size, dtype=torch.float64)
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    images[0, :, outside] = NAN
    images[1, :, top, left:right] = NAN
    images[2, :, bottom - 1, left:right] = NAN
    images[3, :, top:bottom, left] = NAN
    images[4, :, top:bottom, right - 1] = NAN
    touched = activation_is_nan(network, layer, position, images, unit)
    assert touched.tolist() == [False, True, True, True, True], (layer, position, (top, left, bottom, right))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "places"),
    [
        ("resnet18", 96, {"layer1": [(0, 0), (12, 7)], "layer2.1.conv1": [(5, 11)], "layer2": [(6, 6)]}),
        ("squeezenet1_0", 97, {"features.4": [(10, 0)], "features.6": [(4, 4)]}),  # pools that round up
        ("densenet121", 96, {"features.denseblock1": [(12, 12)], "features.transition1": [(3, 9)]}),
        ("googlenet", 96, {"conv3": [(10, 10)], "inception3a": [(5, 6)]}),
        ("inception_v3", 111, {"Mixed_5b": [(5, 4)]}),
        ("mobilenet_v2", 96, {"features.3": [(12, 20)], "features.6": [(5, 5)]}),
        ("shufflenet_v2_x0_5", 96, {"stage2.0": [(6, 6)], "stage2": [(6, 6)]}),
        ("mnasnet0_5", 96, {"layers.8": [(12, 3)]}),
        ("regnet_x_400mf", 96, {"trunk_output.block2": [(6, 6)]}),
        ("convnext_tiny", 96, {"features.1.0": [(12, 12)], "features.2": [(5, 5)]}),
        (
            "swin_t",
            112,
            {"features.1.0": [(8, 13)], "features.1": [(8, 13)]},
        ),  # windows, then shifted windows
        ("vit", 96, {"conv_proj": [(2, 3)]}),
    ],
)
def test_no_pixel_outside_the_box_matters_and_each_edge_does(name, size, places):
    network = build(name)
    for layer, positions in places.items():
        for position in positions:
            assert_exact(network, layer, position, size)


@pytest.mark.slow
def test_a_channel_of_a_concatenation_sees_what_its_own_branch_sees():
    network = build("googlenet")
    boxes = receptive_fields(network, ["inception3a"], 96)["inception3a"]
    sizes = {(b - t).item() for t, _, b, _ in boxes[:, 6, 6]}
    assert len(sizes) > 1  # the 1 x 1 branch sees less than the 3 x 3 one
    for unit in (0, 100, 255):
        assert_exact(network, "inception3a", (6, 6), 96, unit)
    assert receptive_field(network, "inception3a", (6, 6), 96).tolist() == hull(boxes[:, 6, 6]).tolist()


class Oddities(nn.Module):
    """Groups, dilation, ceil mode, adaptive pools, in-place sums: what torchvision's networks leave out."""

    def __init__(self):
        super().__init__()
        self.dilated = nn.Conv2d(3, 4, 3, dilation=3, padding=2)
        self.strip = nn.Conv2d(3, 4, (1, 5), stride=(2, 3), padding=(0, 1))
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.average = nn.AvgPool2d((2, 3), ceil_mode=True)
        self.grouped = nn.Conv2d(8, 4, 3, groups=2)
        self.adaptive = nn.AdaptiveAvgPool2d(5)
        self.up = nn.Upsample(scale_factor=2)
        self.last = nn.Identity()

    def forward(self, x):
        a = self.adaptive(self.pool(self.dilated(x)))
        b = self.adaptive(self.average(self.strip(x)))
        x = self.up(self.grouped(torch.cat([a, b], 1)))
        y = x[:, 2:] * 1
        y += x[:, :2].flip(-1)
        return self.last(y)


def test_dilation_groups_ceil_mode_adaptive_pools_and_in_place_sums_are_exact():
    torch.manual_seed(0)
    network = Oddities().double()
    for layer in ("dilated", "strip", "pool", "average", "grouped", "last"):
        height, width = receptive_fields(network, [layer], 32)[layer].shape[1:3]
        for position in {(0, 0), (height // 2, width // 2), (height - 1, width - 1)}:
            assert_exact(network, layer, position, 32)


class Rewriting(nn.Module):
    """A strip of the image, by masks, indices, and constants that the image is written into."""

    def __init__(self, operation: str):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.operation = operation
        self.last = nn.Identity()

    def forward(self, x):
        x = self.first(x)
        y = x.roll(1, 2)
        if self.operation == "where":
            x = torch.where(y > 0, x, 0.1 * x)
        elif self.operation == "mask":
            x = x * (y > 0)
        elif self.operation == "in place":
            mask = x > 0
            mask &= y > 0
            x = x.masked_fill(mask, 0.0)
        elif self.operation == "constant":
            canvas = torch.ones(x.shape, dtype=x.dtype)
            canvas[:, 1:3] = y[:, 1:3]
            x = x + canvas
        elif self.operation == "like":
            canvas = torch.ones_like(x)
            canvas[:, 1:3] = y[:, 1:3]
            x = x + canvas
        elif self.operation == "assignment":
            x[y < 0] = 0.0
        elif self.operation == "index":
            x = x.gather(2, y.argmax(2, keepdim=True))
        elif self.operation == "number":
            x = x * y.max().item()
        elif self.operation == "deformable":
            x = torchvision.ops.deform_conv2d(
                x, y[:, :2].repeat(1, 9, 1, 1), torch.ones(4, 4, 3, 3), padding=1
            )
        return self.last(x)


@pytest.mark.parametrize("operation", ["where", "mask", "in place", "like", "constant"])
def test_masks_and_writing_into_constants_are_exact(operation):
    network = Rewriting(operation)
    expected = [3, 4, 7, 7]  # 3 x 3 pixels around row 5, column 5, and those around the row above
    assert receptive_field(network, "last", (5, 5), 12, unit=1).tolist() == expected
    if operation != "constant":  # what was in a constant before may count as the first row
        own = expected if operation in ("where", "mask", "in place") else [4, 4, 7, 7]
        assert receptive_field(network, "last", (5, 5), 12, unit=3).tolist() == own


class IntoGiven(nn.Module):
    """Writes results into tensors that it has made: `torch.add(..., out=...)`."""

    def __init__(self, out):
        super().__init__()
        self.convolution, self.last, self.out = nn.Conv2d(1, 2, 1), nn.Identity(), out

    def forward(self, x):
        x = self.convolution(x)
        moved = x.roll(3, 2)
        if not self.out:
            return self.last(torch.cat([x + moved, x.amax(3, keepdim=True).expand_as(x)], 1))
        total, largest = torch.empty_like(x), torch.empty_like(x[..., :1])
        both = torch.empty_like(torch.cat([x, x], 1))
        torch.add(x, moved, out=total)
        torch.amax(x, 3, keepdim=True, out=largest)
        torch.cat([total, largest.expand_as(x)], 1, out=both)
        return self.last(both)


def test_results_that_are_written_into_given_tensors_are_never_too_small():
    exact, found = (receptive_fields(IntoGiven(out), ["last"], 12)["last"] for out in (False, True))
    assert (found[..., :2] <= exact[..., :2]).all() and (found[..., 2:] >= exact[..., 2:]).all()


@pytest.mark.parametrize("operation", ["assignment", "index", "number", "deformable"])
def test_what_depends_on_indices_numbers_and_foreign_kernels_may_depend_on_all(operation):
    boxes = receptive_fields(Rewriting(operation), ["first", "last"], 12)
    assert boxes["first"][0, 5, 5].tolist() == [4, 4, 7, 7]
    assert (boxes["last"] == torch.tensor([0, 0, 12, 12])).all()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.PReLU(), [4, 5, 7, 8]),
        (nn.Hardswish(), [4, 5, 7, 8]),
        (nn.InstanceNorm2d(4), [0, 0, 12, 10]),
        (nn.GroupNorm(2, 4), [0, 0, 12, 10]),
        (nn.Dropout(), [4, 5, 7, 8]),
    ],
)
def test_activations_stay_where_they_are_and_norms_over_space_see_all(module, expected):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), module)
    assert receptive_field(network, "1", (5, 6), (12, 10)).tolist() == expected


def test_half_precision_and_diverged_weights_change_nothing():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    expected = receptive_fields(network, ["3"], (70, 700))["3"]
    with torch.no_grad():
        network[0].weight.fill_(NAN)
        network[1].running_var.fill_(NAN)
    assert torch.equal(receptive_fields(network, ["3"], (70, 700))["3"], expected)
    assert torch.equal(receptive_fields(network.bfloat16(), ["3"], (70, 700))["3"], expected)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer1"), ("googlenet", "inception3a"), ("mobilenet_v3_small", "features.3")],
)
def test_changing_pixels_outside_the_box_changes_nothing_and_each_edge_something(name, layer):
    network, size, (row, column) = build(name), (64, 96), (2, 7)
    top, left, bottom, right = receptive_field(network, layer, (row, column), size).tolist()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, *size, generator=generator, dtype=torch.float64)
    images[:] = images[0]
    noise = 100 * torch.randn(3, *size, generator=generator, dtype=torch.float64)
    inside = torch.zeros(size, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    images[1] += noise * ~inside
    edges = [(top, slice(left, right)), (bottom - 1, slice(left, right))]
    edges += [(slice(top, bottom), left), (slice(top, bottom), right - 1)]
    for image, edge in zip(images[2:], edges):
        image[:, *edge] += noise[:, *edge]
    with torch.no_grad():
        maps = activations(network, images, [layer])[layer][:, :, row, column]
    changes = (maps - maps[0]).abs().amax(1)
    assert changes[1] < 1e-9 and (changes[2:] > 1e-6).all()


@pytest.mark.slow
def test_vgg_has_the_closed_form():
    network = make_layers(cfgs["D"], batch_norm=False)  # VGG-16 without its 120 million dense weights
    reach, jump, start = 1, 1, 0.5  # pixels a unit sees, pixels between units, centre of the first
    for i, module in enumerate(network):
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride, padding = (3, 1, 1) if isinstance(module, nn.Conv2d) else (2, 2, 0)
            reach, start = reach + (kernel - 1) * jump, start + ((kernel - 1) / 2 - padding) * jump
            jump *= stride
        if i in (4, 9, 16):
            row, column = 3, 1
            low = [start + at * jump - reach / 2 for at in (row, column)]
            box = [max(0, v) for v in low] + [min(64, v + reach) for v in low]
            assert receptive_field(network, str(i), (row, column), 64).tolist() == box
    assert receptive_field(network, "30", (3, 3), 224).tolist() == [
        6,
        6,
        218,
        218,
    ]  # 212, as is known


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "avgpool"),
        ("resnet18", "fc"),
        ("efficientnet_b0", "features.1"),
        ("vit", "encoder.ln"),
    ],
)
def test_global_pooling_dense_layers_attention_and_squeeze_excitation_see_the_whole_image(name, layer):
    assert receptive_field(build(name), layer, (0, 0), 96).tolist() == [0, 0, 96, 96]


def test_positions_may_have_any_shape_and_images_any_aspect():
    network = torchvision.models.resnet18(weights=None)
    positions = torch.tensor([[[0, 0], [1, 2]], [[11, 15], [5, 8]]])
    boxes = receptive_field(network, "maxpool", positions, (48, 64))
    assert boxes.shape == (2, 2, 4)
    assert boxes[1, 0].tolist() == [39, 55, 48, 64]
    for i, j in ((0, 1), (1, 1)):
        assert boxes[i, j].tolist() == receptive_field(network, "maxpool", positions[i, j], (48, 64)).tolist()


def test_a_unit_that_sees_only_padding_sees_nothing():
    network = nn.Sequential(nn.Conv2d(3, 1, 1, padding=2))
    assert receptive_field(network, "0", (0, 0), 8).tolist() == [0, 0, 0, 0]
    assert receptive_field(network, "0", (2, 3), 8).tolist() == [0, 1, 1, 2]


def test_the_network_is_left_as_it_was_and_inference_mode_is_no_obstacle():
    network = torchvision.models.resnet18(weights=None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.layer1.eval()
    modes = [module.training for module in network.modules()]
    with torch.inference_mode():
        receptive_field(network, "layer2", (0, 0), 64)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_effective_field_lies_inside_the_theoretical_one():
    network = build("resnet18")
    image = torch.rand(3, 96, 96, dtype=torch.float64)
    top, left, bottom, right = receptive_field(network, "layer1", (12, 7), 96).tolist()
    field = effective_field(network, "layer1", 3, image, (12, 7))
    assert field.shape == (96, 96) and field.any()
    field[top:bottom, left:right] = False
    assert not field.any()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_wrong_layers_positions_and_units_are_named():
    network = torchvision.models.resnet18(weights=None)
    with pytest.raises(UnknownName, match="layer4"):
        receptive_field(network, "layer5", (0, 0), 64)
    with pytest.raises(ValueError, match="16 x 16 map of layer 'layer1'"):
        receptive_field(network, "layer1", (16, 0), 64)
    with pytest.raises(ValueError, match="unit 64 is not among the 64 channels"):
        receptive_field(network, "layer1", (0, 0), 64, unit=64)


def test_windows_are_of_one_size_hold_their_boxes_and_stay_inside():
    boxes = torch.tensor([[0, 0, 3, 5], [10, 20, 15, 25], [17, 27, 20, 30], [0, 0, 0, 0]])
    windows = equal_windows(boxes, 20, 30)
    assert windows[1].tolist() == [10, 20, 15, 25]
    for box, window in zip(boxes, windows):
        assert (window[2:] - window[:2]).tolist() == [5, 5]
        assert (window[:2] <= box[:2]).all() and (window[2:] >= box[2:]).all()
        assert (window[:2] >= 0).all() and (window[2:] <= torch.tensor([20, 30])).all()
