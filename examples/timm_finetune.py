"""Fine-tune a network of timm, and see what the training changes.

    pip install timm
    python examples/timm_finetune.py [resnet18.a1_in1k] [--pretrained]

`--pretrained` fetches timm's weights from its hub. The data are normalised as the network was trained, which
Vitrine reads off the transform.
"""

import sys

import lightning
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vitrine import AnalyzeCheckpoints
from vitrine.datamodules.signs import CLASSES, SignImages  # only for images that need no download


class Signs(Dataset):
    classes = CLASSES

    def __init__(self, seed: int, size: int, data: dict):
        normalise = v2.Normalize(data["mean"], data["std"])
        self.images, self.labels = SignImages(seed, size, image_size=64).batch(torch.arange(size))
        self.transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), normalise])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), int(self.labels[index])


class FineTune(lightning.LightningModule):
    def __init__(self, name: str, pretrained: bool):
        super().__init__()
        self.model = timm.create_model(name, pretrained=pretrained, num_classes=len(CLASSES))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    module = FineTune(words[0] if words else "resnet18.a1_in1k", "--pretrained" in sys.argv)
    data = timm.data.resolve_model_data_config(module.model)
    trainer = lightning.Trainer(max_epochs=2, callbacks=[AnalyzeCheckpoints(analyses=["examples", "cam"])])
    trainer.fit(
        module, DataLoader(Signs(0, 512, data), 32, shuffle=True), DataLoader(Signs(1, 128, data), 32)
    )
