"""Success rates on a real network and real images, beside torchattacks'."""

import io
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitrine.attacks import APGD, PGD, is_adversarial
from vitrine.modules import load_network

COUNT, EPS = 48, 0.5 / 255


def cifar10(shared: Path, count: int) -> tuple[Tensor, Tensor]:
    """Test images and labels, taken in turn from the classes in alphabetical order."""
    names, found = None, {}
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if len(parts) == 4 and parts[1] == "test":
                own = found.setdefault(parts[2], [])
                if len(own) < -(-count // 10):
                    with Image.open(io.BytesIO(archive.extractfile(member).read())) as image:
                        own.append(torch.from_numpy(np.array(image.convert("RGB"))))
    names = sorted(found)
    assert len(names) == 10
    pairs = [
        (image, label) for images in zip(*(found[n] for n in names)) for label, image in enumerate(images)
    ]
    images, labels = zip(*pairs[:count])
    return torch.stack(images).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


@pytest.fixture(scope="module")
def network(shared) -> nn.Module:
    return load_network("resnet20", classes=10, weights=shared / "weights" / "resnet20-cifar10.pt").eval()


@pytest.fixture(scope="module")
def batch(shared, network) -> tuple[Tensor, Tensor]:
    """Images that stand at first."""
    images, labels = cifar10(shared, 2 * COUNT)
    right = ~is_adversarial(network, images, labels)
    assert right.float().mean() > 0.6
    return images[right][:COUNT], labels[right][:COUNT]


def within_chance(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two success rates differ by less than three binomial standard errors of their difference."""
    p = torch.cat([ours, theirs]).float().mean().item()
    error = math.sqrt(2 * max(p * (1 - p), 1 / len(ours)) / len(ours))
    return abs(ours.float().mean() - theirs.float().mean()) < 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("early_stop", [True, False])
def test_pgd_succeeds_as_often_as_torchattacks(network, batch, early_stop):
    torchattacks = pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    theirs = is_adversarial(
        network, torchattacks.PGD(network, eps=EPS, alpha=EPS / 4, steps=8)(*batch), batch[1]
    )
    ours = is_adversarial(network, PGD(eps=EPS, steps=8, early_stop=early_stop)(network, *batch), batch[1])
    assert 0.1 < theirs.float().mean() < 0.9
    assert within_chance(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_succeeds_as_often_as_torchattacks(network, batch, loss):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.APGD(network, eps=EPS, steps=8, loss=loss)(*batch)
    ours = APGD(eps=EPS, steps=8, loss=loss)(network, *batch)
    success = [is_adversarial(network, ended, batch[1]) for ended in (ours, theirs)]
    assert 0.1 < success[1].float().mean() < 0.9
    assert within_chance(*success)


@pytest.mark.slow
def test_nothing_stands_at_8_of_255(network, batch):
    images, labels = batch
    assert is_adversarial(network, PGD(steps=20)(network, images, labels), labels).all()
