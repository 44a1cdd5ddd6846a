"""Vitrine in a training loop without Lightning: `vitrine.look` once an epoch.

python examples/plain_loop.py [epochs]
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vitrine
from vitrine.datamodules.signs import CLASSES, SignImages  # only for images that need no download


def signs(seed: int, size: int) -> TensorDataset:
    images, labels = SignImages(seed, size, image_size=32).batch(torch.arange(size))
    return TensorDataset(images / 255, labels)  # pixels in [0, 1]: nothing to un-normalise


def main(epochs: int = 5, folder: str = "runs/plain-loop") -> None:
    train, val = signs(0, 1024), signs(1, 256)
    layers = [nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES)))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    step = 0
    for epoch in range(epochs):
        network.train()
        for images, labels in DataLoader(train, 64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            step += 1
        network.eval()
        with torch.no_grad():
            accuracy = (network(val.tensors[0]).argmax(1) == val.tensors[1]).float().mean().item()
        report = vitrine.look(
            network, val, folder, step=step, classes=CLASSES, metrics={"val/accuracy": accuracy}
        )
        print(f"epoch {epoch}: {accuracy:.1%}, {report.figures} pictures on {report.page}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
