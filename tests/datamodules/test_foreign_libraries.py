"""Normalisations of albumentations, Kornia and Hugging Face's data sets, as those libraries keep them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from vitrine.datamodules.foreign import class_names, foreign_split

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.2)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
NORMALIZE = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


class Images(torch.utils.data.Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        return self.transform(PIXELS[index]), index % 2


def assert_unnormalised(split):
    images, labels = split.batch(torch.arange(len(PIXELS)))
    torch.testing.assert_close(images, EXPECTED, rtol=0, atol=1e-6)
    assert labels.tolist() == split.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert split.of_network.mean == pytest.approx(MEAN) and split.of_network.std == pytest.approx(STD)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": MEAN, "std": STD},
        {"mean": [255 * m for m in MEAN], "std": [255 * s for s in STD], "max_pixel_value": 1.0},
    ],
    ids=["fractions", "bytes"],
)
def test_normalisations_of_albumentations_are_undone(arguments):
    A = pytest.importorskip("albumentations", reason="albumentations is not installed")
    normalize = A.Compose([A.OneOf([A.HorizontalFlip(), A.VerticalFlip()], p=0), A.Normalize(**arguments)])
    data = Images(lambda pixels: torch.from_numpy(normalize(image=pixels)["image"]).permute(2, 0, 1))
    assert_unnormalised(foreign_split(DataLoader(data, 2)))


def test_a_normalisation_of_each_image_by_its_own_statistics_is_refused():
    A = pytest.importorskip("albumentations", reason="albumentations is not installed")
    normalize = A.Compose([A.Normalize(normalization="image")])
    data = Images(lambda pixels: torch.from_numpy(normalize(image=pixels)["image"]).permute(2, 0, 1))
    with pytest.raises(ValueError, match="by its own statistics, which cannot be undone"):
        foreign_split(DataLoader(data, 2))


@pytest.mark.parametrize("inside", [False, True])
def test_normalisations_of_kornia_are_undone(inside):
    K = pytest.importorskip("kornia.augmentation", reason="Kornia is not installed")
    normalize = K.Normalize(mean=MEAN, std=STD)
    if inside:
        normalize = K.AugmentationSequential(K.RandomHorizontalFlip(p=0.0), normalize, data_keys=["image"])
    data = Images(lambda pixels: normalize(torch.from_numpy(pixels).permute(2, 0, 1) / 255)[0])
    assert_unnormalised(foreign_split(DataLoader(data, 2)))


def transformed(items):
    return {"pixel_values": [NORMALIZE(image) for image in items["image"]], "labels": items["label"]}


def collated(items):
    images = torch.stack([NORMALIZE(item["image"]) for item in items])
    return {"pixel_values": images, "labels": torch.tensor([item["label"] for item in items])}


def test_data_sets_of_hugging_face_are_read_however_they_are_transformed():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    columns = {"image": [Image.fromarray(pixels) for pixels in PIXELS], "label": [0, 1] * 3}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for loader in (
        DataLoader(data.with_transform(transformed), 2),
        DataLoader(data, 2, collate_fn=collated),
        DataLoader(data.to_iterable_dataset(), 2, collate_fn=collated),
    ):
        assert_unnormalised(foreign_split(loader))
    assert class_names([data.with_transform(transformed)], 2) == ["cat", "dog"]
    with pytest.raises(ValueError, match="images are bytes"):
        foreign_split(DataLoader(data.with_format("torch"), 2))
