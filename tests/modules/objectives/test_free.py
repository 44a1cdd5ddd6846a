import copy

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from vitrine.modules import OBJECTIVES, Classifier, OptimizerSettings

EPS = 8 / 255


def test_each_batch_is_replayed_and_one_backward_pass_serves_weights_and_perturbation(
    network, batch, tmp_path
):
    images, labels = batch
    halves = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    reference = [p.detach().clone() for p in network.parameters()]
    objective = OBJECTIVES["free"](replays=4)
    sgd = OptimizerSettings("sgd", lr=0.01, momentum=0, nesterov=False, weight_decay=0, schedule="constant")
    classifier = Classifier(network, objective, sgd, list("abcd"))

    by_hand = copy.deepcopy(network)
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.01)
    delta = torch.zeros(3, 3, 8, 8)
    for half, its in halves:
        for _ in range(4):
            delta.requires_grad_()
            optimizer.zero_grad()
            F.cross_entropy(by_hand((half + delta).clamp(0, 1)), its).backward()
            optimizer.step()
            delta = (delta.detach() + EPS * delta.grad.sign()).clamp(-EPS, EPS)

    passes = []
    network.register_forward_pre_hook(lambda *_: passes.append(1))
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **options
    )
    trainer.fit(classifier, DataLoader(TensorDataset(images, labels), batch_size=3))
    assert len(passes) == 2 * 4 and trainer.global_step == 2
    assert torch.equal(objective.delta, delta) and delta.abs().max() <= EPS
    for mine, theirs, old in zip(network.parameters(), by_hand.parameters(), reference):
        assert torch.equal(mine, theirs) and not torch.equal(mine, old)


def test_the_perturbation_survives_a_checkpoint_and_a_batch_of_another_size(network, batch):
    images, labels = batch
    objective, resumed = OBJECTIVES["free"](), OBJECTIVES["free"]()
    objective(network, images, labels)[0].backward()
    objective.after_backward(network)
    resumed.load_state_dict(objective.state_dict())
    assert objective.delta.abs().max() > 0
    network.eval()
    assert resumed(network, images, labels)[0] == objective(network, images, labels)[0]
    objective(network, images[:2], labels[:2])
    assert objective.delta.shape == (2, 3, 8, 8)
    assert OBJECTIVES["free"]().state_dict() == {}


@pytest.mark.parametrize(("saved", "expected"), [(2, [0, 1]), (3, [0, 1]), (1, [0, 0]), (0, [0, 0])])
def test_each_rank_takes_its_own_perturbation_from_a_checkpoint(network, monkeypatch, saved, expected):
    states = [{"delta": torch.full((2, 3, 8, 8), 0.01 * number)} for number in range(max(saved, 1))]
    checkpoint = {"vitrine": {"objective": states if saved else states[0]}}  # earlier ones hold one state
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_, rank=rank: rank)
        classifier = Classifier(network, OBJECTIVES["free"](), OptimizerSettings(), list("abcd"))
        classifier.on_load_checkpoint(checkpoint)
        assert torch.equal(classifier.objective.delta, states[expected[rank]]["delta"])
