import logging

import pytest
import torch
from torch import nn

from vitrine.modules import OBJECTIVES


class Light(nn.Module):
    """Tells bright from dark images by their mean; `tail` adds a part that any perturbation turns."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1))
        self.tail = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        mean = (images - 0.5).flatten(1).mean(1)
        waves = images.flatten(1).mul(1e3).sin().sum(1, keepdim=True)
        bright = self.scale * mean[:, None] + self.tail * waves
        return torch.cat([-bright, bright], 1)


@pytest.fixture
def bright_and_dark():
    labels = torch.arange(16) % 2
    images = 0.25 + 0.5 * labels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    return images.clone(), labels


def collapse(network):
    network.tail.data.fill_(1.0)


def recover(network):
    network.tail.data.zero_()


def test_the_guard_falls_back_to_pgd_when_robustness_collapses(bright_and_dark, caplog):
    objective, network = OBJECTIVES["fast"](guard_every=2, fallback_steps=7), Light()
    passes = []
    network.register_forward_pre_hook(lambda *_: passes.append(1))

    def asked():
        passes.clear()
        objective(network, *bright_and_dark)
        return len(passes)

    look = 5 + 1  # PGD-5 and the verdict
    assert [asked() for _ in range(4)] == [look + 2, 2, look + 2, 2]
    assert objective.guard.best == 1.0 and not caplog.records
    collapse(network)
    with caplog.at_level(logging.WARNING):
        assert asked() == look + 7 + 1
    assert "catastrophic overfitting at step 4: accuracy under PGD-5 fell from 100 %" in caplog.text
    recover(network)
    assert [asked() for _ in range(2)] == [8, 8]  # for the rest of the run, and no more looking
    assert len(caplog.records) == 1


def test_a_resumed_guard_knows_what_the_cut_one_knew(bright_and_dark, tmp_path):
    images, labels = bright_and_dark
    network, objective = Light(), OBJECTIVES["fast"](guard_every=1, guard_images=6)
    objective(network, images, labels)
    torch.save(objective.state_dict(), tmp_path / "state.pt")
    resumed = OBJECTIVES["fast"](guard_every=1, guard_images=6)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(resumed.guard.images, images[:6]) and resumed.guard.best == 1.0
    collapse(network)
    resumed(network, images, labels)
    again = OBJECTIVES["fast"]()
    again.load_state_dict(resumed.state_dict())
    assert resumed.guard.detected and again.guard.detected


def test_without_a_guard_nothing_is_looked_at(bright_and_dark):
    objective, network = OBJECTIVES["fast"](guard_every=0), Light()
    objective(network, *bright_and_dark)
    collapse(network)
    objective(network, *bright_and_dark)
    assert not objective.guard.detected and objective.guard.images is None


def test_a_small_drop_is_no_collapse(bright_and_dark, monkeypatch):
    objective, network = OBJECTIVES["fast"](guard_every=1), Light()
    accuracies = iter([0.6, 0.9, 0.71, 0.8, 0.69])
    monkeypatch.setattr(objective.guard, "accuracy", lambda _: next(accuracies))
    tripped = []
    for _ in range(5):
        objective(network, *bright_and_dark)
        tripped.append(objective.guard.detected)
    assert tripped == [False, False, False, False, True]
