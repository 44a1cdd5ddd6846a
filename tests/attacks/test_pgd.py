import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitrine.attacks import BIM, FGSM, PGD, is_adversarial
from vitrine.attacks.losses import margin

CONFIDENT = 0.15  # an eps that stays within [0, 1] for images between .3 and .7


def worst(network: nn.Module, pictures, labels, norm, eps):
    """Closed form for two classes: eps sign(w) or eps w / |w|, w pointing to the other class."""
    weight = network[1].weight
    w = (weight[1 - labels] - weight[labels]).view(pictures.shape)
    if norm == "linf":
        return pictures + eps * w.sign()
    return pictures + eps * w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [PGD, BIM])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_reaches_the_closed_form_on_a_linear_network(kind, norm, momentum, linear, images, own_labels):
    network, pictures = linear(), images(8, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    attack = kind(norm=norm, eps=CONFIDENT, steps=60, step=CONFIDENT, momentum=momentum, early_stop=False)
    expected = worst(network, pictures, labels, norm, CONFIDENT).detach()
    torch.testing.assert_close(attack(network, pictures, labels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_exact_on_a_linear_network(norm, linear, images, own_labels):
    network, pictures = linear(), images(8, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    expected = worst(network, pictures, labels, norm, CONFIDENT).detach()
    adversarial = FGSM(norm=norm, eps=CONFIDENT)(network, pictures, labels)
    torch.testing.assert_close(adversarial, expected, atol=1e-6, rtol=0)


def test_targeted_reaches_the_target_where_the_margin_allows(linear, images):
    network, pictures = linear(classes=4), images(20, 1, 1, 12, low=0.3, high=0.7).double()
    targets, eps = torch.arange(20) % 4, 0.1
    attack = PGD(eps=eps, steps=80, step=0.01, targeted=True, loss="margin")
    reached = is_adversarial(network, attack(network, pictures, targets), targets, targeted=True)
    # for each other class alone, the gap can shrink by eps |w_t - w_k|_1: necessary for reaching the target
    weight = network[1].weight
    for image, target, ok in zip(pictures, targets, reached):
        logits = weight @ image.flatten()
        best = logits[target] - logits + eps * (weight[target] - weight).abs().sum(1)
        assert not ok or (best >= 0).all()
    assert reached.any() and not reached.all()


def brute_force(network: nn.Module, image, label, norm, eps, side=161):
    """Whether any point of a fine grid over the ball, clipped to [0, 1], is misclassified."""
    line = torch.linspace(-eps, eps, side)
    change = torch.cartesian_prod(line, line)
    change = change[change.norm(dim=1) <= eps] if norm == "l2" else change
    points = (image.view(1, 2) + change).clamp(0, 1).view(-1, 1, 1, 2)
    with torch.no_grad():
        return bool((network(points).argmax(1) != label).any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_what_brute_force_finds_on_two_pixels(norm, images, own_labels):
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    for parameter in network.parameters():
        parameter.data *= 4
    network[1].bias.data -= network[1].weight.data.sum(1) / 2  # mid-grey is where it decides
    pictures = images(60, 1, 1, 2)
    labels = own_labels(network, pictures)
    attack = PGD(norm=norm, eps=0.12, steps=40, restarts=4)
    success = is_adversarial(network, attack(network, pictures, labels), labels)
    known = torch.tensor([brute_force(network, x, y, norm, 0.12) for x, y in zip(pictures, labels)])
    assert 5 < known.sum() < 55
    assert torch.equal(success, known)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), restarts=st.integers(1, 3), early_stop=st.booleans())
def test_restarts_never_make_it_weaker(seed, restarts, early_stop):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 2
    pictures = torch.rand(10, 1, 2, 2, generator=generator, dtype=torch.float64)
    labels = network(pictures).argmax(1)

    def outcome(count):
        attack = PGD(eps=0.1, steps=2, restarts=count, seed=seed, early_stop=early_stop)
        ended = attack(network, pictures, labels)
        return is_adversarial(network, ended, labels), margin(network(ended), labels)

    (few, before), (more, after) = outcome(restarts), outcome(restarts + 1)
    assert (more | ~few).all()
    assert (after >= before - 1e-9)[~few].all()


def test_early_stopping_only_makes_it_stronger(convnet, images, own_labels):
    pictures = images(16, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    left, stayed = (
        is_adversarial(
            convnet, PGD(eps=0.02, steps=8, early_stop=early_stop)(convnet, pictures, labels), labels
        )
        for early_stop in (True, False)
    )
    assert (left | ~stayed).all()
    assert 0 < left.sum() < 16


def test_unchecked_is_the_same_search(convnet, images, own_labels):
    pictures = images(6, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    checked = PGD(steps=3, early_stop=False)(convnet, pictures, labels)
    assert torch.equal(checked, PGD(steps=3)(convnet, pictures, labels, check=False))


def test_a_loss_and_a_start_of_ones_own(convnet, images):
    pictures = images(4, 3, 8, 8)
    convnet.eval()
    chances = convnet(pictures).softmax(1).detach()

    def divergence(logits, reference):
        return nn.functional.kl_div(logits.log_softmax(1), reference, reduction="none").sum(1)

    start = pictures + 0.001 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    ended = PGD(steps=5)(convnet, pictures, chances, loss=divergence, start=start, check=False)
    before, after = (divergence(convnet(x), chances) for x in (start, ended))
    assert (after > before).all()
    assert (ended - pictures).abs().max() <= 8 / 255 + 1e-7


def test_train_mode_normalises_by_the_batch_and_touches_no_statistics(convnet, images, own_labels):
    pictures = images(6, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    convnet[1].running_mean.fill_(5.0)  # so that the two modes differ
    statistics = {name: value.clone() for name, value in convnet[1].named_buffers()}
    ended = {
        mode: BIM(eps=0.05, steps=1, step=0.05, mode=mode, early_stop=False)(convnet, pictures, labels)
        for mode in ("train", "eval")
    }
    assert all(torch.equal(value, statistics[name]) for name, value in convnet[1].named_buffers())
    assert convnet[1].training and convnet[1].track_running_stats
    by_hand = pictures.clone().requires_grad_()
    convnet[4].eval()
    nn.functional.cross_entropy(convnet(by_hand), labels, reduction="sum").backward()
    torch.testing.assert_close(ended["train"], (pictures + 0.05 * by_hand.grad.sign()).clamp(0, 1))
    assert not torch.equal(ended["train"], ended["eval"])


def test_keys_are_what_random_starts_are_drawn_from(convnet, images, own_labels):
    pictures = images(2, 3, 8, 8)
    pictures[1] = pictures[0]
    labels = own_labels(convnet, pictures)
    attack = PGD(steps=1, step=1e-6, early_stop=False)
    same = attack(convnet, pictures, labels)
    assert torch.equal(same[0], same[1])
    other = attack(convnet, pictures, labels, keys=torch.tensor([3, 4]))
    assert not torch.equal(other[0], other[1])


def test_searching_in_bfloat16_confirms_successes_in_full(convnet, images, own_labels):
    pictures = images(16, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    success = [
        is_adversarial(convnet, PGD(eps=0.02, steps=8, precision=p)(convnet, pictures, labels), labels)
        for p in ("32-true", "bf16-mixed")
    ]
    assert (success[0] == success[1]).float().mean() > 0.8
    assert success[1].any()


def test_under_the_callers_autocast_successes_are_confirmed_in_full():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1)]
    network = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 10))
    pictures = torch.rand(256, 3, 8, 8)
    labels = network(pictures).argmax(1)
    for restarts in (1, 2):
        with torch.autocast("cpu", torch.bfloat16):
            inherited, said = (
                PGD(steps=10, restarts=restarts, precision=p)(network, pictures, labels)
                for p in ("inherit", "bf16-mixed")
            )
        assert torch.equal(inherited, said)


def test_on_step_is_called_at_every_step(convnet, images, own_labels):
    pictures, seen = images(3, 3, 8, 8), []
    labels = own_labels(convnet, pictures)
    PGD(steps=4, early_stop=False)(convnet, pictures, labels, on_step=lambda *what: seen.append(what))
    assert [(loss.shape, gradient.shape) for loss, gradient in seen] == [((3,), (3, 3, 8, 8))] * 4
