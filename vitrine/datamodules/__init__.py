"""Data sets, one source a file. A new one is a file here, a line below, and a test."""

from typing import Any

from vitrine.core.references import check_reference, is_reference
from vitrine.core.registry import Registry

DATA = Registry(
    "data set",
    {
        "signs": "vitrine.datamodules.signs:Signs",
        "objects": "vitrine.datamodules.objects_source:Objects",
        "mnist": "vitrine.datamodules.torchvision_sets:MNIST",
        "fashion_mnist": "vitrine.datamodules.torchvision_sets:FashionMNIST",
        "cifar10": "vitrine.datamodules.torchvision_sets:CIFAR10",
        "cifar100": "vitrine.datamodules.torchvision_sets:CIFAR100",
        "svhn": "vitrine.datamodules.torchvision_sets:SVHN",
        "stl10": "vitrine.datamodules.torchvision_sets:STL10",
        "imagenette": "vitrine.datamodules.torchvision_sets:Imagenette",
        "imagenet": "vitrine.datamodules.torchvision_sets:ImageNet",
        "folder": "vitrine.datamodules.folder:Folder",
        "csv": "vitrine.datamodules.csv_source:CSV",
        "hf": "vitrine.datamodules.hf_source:HF",
        "webdataset": "vitrine.datamodules.webdataset_source:WebDataset",
        "streaming": "vitrine.datamodules.streaming:Streaming",
    },
)

# of those that are drawn: what makes a split by settings, seed and name, without importing Lightning
DRAWN = Registry(
    "drawn data set",
    {
        "signs": "vitrine.datamodules.sign_images:make_split",
        "objects": "vitrine.datamodules.object_images:make_split",
    },
)

OWN = "vitrine.datamodules.own_data:OwnData"  # of a name that is a reference


def source_place(name: str) -> Any:
    """Where the data module of a name is, as "module:Class": a registered one, or that of somebody's own
    LightningDataModule.

    Raises:
        UnknownName: there is none.
        BadReference: the reference cannot lead anywhere.
    """
    if not is_reference(name):
        DATA.check(name)
        return DATA.places[name]
    check_reference(name)
    return OWN


def source(name: str) -> Any:
    """The data module of a name, see `source_place`."""
    return Registry("data module", {name: source_place(name)})[name]
