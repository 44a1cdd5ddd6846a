"""Networks and images that attacks are timed on, and the eps at which a share of these stands."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitrine.attacks import PGD, is_adversarial
from vitrine.core.random_numbers import permutation
from vitrine.modules import load_checkpoint, load_network


def run_subject(run: Path, count: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A run's last network and a seeded draw of its validation images, with their labels."""
    from vitrine import assembly, config

    data = assembly.build_data(config.load_saved(run, []))
    data.prepare_data()
    data.setup("fit")
    rows = permutation(len(data.val), 0)[:count].sort().values.tolist()
    images, labels = zip(*(data.val[row][:2] for row in rows))
    images = torch.stack(images)
    images = images if images.is_floating_point() else images.float() / 255
    network = load_checkpoint(run / "checkpoints" / "last.ckpt").requires_grad_(False)
    return network.to(device), images.to(device), torch.tensor(labels, device=device)


def subject(count: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, frozen, the images, and the network's own answers."""
    shared = Path(os.environ.get("VITRINE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    weights = shared / "weights" / "resnet20-cifar10.pt"
    archive = shared / "data" / "cifar10-jpeg.tar.xz"
    torch.manual_seed(0)
    network = load_network("resnet20", classes=10, weights=weights if weights.exists() else None)
    network = network.to(device).eval().requires_grad_(False)
    images = from_archive(archive, count) if archive.exists() else torch.rand(count, 3, 32, 32)
    images = images.to(device)
    with torch.no_grad():
        return network, images, network(images).argmax(1)


def from_archive(archive: Path, count: int) -> Tensor:
    """Test images of CIFAR-10 as they come in the archive, [count, 3, 32, 32]."""
    found = []
    with tarfile.open(archive) as members:
        for member in members:
            if "/test/" in member.name and member.isfile():
                with Image.open(io.BytesIO(members.extractfile(member).read())) as image:
                    found.append(torch.from_numpy(np.array(image.convert("RGB"))))
                if len(found) == 20 * count:
                    break
    images = torch.stack(found[:: max(1, len(found) // count)][:count])
    return images.permute(0, 3, 1, 2).float() / 255


def middling(network: nn.Module, images: Tensor, labels: Tensor, share: float) -> float:
    """An eps that leaves about this share standing under PGD-20, by bisection."""
    low, high = 0.0, 16 / 255
    for _ in range(9):
        eps = (low + high) / 2
        stand = ~is_adversarial(network, PGD(eps=eps, steps=20)(network, images, labels), labels)
        low, high = (eps, high) if stand.float().mean() > share else (low, eps)
    return (low + high) / 2
