"""Every objective's loss and gradients, against the paper's formula written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

from vitrine.core.random_numbers import fold_in as derive
from vitrine.core.random_numbers import normal, uniform
from vitrine.modules import OBJECTIVES
from vitrine.modules.objectives.adversarial import random_keys

EPS, STEP = 8 / 255, 2 / 255


def by_hand(network, images, mode, loss, start, step, steps):
    """Steps of size `step` up `loss(logits)`, in a copy of the network put in that mode."""
    network = copy.deepcopy(network).train(mode == "train")
    points = start.clamp(0, 1)
    for _ in range(steps):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network(points)).sum(), points)
        points = points.detach() + step * gradient.sign()
        points = images + (points - images).clamp(-EPS, EPS)
        points = points.clamp(0, 1)
    return points.detach()


def uniform_start(images, keys):
    noise = uniform(derive(derive(keys, 0), 0), *images.shape[1:])
    return images + (2 * noise - 1) * EPS


def next_keys(images):
    """The keys that the objective is about to draw."""
    state = torch.get_rng_state()
    keys = random_keys(images)
    torch.set_rng_state(state)
    return keys


def cross_entropy_up(labels):
    return lambda logits: F.cross_entropy(logits, labels, reduction="none")


def gradients(network, loss):
    return torch.autograd.grad(loss, list(network.parameters()))


def assert_as_by_hand(objective, network, images, labels, expected):
    """`expected(copy of network) -> (loss, logits)`; compared: loss, logits, weights' gradients, buffers."""
    reference = copy.deepcopy(network)
    wanted, wanted_logits = expected(reference)
    loss, logits = objective(network, images, labels)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(gradients(network, loss), gradients(reference, wanted)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    for (name, mine), theirs in zip(network.named_buffers(), reference.buffers()):
        torch.testing.assert_close(mine, theirs, msg=name)  # running statistics: of the loss's passes only
    assert all(p.grad is None for p in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_pgd_trains_on_the_images_of_ten_steps(network, batch, mode):
    images, labels = batch
    keys = next_keys(images)

    def expected(net):
        start = uniform_start(images, keys)
        worst = by_hand(net, images, mode, cross_entropy_up(labels), start, STEP, 10)
        logits = net(worst)
        return F.cross_entropy(logits, labels, label_smoothing=0.1), logits

    objective = OBJECTIVES["pgd"](attack_mode=mode, label_smoothing=0.1)
    assert_as_by_hand(objective, network, images, labels, expected)


def test_fast_takes_one_step_of_one_and_a_quarter_eps_from_a_random_start(network, batch):
    images, labels = batch
    keys = next_keys(images)

    def expected(net):
        start = images + (2 * uniform(derive(keys, 0), *images.shape[1:]) - 1) * EPS
        worst = by_hand(net, images, "eval", cross_entropy_up(labels), start, 1.25 * EPS, 1)
        logits = net(worst)
        return F.cross_entropy(logits, labels), logits

    assert_as_by_hand(OBJECTIVES["fast"](), network, images, labels, expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_trades_weighs_accuracy_against_agreement(network, batch, mode):
    images, labels = batch
    keys = next_keys(images)

    def expected(net):
        copied = copy.deepcopy(net).train(mode == "train")
        with torch.no_grad():
            p = copied(images).softmax(1)

        def up(logits):
            return F.kl_div(logits.log_softmax(1), p, reduction="none").sum(1)

        start = images + 0.001 * normal(keys, *images.shape[1:])
        worst = by_hand(net, images, mode, up, start, STEP, 10)
        logits = net(images)
        p, log_q = logits.softmax(1), net(worst).log_softmax(1)
        agreement = (p * (p.log() - log_q)).sum(1).mean()
        return F.cross_entropy(logits, labels) + 6 * agreement, logits

    assert_as_by_hand(OBJECTIVES["trades"](attack_mode=mode), network, images, labels, expected)


def test_mart_counts_misclassified_images_for_more(network, batch):
    images, labels = batch
    keys = next_keys(images)

    def expected(net):
        worst = by_hand(net, images, "eval", cross_entropy_up(labels), uniform_start(images, keys), STEP, 10)
        p, logits = net(images).softmax(1), net(worst)
        q = logits.softmax(1)
        total = 0
        for i, label in enumerate(labels.tolist()):
            others = max(q[i, k] for k in range(4) if k != label)
            boosted = -q[i, label].log() - (1 - others).log()
            total = total + boosted + 5 * (1 - p[i, label]) * (p[i] * (p[i] / q[i]).log()).sum()
        return total / len(labels), logits

    objective = OBJECTIVES["mart"]()
    reference = copy.deepcopy(network)
    wanted, _ = expected(reference)
    loss, _ = objective(network, images, labels)
    assert loss.item() == pytest.approx(wanted.item(), abs=3e-4)  # log(1 - q + 1e-4), as its authors have it
    for mine, theirs in zip(gradients(network, loss), gradients(reference, wanted)):
        torch.testing.assert_close(mine, theirs, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("standard", {}, 1),
        ("fast", {"guard_every": 0}, 1 + 1),
        ("free", {}, 1),
        ("pgd", {}, 10 + 1),
        ("mart", {}, 10 + 2),
        ("trades", {"attack_mode": "train"}, 10 + 2),  # the clean logits serve attack and loss
        ("trades", {"attack_mode": "eval"}, 10 + 3),  # in eval mode once for all steps, in train mode once
        ("pgd", {"awp": 0.005}, 10 + 2),
    ],
)
def test_how_often_the_network_is_asked(network, batch, name, options, passes):
    asked, of_clean = [], []
    network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    network.register_forward_pre_hook(
        lambda _, inputs: of_clean.append(torch.equal(inputs[0], batch[0])), prepend=True
    )
    OBJECTIVES[name](**options)(network, *batch)
    assert asked == [len(batch[0])] * passes
    if name == "trades":
        assert sum(of_clean) == passes - 11


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_under_autocast_the_attack_is_in_the_training_precision(network, batch, name):
    seen = []
    network.head.register_forward_hook(lambda *_: seen.append(_[2].dtype))
    objective = OBJECTIVES[name](awp=0.005)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(network, *batch)
    loss.backward()
    objective.after_backward(network)
    attacked = seen[5:] if name == "fast" else seen  # the guard looks first
    assert set(attacked) == {torch.bfloat16} and loss.isfinite()


@pytest.mark.parametrize("name", ["pgd", "fast", "trades", "mart"])
def test_the_random_start_is_new_each_time_and_torchs_generator_decides_it(network, batch, name):
    def loss():
        return OBJECTIVES[name]()(copy.deepcopy(network), *batch)[0].item()

    torch.manual_seed(5)
    first, second = loss(), loss()
    torch.manual_seed(5)
    assert loss() == first != second


@pytest.mark.parametrize(("name", "step"), [("pgd", None), ("fast", None), ("trades", 0.01), ("mart", None)])
def test_eps_rises_to_its_full_size_where_asked(network, batch, name, step):
    images, labels = batch
    reached = []
    network.register_forward_pre_hook(
        lambda _, inputs: reached.append((inputs[0] - images).abs().max().item()), prepend=True
    )
    off = {"guard_every": 0} if name == "fast" else {}
    objective = OBJECTIVES[name](eps_warmup=3, step=step, **off)
    for share in (0.25, 0.5, 0.75, 1.0, 1.0):
        reached.clear()
        objective(network, images, labels)
        assert max(reached) == pytest.approx(share * EPS, rel=1e-4)
    resumed = OBJECTIVES[name](eps_warmup=9, **off)
    resumed.load_state_dict(objective.state_dict())
    reached.clear()
    resumed(network, images, labels)
    assert max(reached) == pytest.approx(0.6 * EPS, rel=1e-4)


@pytest.mark.parametrize("options", [{"eps": -1.0}, {"awp": -0.1}, {"norm": "l1"}, {"attack_mode": "both"}])
def test_what_cannot_be_is_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OBJECTIVES["pgd"](**options)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["standard", "pgd", "mart"])
def test_a_batch_of_images_without_weight_has_no_cross_entropy(network, batch, name, smoothing):
    more = {} if name == "standard" else {"steps": 1}
    more |= {"beta": 0.0} if name == "mart" else {}
    objective = OBJECTIVES[name](class_weights=[0.0, 1.0, 1.0, 2.0], label_smoothing=smoothing, **more)
    objective.prepare(None, list("abcd"))
    loss, _ = objective(network, batch[0], torch.zeros(6, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and all((p.grad == 0).all() for p in network.parameters())


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_a_class_whose_probability_is_zero_leaves_gradients_finite(batch, name):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    network[1].weight.data *= 1000
    assert (network(batch[0]).softmax(1) == 0).any()  # exp(-104) is no float32
    loss, _ = OBJECTIVES[name](steps=2)(network, *batch)
    assert loss.isfinite() and all(of.isfinite().all() for of in gradients(network, loss))
