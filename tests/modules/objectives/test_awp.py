import copy

import pytest
import torch
import torch.nn.functional as F

from vitrine.modules import OBJECTIVES


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def differing(network, before):
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


def test_weights_move_by_their_share_and_only_those_of_layers(network, batch):
    before = state(network)
    images, labels = batch
    reference = copy.deepcopy(network)
    F.cross_entropy(reference(images), labels).backward()
    OBJECTIVES["standard"](awp=0.01)(network, images, labels)
    for (name, weight), other in zip(network.named_parameters(), reference.parameters()):
        if weight.ndim == 1:
            assert torch.equal(weight, before[name])
            continue
        moved = other.grad * 0.01 * before[name].norm() / other.grad.norm()
        torch.testing.assert_close(weight.detach(), before[name] + moved)
    assert all(p.grad is None for p in network.parameters())


def test_the_gradients_are_those_at_the_worst_weights(network, batch):
    images, labels = batch
    objective = OBJECTIVES["standard"](awp=0.01)
    moved = copy.deepcopy(network)
    OBJECTIVES["standard"](awp=0.01)(moved, images, labels)  # leaves the weights where they were moved to
    loss, _ = objective(network, images, labels)
    plain, _ = OBJECTIVES["standard"]()(network, images, labels)
    loss.backward()
    F.cross_entropy(moved(images), labels).backward()
    objective.after_backward(network)
    assert loss > plain - 1e-6
    for mine, theirs in zip(network.parameters(), moved.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_weights_are_put_back_to_the_bit_before_the_optimizer_steps(network, batch, name, precision):
    before = state(network)
    objective = OBJECTIVES[name](awp=0.01)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss, _ = objective(network, *batch)
            loss.backward()
            assert "head.weight" in differing(network, before)
            objective.after_backward(network)
        assert not differing(network, before) & {key for key, _ in network.named_parameters()}


def test_a_step_that_was_broken_off_leaves_nothing_that_the_next_would_keep(network, batch):
    before = state(network)
    objective = OBJECTIVES["pgd"](awp=0.01)
    objective(network, *batch)  # no backward pass: an exception, say
    objective(network, *batch)[0].backward()
    objective.after_backward(network)
    assert not differing(network, before) & {key for key, _ in network.named_parameters()}


def test_running_statistics_know_one_pass_as_without_it(network, batch):
    other = copy.deepcopy(network)
    for net, awp in ((network, 0.01), (other, 0.0)):
        OBJECTIVES["standard"](awp=awp)(net, *batch)
    for name in ("features.0.1.num_batches_tracked",):
        assert network.get_buffer(name) == other.get_buffer(name)
