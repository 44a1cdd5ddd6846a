"""Changes to a torchvision network for which its builder has no option: stem, input channels, head."""

from torch import Tensor, nn


def first_convolution(network: nn.Module) -> str:
    """Dotted name of the first convolution in order of definition, which is applied to the image."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name
    raise ValueError(f"{type(network).__name__} has no convolution")


def head_layer(network: nn.Module, classes: int | None) -> str:
    """Dotted name of the last linear layer or convolution, with one output a class unless that is None.

    Raises:
        ValueError: there is none.
    """
    for name, module in reversed(list(network.named_modules())):
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(module, (nn.Linear, nn.Conv2d)) and classes in (None, outputs):
            return name
    outputs = "" if classes is None else f" with {classes} outputs"
    raise ValueError(f"{type(network).__name__} has no last layer{outputs}")


def shrink_stem(network: nn.Module) -> None:
    """Change a stem for 224 pixels into one for small images, in place.

    The first convolution becomes 3x3 with stride 1, and the stem's max-pool, if any, is removed.

    Raises:
        ValueError: the network divides the image into patches, or its stem does not downsample.
    """
    kind = type(network).__name__
    if kind == "MaxVit":
        raise ValueError("stem=small: MaxViT's windows are tied to its stem and its image size")
    name = first_convolution(network)
    conv = network.get_submodule(name)
    if conv.stride == (1, 1):
        raise ValueError(f"stem=small: {kind} begins with a convolution of stride 1 already")
    if conv.kernel_size == conv.stride:
        patch = "x".join(map(str, conv.kernel_size))
        problem = f"cuts the image into patches of {patch}, there is no stem to shrink"
        raise ValueError(f"stem=small: {kind} {problem}")
    network.set_submodule(name, _convolution_like(conv, conv.in_channels, kernel=3))
    for name, module in network.named_modules():
        if isinstance(module, nn.MaxPool2d) and module.stride in (2, (2, 2)):  # those of branches have 1
            network.set_submodule(name, nn.Identity())
            break


def set_input_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels, in place."""
    name = first_convolution(network)
    conv = network.get_submodule(name)
    if conv.in_channels != channels:
        network.set_submodule(name, _convolution_like(conv, channels))


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weights [units, C, h, w] for images of another number of channels: added up for
    one, else repeated in turn and scaled by C / channels, so that outputs keep their size (as timm does)."""
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // given), 1, 1)[:, :channels]
    return repeated * (given / channels)


def _convolution_like(conv: nn.Conv2d, channels: int, kernel: int | None = None) -> nn.Conv2d:
    """A new convolution like `conv` for `channels` inputs; with `kernel`, of that size and stride 1."""
    size, stride, padding = conv.kernel_size, conv.stride, conv.padding
    if kernel is not None:
        size, stride, padding = (kernel, kernel), (1, 1), (kernel // 2, kernel // 2)
    new = nn.Conv2d(channels, conv.out_channels, size, stride, padding, bias=conv.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
