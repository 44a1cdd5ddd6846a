"""Vitrine in a Lightning script of your own, by one line: `AnalyzeCheckpoints()`.

    python examples/lightning_callback.py [epochs]

The script is as tutorials have it. The pictures are on the page that its last line names.
"""

import sys

import lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vitrine import AnalyzeCheckpoints
from vitrine.datamodules.signs import CLASSES, SignImages  # only for images that need no download


class Signs(Dataset):
    classes = CLASSES
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])

    def __init__(self, seed: int, size: int):
        self.images, self.labels = SignImages(seed, size, image_size=32).batch(torch.arange(size))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), int(self.labels[index])


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
        self.model = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES))
        )

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 3e-3)


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=[AnalyzeCheckpoints()])  # the one line
    trainer.fit(Classifier(), DataLoader(Signs(0, 1024), 64, shuffle=True), DataLoader(Signs(1, 256), 64))
