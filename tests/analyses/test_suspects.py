import csv
import io

import pytest
import torch
from torch import nn

from vitrine.analyses.base import Figure, File, Probes, Subject
from vitrine.analyses.samples import Samples
from vitrine.analyses.suspects import auc
from vitrine.datamodules.memory import InMemory


def test_auc_counts_pairs_in_the_right_order():
    scores, positive = (
        torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0]),
        torch.tensor([True, False, True, False, False]),
    )
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(float(sum(pairs)) / len(pairs))
    assert auc(scores, positive & False) is None


def test_of_a_large_head_images_of_unknown_self_influence_are_not_ranked(monkeypatch):
    monkeypatch.setattr("vitrine.analyses.suspect_figures.IN_FILE", 6)
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 700), nn.Tanh())
    network = network.append(nn.Linear(700, 3)).eval().requires_grad_(False)
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    data, probes = (
        InMemory(images, torch.arange(40) % 3),
        Probes(images[:2] / 255, torch.arange(2), torch.arange(2)),
    )
    subject = Subject(network, probes, data, list("abc"), {}, train=data)
    found = list(Samples(candidates=3, shown=4, probes=1, side=16)(subject))
    (file,) = (item for item in found if isinstance(item, File))
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [row["self_influence_rank"] for row in rows[:3]] == ["1", "2", "3"]
    assert all(row["self_influence"] for row in rows[:3])
    assert {row["self_influence_rank"] + row["self_influence"] for row in rows[3:]} == {""}
    places = [int(row["loss_rank"]) for row in rows]
    assert set(range(1, 7)) == {place for place in places if place <= 6}
    assert all(place <= 6 for place in places[3:]) and places[3:] == sorted(places[3:])
    (figure,) = (item for item in found if isinstance(item, Figure) and "self-influence" in item.key)
    assert len(figure.indices) == 3 and all(score == score for score in figure.scores)
