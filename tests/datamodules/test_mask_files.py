"""Masks and boxes of one's own: found by name, prepared as the images are, refused if they do not fit."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.core.settings import SettingError
from vitrine.datamodules.csv_source import CSV, CSVSettings
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.folder import Folder, FolderSettings
from vitrine.datamodules.mask_files import Boxes

SIZE = (12, 8)  # width, height


def painted(corners):
    """A mask that is 1 in one box (left, top, right, bottom)."""
    left, top, right, bottom = corners
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


BOX = (5, 2, 9, 6)


@pytest.fixture
def pictures(tmp_path):
    """Black images that are white where their mask is."""
    for split, count in (("train", 4), ("val", 1)):
        for name in ("cat", "dog"):
            for i in range(count):
                for root, levels in (("images", 255 * painted(BOX)), ("masks", painted(BOX))):
                    file = tmp_path / root / split / name / f"{i}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(levels).save(file)
    return tmp_path


def opened(pictures, **settings):
    given = {"root": str(pictures / "images"), "masks": str(pictures / "masks"), "image_size": 8}
    data = Folder(FolderSettings(**given | {"workers": 0, "channels": 1} | settings))
    data.setup()
    return data


@pytest.mark.parametrize("cache", ["always", "never"])
@pytest.mark.parametrize(
    "how", [{"fit": "crop"}, {"fit": "letterbox"}, {"fit": "stretch"}, {"resize": 10}], ids=str
)
def test_masks_are_resized_and_cropped_as_the_images_are(pictures, cache, how):
    data = opened(pictures, cache=cache, background="black", **how)
    indices = torch.arange(len(data.train))
    (name, masks), *_ = data.train.masks(indices).items()
    images, _ = data.train.batch(indices)
    assert name == "object" and torch.equal(masks, images[:, 0] > 127)
    assert masks.any((1, 2)).all() and not masks.all((1, 2)).any()


def test_any_number_but_zero_is_inside_whatever_the_format(pictures):
    place, expected = pictures / "masks/train/cat", torch.tensor(painted(BOX)[:, 2:10]) > 0
    mask = painted(BOX)
    colours = np.zeros((*mask.shape, 4), np.uint8)
    colours[..., 1], colours[..., 3] = mask * 7, 255
    seen = {
        "0": Image.fromarray(mask.astype(np.uint16) * 300),
        "1": Image.fromarray(colours),
        "2": Image.fromarray(mask * 3).convert("L").point(lambda v: v).convert("P"),
        "3": Image.fromarray(mask * 255).convert("1"),
    }
    seen["2"] = Image.fromarray(mask)
    seen["2"].putpalette([9, 9, 9, 0, 0, 0])
    for stem, image in seen.items():
        image.save(place / f"{stem}.png")
    (place / "3.png").unlink()
    np.save(place / "3.npy", mask > 0)
    (place / "2.png").rename(place / "2.tmp")
    seen["2"].save(place / "2.gif")
    (place / "2.tmp").unlink()
    masks = opened(pictures).train.masks(torch.arange(4))["object"]
    assert torch.equal(masks, expected.expand(4, -1, -1))


def test_what_is_transparent_is_outside_whatever_its_number(pictures):
    place, inside = pictures / "masks/train/cat", painted(BOX)
    expected = torch.tensor(inside[:, 2:10]) > 0
    indexed = Image.fromarray(np.where(inside, 5, 3).astype(np.uint8))
    indexed.putpalette([0, 0, 0, 9, 9, 9] * 3)
    indexed.save(place / "0.png", transparency=3)
    indexed.save(place / "1.png", transparency=bytes([255, 255, 255, 0]))  # of each index, opaque beyond
    Image.fromarray(np.where(inside, 7, 200).astype(np.uint8)).save(place / "2.png", transparency=200)
    Image.fromarray(inside == 0).save(place / "3.png", transparency=1)
    masks = opened(pictures).train.masks(torch.arange(4))["object"]
    assert torch.equal(masks[:3], expected.expand(3, -1, -1)) and not masks[3].any()


@pytest.mark.parametrize("key", ["root", "masks", "both"])
def test_paths_may_go_up_and_down_again(pictures, monkeypatch, key):
    (pictures / "here").mkdir()
    monkeypatch.chdir(pictures / "here")
    up = {"root": "../images", "masks": f"{pictures}/images/../masks"}
    data = opened(pictures, **(up if key == "both" else {key: up[key]}))
    assert data.train.masks(torch.arange(8))["object"].any((1, 2)).all()


def test_a_tiny_mask_keeps_the_pixel_that_it_covers_most(pictures):
    dot = np.zeros((8, 12), np.uint8)
    dot[3, 6] = 1
    Image.fromarray(dot).save(pictures / "masks/train/cat/0.png")
    masks = opened(pictures, image_size=2).train.masks(torch.arange(1))["object"]
    assert masks.sum() == 1


def test_what_is_missing_is_counted_and_has_an_empty_mask(pictures, caplog):
    (pictures / "masks/train/dog/2.png").unlink()
    Image.fromarray(painted(BOX)).save(pictures / "masks/train/dog/other.png")
    with caplog.at_level(logging.INFO):
        data = opened(pictures)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("masks")]
    assert len(said) == 1 and "9 of 10 images have one; 1 have none" in said[0] and "dog/2.png" in said[0]
    assert "1 masks are of none" in said[0]
    assert data.train.masks(torch.arange(8))["object"].any((1, 2)).tolist() == [True] * 6 + [False, True]


def voc(file, boxes, size=SIZE):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, (left, top, right, bottom) in boxes
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation>{shape}{objects}</annotation>")


def test_boxes_of_pascal_voc_and_coco_are_the_masks_that_they_cover(pictures):
    expected = opened(pictures).train.masks(torch.arange(8))["object"]
    names = [f"train/{name}/{i}" for name in ("cat", "dog") for i in range(4)] + ["val/cat/0", "val/dog/0"]
    for name in names:
        voc(pictures / "voc" / f"{name}.xml", [("thing", BOX)])
    found = opened(pictures, masks=str(pictures / "voc")).train.masks(torch.arange(8))["object"]
    assert torch.equal(found, expected)
    left, top, right, bottom = BOX
    table = {
        "images": [
            {"id": i, "file_name": f"{name}.png", "width": SIZE[0], "height": SIZE[1]}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}
            for i in range(len(names))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    file = pictures / "boxes.json"
    file.write_text(json.dumps(table))
    data = opened(pictures, masks=str(file))
    assert torch.equal(data.train.masks(torch.arange(8))["object"], expected)
    assert data.settings.masks == str(file)
    for image in table["images"]:
        image["file_name"] = image["file_name"].split("/")[-1]
    table["images"] = table["images"][:4]
    table["annotations"] = table["annotations"][:4]
    file.write_text(json.dumps(table))
    with pytest.raises(SettingError, match=r"is of 4 images.*expected names with the folders"):
        opened(pictures, masks=str(file))


def test_of_boxes_those_called_as_the_class_count_else_all():
    boxes = Boxes([(0, 0, 2, 2), (4, 4, 6, 6)], ["Dog", "cat"], (8, 8), "here")
    assert boxes.of("dog").corners == [(0, 0, 2, 2)] and len(boxes.of("bird").corners) == 2


def test_a_table_of_labels_has_masks_too(pictures):
    rows = [f"train/{name}/{i}.png,{name}" for name in ("cat", "dog") for i in range(4)]
    table = pictures / "images" / "labels.csv"
    table.write_text("\n".join(["file,label", *rows]))
    data = CSV(CSVSettings(file=str(table), masks=str(pictures / "masks"), image_size=8, workers=0))
    data.setup()
    assert data.train.masks(torch.arange(len(data.train)))["object"].any((1, 2)).all()
    assert data.val.masks(torch.arange(len(data.val)))["object"].any((1, 2)).all()


def changed(pictures, how):
    file = pictures / "masks/train/cat/0.png"
    if how == "size":
        Image.fromarray(painted(BOX).T.copy()).save(file)
    elif how == "garbage":
        file.write_bytes(b"no picture")
    elif how == "twice":
        file.with_suffix(".bmp").write_bytes(file.read_bytes())
    elif how == "elsewhere":
        (pictures / "masks/train").rename(pictures / "masks/Train")
        (pictures / "masks/val").rename(pictures / "masks/Val")
    elif how == "outside":
        file.unlink()
        voc(file.with_suffix(".xml"), [("cat", (3, 3, 30, 5))])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("size", "of 8 x 12 pixels, but the image .*0.png of 12 x 8; data.exif=false"),
        ("garbage", "cat/0.png cannot be read as a mask"),
        ("twice", "train/cat/0 has two masks.*expected one"),
        ("elsewhere", r"no mask of the 10 images: the first would be train/cat/0.\*, there is Train/cat/0"),
        ("outside", r"a box from \(3, 3\) to \(30, 5\) in an image of 12 x 8"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_a_line(pictures, how, said):
    changed(pictures, how)
    with pytest.raises(SettingError, match=said) as refused:
        opened(pictures)
    assert refused.value.key == "data.masks" and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "No such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:20]), "Truncated"),
    ],
    ids=["gone", "cut off"],
)
def test_an_image_that_cannot_be_read_any_more_is_named_when_its_size_is_asked_for(pictures, damage, said):
    data = opened(pictures, cache="never")
    file = pictures / "images/train/cat/0.png"
    damage(file)
    for ask in (lambda: data.train.masks(torch.arange(4)), lambda: data.train.decoding.size(file, file)):
        with pytest.raises(UnreadableImage, match=f"{file} cannot be read as an image .*{said}"):
            ask()


@pytest.mark.parametrize(
    ("place", "said"),
    [("nowhere", "is missing"), ("images/train/cat/0.png", "neither"), ("new", "no masks")],
)
def test_a_place_without_masks_is_refused(pictures, place, said):
    (pictures / "new").mkdir()
    with pytest.raises(SettingError, match=f"{said}.*expected a folder of masks"):
        opened(pictures, masks=str(pictures / place))


def test_a_split_without_images_has_no_masks(pictures):
    root, masks = (str(pictures / folder / "train") for folder in ("images", "masks"))
    data = opened(pictures, root=root, masks=masks, val_fraction=1.0)  # all
    assert len(data.train) == 0 and data.val.masks(torch.arange(8))["object"].any((1, 2)).all()
