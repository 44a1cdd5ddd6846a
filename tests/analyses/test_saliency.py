import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, IntegratedGradients, Saliency
from torch import nn

from vitrine.analyses.cam import grad_cam
from vitrine.analyses.saliency import (
    deconvnet,
    guided_backprop,
    guided_grad_cam,
    input_gradient,
    integrated_gradients,
    smooth_grad,
)
from vitrine.core.registry import UnknownName

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1])
BY_GRADIENT = [input_gradient, guided_backprop, deconvnet]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 10, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 4),
    ).eval()


def test_the_gradient_of_a_linear_networks_logit_is_its_weights():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 4))
    found = input_gradient(linear, IMAGES, TARGETS, of="logit")
    torch.testing.assert_close(found, linear[1].weight.detach()[TARGETS].view(6, 3, 12, 12))
    for n, sigma in ((3, 0.5), (1, 0.0)):
        torch.testing.assert_close(smooth_grad(linear, IMAGES, TARGETS, n=n, sigma=sigma), found)


def test_the_gradient_of_a_log_probability_is_that_of_softmax_by_hand(network):
    logits = network(IMAGES)
    of_logits = torch.stack(
        [input_gradient(network, IMAGES, torch.full((6,), k), of="logit") for k in range(4)], 1
    )
    weight = torch.nn.functional.one_hot(TARGETS, 4) - logits.softmax(1).detach()
    expected = torch.einsum("nk,nkchw->nchw", weight, of_logits)
    torch.testing.assert_close(input_gradient(network, IMAGES, TARGETS), expected, rtol=1e-4, atol=1e-6)


def test_captums_saliency_and_guided_backprop_agree(network):
    x = IMAGES.clone().requires_grad_()
    expected = Saliency(network).attribute(x, target=TARGETS, abs=False)
    torch.testing.assert_close(
        input_gradient(network, IMAGES, TARGETS, of="logit"), expected, rtol=1e-5, atol=1e-5
    )
    expected = GuidedBackprop(network).attribute(x, target=TARGETS)
    torch.testing.assert_close(guided_backprop(network, IMAGES, TARGETS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of", ["logit", "log_prob"])
def test_finite_differences_agree_with_the_gradient_of_a_class_and_of_a_unit(network, of):
    network, images = network.double(), IMAGES[:1].double()
    try:
        step = torch.zeros_like(images)
        step[0, 1, 5, 6] = 1e-6

        def score(x):
            logits = network(x)
            return (logits if of == "logit" else logits.log_softmax(1))[0, 2]

        expected = (score(images + step) - score(images - step)) / 2e-6
        found = input_gradient(network, images, torch.tensor([2]), of)
        torch.testing.assert_close(found[0, 1, 5, 6], expected, rtol=1e-5, atol=1e-8)

        def activation(x):
            return network[:4](x)[0, 7, 2, 3]

        expected = (activation(images + step) - activation(images - step)) / 2e-6
        found = input_gradient(network, images, layer="3", unit=7, position=(2, 3))
        torch.testing.assert_close(found[0, 1, 5, 6], expected, rtol=1e-5, atol=1e-8)
    finally:
        network.float()


@pytest.mark.parametrize("baseline", [0.0, 0.5, "images"])
def test_integrated_gradients_sum_to_the_scores_difference_and_agree_with_captum(network, baseline):
    baseline = IMAGES.flip(0) if baseline == "images" else baseline
    found = integrated_gradients(network, IMAGES, TARGETS, baseline=baseline)
    expected = IntegratedGradients(network).attribute(IMAGES, baseline, target=TARGETS)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    found = integrated_gradients(network, IMAGES, TARGETS, "log_prob", baseline=baseline, steps=300)
    start = torch.as_tensor(baseline).expand_as(IMAGES)
    with torch.no_grad():
        change = network(IMAGES).log_softmax(1) - network(start).log_softmax(1)
    torch.testing.assert_close(
        found.sum((1, 2, 3)), change.gather(1, TARGETS[:, None])[:, 0], rtol=5e-3, atol=5e-4
    )


def test_smooth_grad_is_the_mean_gradient_over_noisy_copies(network):
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn(3, 12, 12, generator=generator) for _ in range(9)]
    expected = sum(input_gradient(network, IMAGES + 0.1 * z, TARGETS, "logit") for z in noise) / 9
    for batch_size in (1, 20, 1000):
        found = smooth_grad(network, IMAGES, TARGETS, n=9, sigma=0.1, seed=7, batch_size=batch_size)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(
        smooth_grad(network, IMAGES, TARGETS, n=9, sigma=0.1, seed=8), expected, atol=1e-4
    )


def test_guided_grad_cam_is_the_product_of_its_parts_and_agrees_with_captum(network):
    found = guided_grad_cam(network, IMAGES, TARGETS, "3")
    maps = torch.nn.functional.interpolate(
        grad_cam(network, IMAGES, TARGETS, "3")[:, None], (12, 12), mode="bilinear"
    )
    torch.testing.assert_close(found, guided_backprop(network, IMAGES, TARGETS) * maps)
    theirs = GuidedGradCam(network, network[3])
    expected = theirs.attribute(IMAGES.clone().requires_grad_(), TARGETS, interpolate_mode="bilinear")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("technique", [*BY_GRADIENT, smooth_grad, integrated_gradients])
def test_an_images_map_does_not_depend_on_its_batch(network, technique):
    together = technique(network, IMAGES, TARGETS)
    alone = torch.cat([technique(network, IMAGES[i : i + 1], TARGETS[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("technique", BY_GRADIENT)
def test_units_and_positions_of_a_layer_go_together_in_one_pass(network, technique):
    units, positions = (
        torch.tensor([0, 3, 9, 9, 5, 2]),
        torch.tensor([[0, 0], [4, 1], [2, 2], [1, 3], [0, 4], [4, 4]]),
    )
    together = technique(network, IMAGES, layer="4", unit=units, position=positions)
    for i in range(6):
        position = tuple(positions[i].tolist())
        alone = technique(network, IMAGES[i : i + 1], layer="4", unit=int(units[i]), position=position)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)


def test_a_unit_without_a_position_is_taken_where_it_is_largest(network):
    maps = network[:4](IMAGES)[:, 6].detach()
    best = maps.flatten(1).argmax(1)
    positions = torch.stack([best // 5, best % 5], 1)
    torch.testing.assert_close(
        guided_backprop(network, IMAGES, layer="3", unit=6),
        guided_backprop(network, IMAGES, layer="3", unit=6, position=positions),
    )


def test_a_planted_unit_lights_the_planted_place():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.ReLU())
    cross = torch.tensor([[-1.0, 1, -1], [1, 1, 1], [-1, 1, -1]])
    network[0].weight.data[0, 0] = cross
    image = torch.full((1, 1, 20, 20), 0.5)
    image[0, 0, 4:7, 11:14] = (cross + 1) / 2
    found = guided_backprop(network, image, layer="1", unit=0)[0, 0]
    torch.testing.assert_close(found[4:7, 11:14], cross)
    assert found.abs().sum() == cross.abs().sum()


def test_below_the_first_relu_guided_backprop_is_the_gradient_but_only_where_there_is_a_relu(network):
    expected = input_gradient(network, IMAGES, layer="0", unit=1)
    assert torch.equal(guided_backprop(network, IMAGES, layer="0", unit=1), expected)
    without = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, 2))
    with pytest.raises(ValueError, match="none was met"):
        guided_backprop(without, IMAGES, layer="0", unit=1)


def test_nothing_deeper_than_the_layer_of_a_unit_is_computed(network):
    calls = []
    handle = network[5].register_forward_hook(lambda *_: calls.append(1))
    input_gradient(network, IMAGES, layer="4", unit=0)
    handle.remove()
    assert not calls


def test_a_vision_transformer_has_gradients_and_with_relus_the_rules_too():
    class Patches(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 3, 3)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.block(self.patches(x).flatten(2).mT).mean(1))

    torch.manual_seed(0)
    network = Patches("relu").eval()
    assert input_gradient(network, IMAGES, TARGETS).abs().max() > 0
    assert guided_backprop(network, IMAGES, layer="block", unit=5, position=(3, 3)).shape == IMAGES.shape
    expected = GuidedBackprop(network)  # its ReLU is a function: captum's is the plain gradient
    theirs = expected.attribute(IMAGES.clone().requires_grad_(), TARGETS)
    assert not torch.allclose(guided_backprop(network, IMAGES, TARGETS), theirs, atol=1e-5)
    with pytest.raises(ValueError, match="GELU"):
        deconvnet(Patches("gelu").eval(), IMAGES, TARGETS)


def test_bad_arguments_are_answered_by_name(network):
    def answered(match, *arguments, kind=ValueError, **options):
        with pytest.raises(kind, match=match):
            input_gradient(network, *arguments, **options)

    answered(r"images: are torch.uint8", (IMAGES * 255).byte(), TARGETS)
    answered(r"images: are torch.float32 \[3, 12, 12\]", IMAGES[0], TARGETS)
    answered(r"targets: is torch.int64 \[2\], expected int64 \[6\]", IMAGES, TARGETS[:2])
    answered(r"targets: is torch.float32", IMAGES, TARGETS.float())
    answered(r"targets: is 4, expected 0 to 3", IMAGES, TARGETS + 1)
    answered(r"targets: expected class indices", IMAGES)
    answered(r"targets: expected class indices", IMAGES, TARGETS, unit=3)
    answered(r"of: is 'prob'", IMAGES, TARGETS, "prob")
    answered(r"unit: expected a channel of layer '3'", IMAGES, layer="3")
    answered(r"unit: is 10, expected 0 to 9 \(the 10 channels of layer '3'\)", IMAGES, layer="3", unit=10)
    answered(r"position \(column\): is 5, expected 0 to 4", IMAGES, layer="3", unit=0, position=(0, 5))
    answered("unknown layer 'conv'", IMAGES, layer="conv", unit=0, kind=UnknownName)
    with pytest.raises(ValueError, match="n: is 0"):
        smooth_grad(network, IMAGES, TARGETS, n=0)
    with pytest.raises(ValueError, match="steps: is 0"):
        integrated_gradients(network, IMAGES, TARGETS, steps=0)
    with pytest.raises(ValueError, match=r"targets: is torch.int64 \[2\], expected int64 \[6\]"):
        integrated_gradients(network, IMAGES, TARGETS[:2])


def test_several_classes_of_an_image_are_as_one_by_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    images, targets = torch.rand(2, 3, 8, 8), torch.tensor([[1, 3], [0, 0], [4, 1]])
    for technique, effort in ((smooth_grad, {"n": 3}), (integrated_gradients, {"steps": 3})):
        together = technique(net, images, targets, **effort, batch_size=4)
        alone = [technique(net, images, own, **effort, batch_size=4) for own in targets]
        assert torch.equal(together, torch.stack(alone))
