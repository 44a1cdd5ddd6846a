"""Where images come from, one source a file. A new one is a file here, a line below, and a test."""

from registry import Registry

DATA = Registry(
    "data set",
    {
        "signs": "datamodules.signs:Signs",
        "mnist": "datamodules.torchvision_sets:MNIST",
        "fashion_mnist": "datamodules.torchvision_sets:FashionMNIST",
        "cifar10": "datamodules.torchvision_sets:CIFAR10",
        "cifar100": "datamodules.torchvision_sets:CIFAR100",
        "svhn": "datamodules.torchvision_sets:SVHN",
        "stl10": "datamodules.torchvision_sets:STL10",
        "imagenette": "datamodules.torchvision_sets:Imagenette",
        "imagenet": "datamodules.torchvision_sets:ImageNet",
        "folder": "datamodules.folder:Folder",
        "streaming": "datamodules.streaming:Streaming",
    },
)
