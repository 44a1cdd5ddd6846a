"""One linear layer on the pixels: a classifier whose weight rows are pictures."""

from torch import Tensor, nn


class Perceptron(nn.Module):
    """Logits as a linear function of the pixels; `linear.weight[k]` viewed as [C, H, W] pictures class k."""

    def __init__(self, num_classes: int, image_size: int, channels: int = 3):
        super().__init__()
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}, expected at least 1")
        self.image_shape = (channels, image_size, image_size)
        self.linear = nn.Linear(channels * image_size * image_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images are {list(images.shape[1:])}, expected {list(self.image_shape)}")
        return self.linear(images.flatten(1))
