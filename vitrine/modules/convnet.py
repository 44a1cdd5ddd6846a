"""The small network of the default run: five convolutions, global average pooling, one linear layer."""

from collections.abc import Sequence

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Convolution, batch norm and ReLU, five times; strided early, to be fast on two CPU cores.

    The first layer is 7x7 so that its filters are pictures; the last map is an eighth of the image's side,
    and global average pooling with a linear layer after it is what CAM (Zhou 2016) needs.

    Args:
        widths: channels after each convolution. The first two, then every second one, halve the side.
    """

    def __init__(self, num_classes: int, channels: int = 3, widths: Sequence[int] = (16, 32, 64, 96, 128)):
        super().__init__()
        if len(widths) < 1 or any(w < 1 for w in widths):
            raise ValueError(f"widths is {list(widths)}, expected one positive number a convolution")
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip([channels, *widths], widths)):
            kernel, stride = 3 if i else 7, 2 if i < 2 or i % 2 else 1
            conv = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))
