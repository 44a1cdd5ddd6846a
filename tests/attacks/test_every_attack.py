"""What holds for every attack."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from vitrine.attacks import APGD, BIM, EOT, FAB, FGSM, LBFGS, PGD, AutoAttack, Square, is_adversarial
from vitrine.attacks.threat import violations
from vitrine.core.registry import UnknownName

ATTACKS = {
    "fgsm": FGSM(eps=0.05),
    "fgsm-rs": FGSM(eps=0.05, random_start=True, step=0.06, norm="l2"),
    "bim": BIM(eps=0.02, steps=4),
    "pgd": PGD(eps=0.02, steps=4, restarts=2),
    "pgd-l2": PGD(norm="l2", eps=0.2, steps=4, momentum=0.9),
    "pgd-targeted": PGD(eps=0.05, steps=4, targeted=True),
    "lbfgs": LBFGS(searches=4, steps=8),
    "apgd": APGD(eps=0.02, steps=12, restarts=2),
    "apgd-l2": APGD(norm="l2", eps=0.2, steps=12, loss="dlr"),
    "apgd-t": APGD(eps=0.02, steps=8, loss="dlr-targeted", targets=2),
    "fab": FAB(eps=0.02, steps=6, targets=2),
    "fab-l2": FAB(norm="l2", eps=None, steps=6, targets=2),
    "square": Square(eps=0.05, queries=70),
    "square-l2": Square(norm="l2", eps=0.5, queries=30),
    "autoattack": AutoAttack(eps=0.02, steps=6, targets=2, queries=20, batch_size=4),
    "autoattack-rand": AutoAttack(eps=0.02, version="rand", steps=4, draws=2),
    "eot": EOT(PGD(eps=0.05, steps=3), draws=3),
}
every = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def inner(attack):
    return attack.attack if isinstance(attack, EOT) else attack


def to_leave_or_reach(attack, network, pictures, own_labels):
    own = own_labels(network, pictures)
    return (own + 1) % 5 if inner(attack).targeted else own


@every
def test_results_are_allowed_and_the_arguments_unchanged(attack, convnet, images, own_labels):
    pictures = images(5, 3, 8, 8)
    labels, before = to_leave_or_reach(attack, convnet, pictures, own_labels), pictures.clone()
    adversarial = attack(convnet, pictures, labels)
    assert adversarial.shape == pictures.shape and adversarial.dtype == pictures.dtype
    assert not adversarial.requires_grad
    assert not violations(pictures, adversarial, inner(attack).norm, inner(attack).eps).any()
    assert torch.equal(pictures, before)


@every
def test_the_network_is_unchanged(attack, convnet, images, own_labels):
    pictures = images(4, 3, 8, 8)
    labels = to_leave_or_reach(attack, convnet, pictures, own_labels)
    convnet.train()
    convnet[1].eval()
    convnet[5].bias.requires_grad_(False)
    for parameter in convnet.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    convnet[0].weight.register_hook(lambda gradient: pytest.fail("a weight's gradient was computed"))
    state, random = copy.deepcopy(convnet.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        attack(convnet, pictures, labels)
        assert not torch.is_grad_enabled()
    assert [module.training for module in convnet] == [True, False, True, True, True, True]
    assert [p.requires_grad for p in convnet.parameters()] == [True] * 5 + [False]
    assert all((p.grad == 0.25).all() for p in convnet.parameters())
    assert all(torch.equal(value, state[name]) for name, value in convnet.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


@every
def test_an_images_result_does_not_depend_on_its_batch(attack, convnet, images, own_labels):
    network, pictures = convnet.double(), images(5, 3, 8, 8).double()
    labels = to_leave_or_reach(attack, network, pictures, own_labels)
    together = attack(network, pictures, labels)
    turned = attack(network, pictures.flip(0), labels.flip(0)).flip(0)
    alone = attack(network, pictures[2:3], labels[2:3])
    torch.testing.assert_close(turned, together, atol=1e-7, rtol=0)
    torch.testing.assert_close(alone[0], together[2], atol=1e-7, rtol=0)


@every
def test_the_same_call_gives_the_same_images(attack, convnet, images, own_labels):
    pictures = images(3, 3, 8, 8)
    labels = to_leave_or_reach(attack, convnet, pictures, own_labels)
    first = attack(convnet, pictures, labels)
    torch.rand(3)
    assert torch.equal(first, attack(convnet, pictures, labels))


@every
def test_an_empty_batch_is_returned(attack, convnet):
    assert attack(convnet, torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x + 0.5, y), r"images lie between .* expected \[0, 1\]"),
        (lambda x, y: (x * torch.nan, y), r"images lie between nan"),
        (lambda x, y: ((x * 255).byte(), y), "images are torch.uint8, expected float32"),
        (lambda x, y: (x[0], y), r"expected \[N, C, H, W\]"),
        (lambda x, y: (x, y + 5), "labels lie between .* expected 0 to 4"),
        (lambda x, y: (x, -1 - y), "labels lie between .* expected 0 to 4"),
        (lambda x, y: (x, y[:2]), r"labels are torch.int64 \[2\], expected int64 \[3\]"),
        (lambda x, y: (x, y.float()), "labels are torch.float32"),
    ],
)
def test_arguments_that_cannot_be_are_refused(attack, change, message, convnet, images):
    pictures, labels = change(images(3, 3, 8, 8), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=message):
        attack(convnet, pictures, labels)


@every
def test_a_network_of_nan_is_refused_and_unchanged(attack, convnet, images):
    convnet[0].weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        attack(convnet, images(3, 3, 8, 8), torch.tensor([0, 1, 2]))
    assert all(module.training for module in convnet.modules())
    assert all(parameter.requires_grad for parameter in convnet.parameters())


def test_nan_that_comes_later_is_seen_too():
    class Brittle(nn.Module):
        """NaN where an image is darker than at first."""

        def forward(self, x):
            total = x.flatten(1).sum(1, keepdim=True)
            return torch.cat([total, -total], 1) + (total - 1.99).log() * 0

    with pytest.raises(ValueError, match="NaN"):
        BIM(eps=0.3, steps=4)(Brittle(), torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))


@pytest.mark.slow
@pytest.mark.parametrize("attack", [PGD, APGD, FGSM, FAB, Square], ids=lambda attack: attack.__name__)
def test_without_a_budget_nothing_changes(attack, convnet, images, own_labels):
    pictures = images(3, 3, 8, 8)
    assert torch.equal(attack(eps=0.0)(convnet, pictures, own_labels(convnet, pictures)), pictures)


def test_works_within_inference_mode(convnet, images):
    with torch.inference_mode():
        pictures, labels = images(3, 3, 8, 8) * 1, torch.tensor([0, 1, 2]) * 1
        assert PGD(steps=2)(convnet, pictures, labels).shape == pictures.shape


def test_is_adversarial_evaluates_in_eval_mode(convnet, images, own_labels):
    pictures = images(6, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    assert not is_adversarial(convnet, pictures, labels).any()
    assert is_adversarial(convnet, pictures, (labels + 1) % 5).all()
    assert is_adversarial(convnet, pictures, labels, targeted=True).all()


def test_settings_that_cannot_be_are_refused():
    for bad, key in (
        (lambda: PGD(norm="l1"), "norm"),
        (lambda: PGD(eps=-0.1), "eps"),
        (lambda: PGD(eps=None), "eps"),
        (lambda: FAB(targeted=True), "targeted"),
        (lambda: APGD(loss="dlr-targeted", targeted=True), "loss"),
        (lambda: AutoAttack(mode="train"), "mode"),
        (lambda: PGD(steps=0), "steps"),
        (lambda: LBFGS(norm="linf"), "norm"),
        (lambda: EOT(Square()), "attack"),
    ):
        with pytest.raises(ValueError, match=f"^{key}"):
            bad()
    with pytest.raises(UnknownName):
        EOT(transformation="earthquake")


def test_settings_are_understood_by_omegaconf():
    from omegaconf import OmegaConf

    from vitrine.attacks import ATTACKS as KNOWN

    for name in KNOWN:
        settings = OmegaConf.structured(KNOWN[name])
        assert set(settings) == {field.name for field in dataclasses.fields(KNOWN[name])}
