import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchcam.methods
import torchvision
from torch import nn

from vitrine import modules
from vitrine.analyses.cam import cam, class_gradients, grad_cam, grad_cam_pp, hires_cam, layer_cam
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.pooled_head import pooled_head
from vitrine.core.registry import UnknownName


def build(name, classes=7):
    torch.manual_seed(0)
    if name == "vit":
        network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=classes)
        nn.init.normal_(network.heads.head.weight)
    elif name in ("convnet", "resnet20"):
        network = modules.load_network(name, classes=classes)
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after training, so that maps vary
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def images(n=3, size=64):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


POOLED = """
    resnet18 densenet121 googlenet mobilenet_v2 shufflenet_v2_x0_5 efficientnet_b0 regnet_x_400mf mnasnet0_5
    swin_t convnet resnet20
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "swin_t" else ()) for name in POOLED.split()],
)
def test_the_mean_of_a_class_map_is_the_logit_less_its_bias(name):
    network, x = build(name), images()
    maps = cam(network, x)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = network(x)
    torch.testing.assert_close(maps.mean((2, 3)), logits - last.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cam(network, x, torch.tensor([0, 6, 2])), maps[range(3), [0, 6, 2]])


class AllConvolutional(nn.Module):
    """Averages the class maps of a 1 x 1 convolution; what it ends with may come in between."""

    def __init__(self, between=nn.Identity):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
        self.classifier = nn.Conv2d(8, 4, 1)
        self.between = between()

    def forward(self, x):
        return self.between(self.classifier(self.features(x))).mean((2, 3))


def test_a_1x1_convolution_before_the_average_is_a_linear_layer_too():
    network, x = AllConvolutional().eval(), images()
    expected = network.classifier(network.features(x)) - network.classifier.bias[:, None, None]
    torch.testing.assert_close(cam(network, x), expected)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: build("mobilenet_v3_small"), "960|576 channels|nonlinear"),
        (lambda: build("vit"), "nothing in it is averaged"),
        (lambda: build("squeezenet1_1"), "nonlinear"),  # a ReLU cuts the class maps before they are averaged
        (lambda: AllConvolutional(nn.ReLU), "nonlinear"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)), "nothing in it is averaged"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no linear layer"),
    ],
)
def test_other_networks_are_refused_with_the_reason_and_pointed_to_grad_cam(network, reason):
    network = network().eval()
    with pytest.raises(ValueError, match=rf"({reason}).*; grad_cam works"):
        cam(network, images(size=32 if isinstance(network, torchvision.models.VisionTransformer) else 64))


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "convnet"])
def test_with_a_pooled_head_grad_cam_is_the_positive_part_of_cam_over_its_area(name):
    network, x, targets = build(name), images(), torch.tensor([0, 3, 6])
    layer = {"resnet18": "layer4", "googlenet": "inception5b", "convnet": "features"}[name]
    expected = cam(network, x, targets).relu()
    torch.testing.assert_close(
        grad_cam(network, x, targets, layer), expected / expected.shape[-2:].numel(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("layer", ["layer2", "layer3.0.conv1", "layer4"])
def test_grad_cam_agrees_with_captum(layer):
    network, x, targets = build("resnet18"), images(), torch.tensor([0, 3, 6])
    oracle = captum.attr.LayerGradCam(network, network.get_submodule(layer))
    expected = oracle.attribute(x, targets, relu_attributions=True).squeeze(1).detach()
    torch.testing.assert_close(grad_cam(network, x, targets, layer), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("ours", "theirs"), [(grad_cam, "GradCAM"), (layer_cam, "LayerCAM")])
def test_grad_cam_and_kin_agree_with_torchcam(ours, theirs):
    network, x, targets = build("resnet18"), images(), torch.tensor([0, 3, 6])
    with getattr(torchcam.methods, theirs)(network, target_layer="layer3") as extractor:
        expected = extractor(targets.tolist(), network(x.requires_grad_()), normalized=False)[0].detach()
    found = ours(network, x.detach(), targets, "layer3")
    torch.testing.assert_close(found, expected.relu(), rtol=1e-3, atol=1e-7)


def test_grad_cam_pp_is_the_paper_s_derivatives_of_an_exponential_score():
    """torchcam 0.5 is no oracle here: its division goes into a copy. The paper's equation 19, element by
    element."""
    network, x, target = AllConvolutional().double().eval(), images(1, 9).double(), 2
    maps = network.features(x).detach().requires_grad_()
    y = network.classifier(maps).mean((2, 3))[0, target].exp()
    (first,) = torch.autograd.grad(y, maps, create_graph=True)
    weights = torch.zeros(8, dtype=torch.float64)
    for k, i, j in torch.cartesian_prod(torch.arange(8), torch.arange(4), torch.arange(4)).tolist():
        at = (0, k, i, j)
        second = torch.autograd.grad(first[at], maps, create_graph=True)[0][at]
        third = torch.autograd.grad(second, maps, retain_graph=True)[0][at]
        weights[k] += second / (2 * second + maps[0, k].sum() * third) * first[at].relu() / y
    expected = (weights[:, None, None] * maps[0]).sum(0).relu().detach()
    torch.testing.assert_close(grad_cam_pp(network, x, target, "features")[0], expected.detach())


def test_hires_cam_equals_grad_cam_where_a_pooled_head_follows():
    network, x = build("resnet18"), images()
    torch.testing.assert_close(hires_cam(network, x, 2, "layer4"), grad_cam(network, x, 2, "layer4"))
    assert not torch.allclose(hires_cam(network, x, 2, "layer2"), grad_cam(network, x, 2, "layer2"))


@pytest.mark.slow
def test_token_grids_are_maps_and_the_default_layer_is_one_that_matters():
    network, x = build("vit"), images(size=32)
    last, before = "encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_1"
    assert not grad_cam(network, x, 1, last).any()  # the head reads the class token, which is no place
    assert last_spatial_layer(network, x) == last + ".ln_1"  # what the last attention reads
    assert grad_cam(network, x, 1, before).shape == (3, 4, 4)
    # a block's input is normalised first, and gradients are orthogonal to the input of a normalisation
    assert hires_cam(network, x, 1, before).max() < 1e-5
    assert hires_cam(network, x, 1, last + ".ln_1").max() > 1e-3
    assert last_spatial_layer(build("resnet18"), images()) == "layer4"


@pytest.mark.slow
def test_grad_cam_of_channels_last_maps_of_an_oblong_image():
    network, x = build("swin_t"), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    tail = nn.Sequential(network.norm, network.permute, network.avgpool, network.flatten, network.head)
    maps = network.features(x).detach().requires_grad_()  # [2, 2, 3, 768], by hand
    (gradients,) = torch.autograd.grad(tail(maps)[:, 1].sum(), maps)
    expected = (maps * gradients.mean((1, 2), keepdim=True)).sum(3).relu().detach()
    assert expected.shape == (2, 2, 3) and expected.any()
    torch.testing.assert_close(grad_cam(network, x, 1, "features.7"), expected)


class AveragedTokens(nn.Module):
    """Averages tokens of a 2 x 4 grid, spelled in several ways."""

    def __init__(self, spelling):
        super().__init__()
        self.embed, self.head, self.spelling = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 5), spelling
        self.token = nn.Parameter(torch.ones(1, 1, 8))

    def forward(self, x):
        tokens = self.embed(x).flatten(2).mT
        match self.spelling:
            case "mean":
                return self.head(tokens.mean(1))
            case "mean of columns":
                return self.head(tokens.mT.mean(-1))
            case "pool":
                return self.head(F.adaptive_avg_pool1d(tokens.mT, 1).flatten(1))
            case "mean without the class token":
                return self.head(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)[:, 1:].mean(1))
            case "mean with the class token":
                return self.head(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1).mean(1))


SPELLINGS = ["mean", "mean of columns", "pool", "mean without the class token"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_averaged_tokens_are_maps_of_their_grid(spelling):
    network, x = AveragedTokens(spelling), torch.rand(3, 3, 32, 64)
    expected = torch.einsum("kc,nchw->nkhw", network.head.weight, network.embed(x))
    torch.testing.assert_close(cam(network, x), expected)


def test_tokens_that_are_averaged_with_a_class_token_are_no_maps():
    with pytest.raises(ValueError, match="more than a grid of tokens"):
        cam(AveragedTokens("mean with the class token"), torch.rand(3, 3, 32, 64))


@pytest.mark.slow
def test_a_logit_that_is_zero_on_every_probe_does_not_hide_the_last_layer():
    """SqueezeNet ends in a ReLU: half of its classes have a logit, and so gradients, of exactly 0."""
    network = build("squeezenet1_1", classes=2)
    nn.init.constant_(network.classifier[1].bias, -100)
    for x in (images(1), torch.zeros(1, 3, 64, 64)):
        assert not grad_cam(network, x, 0, "features.12").any()
        assert last_spatial_layer(network, x) == "features.12"
    random = build("squeezenet1_1")
    assert {last_spatial_layer(random, x[None]) for x in images(40)} == {"features.12"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit", "encoder.layers.encoder_layer_2.ln_1"),
        pytest.param("resnet18", "layer4", marks=pytest.mark.slow),
        ("convnet", "features"),
    ],
)
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_head_without_values_does_not_hide_the_last_layer(name, layer, value):
    network = build(name)
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.constant_(head.weight, value)
    nn.init.constant_(head.bias, value)
    found = last_spatial_layer(network, images(size=32 if name == "vit" else 64))
    assert found == last_spatial_layer(build(name), images(size=32 if name == "vit" else 64))
    assert found.startswith(layer)


def test_a_network_without_places_looks_nowhere():
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    with pytest.raises(NoSpatialLayer):
        last_spatial_layer(dense, images())


def test_a_network_without_layers_has_no_layer_with_maps():
    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(NoSpatialLayer):
        last_spatial_layer(Means(), images())


def test_no_parameter_gets_a_gradient_and_nothing_below_the_layer_is_computed_backwards(monkeypatch):
    network, x = build("resnet18"), images()
    seen = []
    real = torch.autograd.grad

    def watching(outputs, inputs, **options):
        nodes, stack = set(), [outputs.grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in nodes:
                nodes.add(node)
                stack += [following for following, _ in node.next_functions]
        seen.append([node.name() for node in nodes])
        return real(outputs, inputs, **options)

    monkeypatch.setattr(torch.autograd, "grad", watching)
    grad_cam(network, x, 0, "layer4")
    assert not any("Convolution" in name for name in seen[0])  # layer4 is the last convolution
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("frozen", [False, True])
def test_grad_mode_inference_tensors_and_frozen_parameters_make_no_difference(mode, frozen):
    network, targets = build("convnet"), torch.tensor([0, 3, 6])
    expected = grad_cam(network, images(), targets, "features.2")
    network.requires_grad_(not frozen)
    with mode():
        x = images() * 1
        assert torch.equal(grad_cam(network, x, targets, "features.2"), expected)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)


def test_an_image_does_not_depend_on_its_batch():
    network, targets = build("convnet").double(), torch.tensor([0, 3, 6])
    x = images().double()
    together = grad_cam(network, x, targets, "features.3")
    for i in range(3):
        alone = grad_cam(network, x[i : i + 1], targets[i : i + 1], "features.3")[0]
        torch.testing.assert_close(together[i], alone)


def test_in_place_relus_do_not_spoil_the_maps_they_follow():
    class Inplace(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.inplace, self.head = nn.Conv2d(3, 6, 3), inplace, nn.Linear(6, 4)

        def forward(self, x):
            return self.head(F.relu(self.conv(x), self.inplace).mean((2, 3)))

    kept, spoilt = (class_gradients(Inplace(i), images(), 1, "conv") for i in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(kept, spoilt)) and kept[0].min() < 0


def test_the_network_is_left_as_it_was():
    network = build("resnet18").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grad_cam(network, images(), 0, "layer3")
    pooled_head(network, images())
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_wrong_arguments_are_named():
    network, x = build("convnet"), images()
    with pytest.raises(UnknownName, match=r"features\.4"):
        grad_cam(network, x, 0, "features.44")
    with pytest.raises(ValueError, match="targets hold 7, expected classes 0 to 6"):
        grad_cam(network, x, 7, "features")
    with pytest.raises(ValueError, match="expected a class index for each of 3 images"):
        cam(network, x, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="do not depend on layer"):
        swapped = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        swapped.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
        grad_cam(swapped, x, 0, "0")


class Bottleneck(nn.Module):
    """All its logits are multiples of one channel of `narrow`, so that a map of it could tell no class."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 1, 1), nn.Linear(1, 5)

    def forward(self, x):
        return self.head(self.narrow(self.wide(x).sin()).mean((2, 3)))


def test_a_layer_in_which_all_classes_look_alike_is_not_offered():
    with pytest.raises(NoSpatialLayer):
        last_spatial_layer(Bottleneck(), images())
    network = Bottleneck()
    network.narrow, network.head = nn.Conv2d(8, 2, 1), nn.Linear(2, 5)
    assert last_spatial_layer(network, images()) == "narrow"


def test_swin_looks_at_the_last_block_s_second_norm():
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5)
    x = torch.rand(2, 3, 32, 48)
    assert last_spatial_layer(network, x) == "features.3.1.norm2"
    assert grad_cam(network, x, 1, "features.3.1.norm2").shape == (2, 4, 6)
