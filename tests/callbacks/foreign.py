"""A training of somebody else's: modules, data and Trainer as tutorials have them."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Colours(Dataset):
    """Noise with a square of one colour."""

    classes = ("red", "green", "blue")

    def __init__(self, count=24, seed=0, transform=None):
        self.count, self.seed, self.transform = count, seed, transform

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image, label = torch.rand(3, 12, 16, generator=generator) / 2, index % 3
        image[label, 3:9, 3:9] += 0.5
        return (image if self.transform is None else self.transform(image)), label


def normalised(count=24, seed=0):
    return Colours(count, seed, v2.Compose([v2.Normalize(MEAN, STD)]))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Module(lightning.LightningModule):
    """As a tutorial writes it; draws random numbers in training, which analyses must not disturb."""

    def __init__(self, anything=None, model=None):
        super().__init__()
        self.save_hyperparameters(ignore="model")
        self.model = network() if model is None else model
        self.loss = nn.CrossEntropyLoss()

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = self.loss(self(images + 0.1 * torch.randn_like(images)), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loaders(train=None, val=None):
    return (
        DataLoader(normalised(24) if train is None else train, 8, shuffle=True),
        DataLoader(normalised(9, 1) if val is None else val, 8),
    )


def fit(folder, callbacks, module=None, data=None, ckpt_path=None, **options):
    """Train two epochs of three steps each; the module and the Trainer."""
    lightning.seed_everything(0, verbose=False)
    module = Module() if module is None else module
    given = {"logger": False, "max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder}
    silent = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(callbacks=callbacks, **{**given, **silent, **options})
    if isinstance(data, lightning.LightningDataModule):
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    else:
        trainer.fit(module, *(loaders() if data is None else data), ckpt_path=ckpt_path)
    return module, trainer
