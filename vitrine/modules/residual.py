"""Residual networks for small images: ResNet-20, PreAct ResNet-18 and WideResNet-28-10."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class SubsampleAndPad(nn.Module):
    """Option A of He 2016: every second pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.stride, self.pad = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm, added to the (option A) shortcut."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(before, after, stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = _conv3x3(after, after), nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else SubsampleAndPad(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The 6n+2 layer network of He 2016, section 4.2, for images of about 32 pixels; n, the blocks in each of
    the three stages, is 3 in ResNet-20."""

    def __init__(self, num_classes: int, channels: int = 3, blocks: int = 3):
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks is {blocks}, expected at least 1")
        self.conv1, self.bn1 = _conv3x3(channels, 16), nn.BatchNorm2d(16)
        for i, (before, after) in enumerate(((16, 16), (16, 32), (32, 64))):
            first = BasicBlock(before, after, 2 if i else 1)
            rest = (BasicBlock(after, after, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each 3x3 convolution (He 2016b); a 1x1 convolution where shapes change."""

    def __init__(self, before: int, after: int, stride: int, dropout: float = 0.0):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), _conv3x3(before, after, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), _conv3x3(after, after)
        self.dropout = nn.Dropout(dropout)
        same = stride == 1 and before == after
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(self.dropout(torch.relu(self.bn2(self.conv1(out))))) + shortcut


class PreActResNet(nn.Module):
    """Stages of pre-activation blocks, each after the first at half the side; batch norm and ReLU at the end.

    Args:
        stem: channels of the first convolution.
        widths: channels of each stage.
        blocks: blocks in each stage.
        dropout: between the convolutions of a block.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.conv1 = _conv3x3(channels, stem)
        for i, (before, after) in enumerate(zip([stem, *widths], widths)):
            first = PreActBlock(before, after, 2 if i else 1, dropout)
            rest = (PreActBlock(after, after, 1, dropout) for _ in range(blocks - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
        self.stages = len(widths)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.linear(self.pool(torch.relu(self.bn(x))).flatten(1))


def preact_resnet18(num_classes: int, channels: int = 3) -> PreActResNet:
    """PreAct ResNet-18 for small images (He 2016b), the usual network of adversarial training."""
    return PreActResNet(num_classes, channels, stem=64, widths=(64, 128, 256, 512), blocks=2)


def wide_resnet28_10(num_classes: int, channels: int = 3, dropout: float = 0.0) -> PreActResNet:
    """WideResNet-28-10 (Zagoruyko & Komodakis 2016): 28 layers, ten times as wide."""
    return PreActResNet(num_classes, channels, 16, widths=(160, 320, 640), blocks=4, dropout=dropout)
