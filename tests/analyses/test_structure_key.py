import copy
from collections import OrderedDict
from contextlib import nullcontext, suppress

import pytest
import torch
from foreign import Colours
from torch import nn

import vitrine
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.structure_key import structure_key

IMAGES = torch.rand(2, 3, 16, 16)


class Net(nn.Module):
    """Two convolutions, of which the logits may pass by the second, and a constant that is no parameter."""

    passes = 0

    def __init__(self, seed=0, short=False, width=4, gain=1.0, frozen=False):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.second, self.head = nn.Conv2d(width, width, 3, stride=2), nn.Linear(width, 3)
        self.short, self.gain, self.frozen = short, torch.tensor(gain), frozen
        self.norm.running_mean.normal_()

    def forward(self, images):
        Net.passes += 1
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.norm(self.first(images)).relu()
        maps, passed_by = self.second(maps), maps
        return self.head((passed_by if self.short else maps * self.gain).mean((2, 3)))


@pytest.mark.slow
def test_later_checkpoints_spare_the_search_and_have_the_pictures_that_it_gives(tmp_path, monkeypatch):
    def look(net, folder, step):
        Net.passes = 0
        data = Colours(4)
        report = vitrine.look(net, data, folder, step=step, analyses=["cam"], layers=["first"], probes=2)
        assert not report.errors
        return Net.passes, [figure.image for figure in report.results["cam"].figures]

    def forget():
        monkeypatch.setattr("vitrine.analyses.structure_key._known", OrderedDict())

    forget()
    searched, _ = look(Net(), tmp_path / "run", 0)
    spared, pictures = look(Net(seed=1), tmp_path / "run", 1)
    assert spared <= searched - 5
    other, _ = look(Net(seed=1, short=True), tmp_path / "run", 2)  # the same modules and weights
    assert other >= spared + 5
    forget()
    again, expected = look(Net(seed=1), tmp_path / "anew", 1)  # as analyze.py, in another process
    assert again == searched
    assert len(pictures) == len(expected) and all((a == b).all() for a, b in zip(pictures, expected))


def test_an_answer_is_that_of_the_structure_it_is_asked_of():
    assert last_spatial_layer(Net(), IMAGES) == last_spatial_layer(Net(seed=3), IMAGES) == "second"
    net = Net()
    net.short = True
    assert last_spatial_layer(net, IMAGES) == "norm"
    for _ in range(2):
        with pytest.raises(NoSpatialLayer):
            last_spatial_layer(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), IMAGES)


def test_training_changes_no_key_and_whatever_else_changes_a_pass_does():
    net = Net()
    key = structure_key(net, IMAGES)
    assert key == structure_key(Net(seed=5), IMAGES) == structure_key(net, torch.rand(1, 3, 16, 16))
    retyped = copy.deepcopy(net)
    retyped.norm.__class__ = type("Norm", (nn.BatchNorm2d,), {})
    wrapped = copy.deepcopy(net)
    wrapped.second = nn.Sequential(wrapped.second)
    others = [Net(short=True), Net(width=5), Net(gain=2.0), Net(frozen=True)]
    others += [retyped, wrapped, copy.deepcopy(net).double()]
    keys = [structure_key(other, IMAGES.to(other.head.weight.dtype)) for other in others]
    keys.append(structure_key(net, torch.rand(1, 3, 16, 17)))
    assert len({key, *keys}) == len(keys) + 1 and None not in keys


def test_random_numbers_are_as_they_were_found_or_remembered():
    class Noisy(Net):
        def forward(self, images):
            return super().forward(images + torch.rand_like(images))

    net, before = Noisy(), torch.get_rng_state()
    for _ in range(2):
        with suppress(NoSpatialLayer):
            last_spatial_layer(net, IMAGES)
        assert torch.equal(torch.get_rng_state(), before)
