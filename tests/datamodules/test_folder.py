import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.io import decode_image
from torchvision.transforms import v2

from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.files import ImageFiles
from vitrine.datamodules.folder import Folder, FolderSettings


def write(folder, name, colour, size=(12, 12)):
    folder.mkdir(parents=True, exist_ok=True)
    noise = torch.randint(0, 60, (3, size[1], size[0]), generator=torch.Generator().manual_seed(len(name)))
    pixels = (noise + torch.tensor(colour)[:, None, None]).to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)


COLOURS = {"blue": (0, 0, 190), "red": (190, 0, 0)}


def classes_under(folder, count, **how):
    for label, colour in COLOURS.items():
        for i in range(count):
            write(folder / label, f"{label}{i}.png", colour, **how)


@pytest.fixture
def pictures(tmp_path):
    classes_under(tmp_path / "train", 6)
    classes_under(tmp_path / "val", 2)
    return tmp_path


def opened(root, **how):
    data = Folder(FolderSettings(root=str(root), **{"batch_size": 4, "workers": 0} | how))
    data.setup()
    return data


@pytest.mark.parametrize("cache", ["auto", "never"])
def test_images_and_labels_are_imagefolders(pictures, cache):
    data, expected = opened(pictures, cache=cache), ImageFolder(pictures / "train")
    assert data.classes == expected.classes == ["blue", "red"]
    assert (len(data.train), len(data.val), data.image_size, data.channels) == (12, 4, 12, 3)
    assert data.facts() == {"image size": "12, as the files have it"}
    assert data.train.labels.tolist() == expected.targets
    images, labels = data.train.batch(torch.arange(12))
    for i, (image, label) in enumerate(expected):
        assert torch.equal(images[i], v2.functional.pil_to_tensor(image)) and labels[i] == label
        item = data.train[i]
        assert torch.equal(item[0], images[i]) and item[1] == label
        assert pictures / data.train.path(i) == Path(expected.samples[i][0])
        assert data.train.path(i).startswith("train/")


def test_a_folder_is_found_again_from_everywhere(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    data = opened(pictures.name)
    assert data.settings.root == str(pictures) and len(data.train) == 12


def test_a_test_folder_serves_for_validation_only_if_asked(pictures):
    (pictures / "val").rename(pictures / "test")
    data = opened(pictures, val_from="test")
    assert (len(data.train), len(data.val), data.has_test) == (12, 4, False)


@pytest.mark.parametrize("cache", ["auto", "never"])
def test_a_test_folder_is_held_out_and_prepared_as_validation_is(pictures, cache, monkeypatch):
    classes_under(pictures / "test", 3, size=(18, 15))
    read, encoded = [], ImageFiles.encoded
    monkeypatch.setattr(
        ImageFiles, "encoded", lambda files, i: read.append(files.files[i]) or encoded(files, i)
    )
    data = opened(pictures, image_size=8, cache=cache)
    list(data.train_dataloader()), list(data.val_dataloader())
    assert data.has_test and read and not any("test" in file.parts for file in read)
    read.clear()
    batches = list(data.test_dataloader())
    assert len(read) == len(set(read)) == 6 and all("test" in file.parts for file in read)
    expected = opened_as_validation(pictures / "test", image_size=8)
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected.val.images)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), expected.val.labels)


def opened_as_validation(root, **how):
    return opened(root, val_fraction=1, **how)


def test_a_test_set_is_held_out_where_there_is_none(tmp_path):
    classes_under(tmp_path, 10)
    data = opened(tmp_path, cache="never", val_fraction=0.2, test_fraction=0.3)
    files = [data.train.files, data.val.files, data.test_split().files]
    assert [len(split) for split in files] == [10, 4, 6] and len(set().union(*files)) == 20
    assert data.test_split().labels.bincount().tolist() == [3, 3]


def test_one_folder_is_split_by_a_seed(tmp_path):
    classes_under(tmp_path, 10)
    data = opened(tmp_path, cache="never", val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (14, 6)
    assert len(set(data.train.files) | set(data.val.files)) == 20
    assert opened(tmp_path, cache="never", val_fraction=0.3).val.files == data.val.files
    assert opened(tmp_path, cache="never", val_fraction=0.3, split_seed=1).val.files != data.val.files


def test_all_images_may_be_held_out_to_look_at(tmp_path):
    classes_under(tmp_path, 3)
    data = opened(tmp_path, val_fraction=1)
    assert (len(data.train), len(data.val)) == (0, 6) and len(data.mean) == 3
    assert sum(len(batch.labels) for batch in data.val_dataloader()) == 6


def test_statistics_are_counted_in_memory(pictures):
    data = opened(pictures)
    pixels = data.train.images.double().div(255).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(data.mean).double(), pixels.mean(1))
    torch.testing.assert_close(torch.tensor(data.std).double(), pixels.std(1, correction=0))


def test_photographs_are_made_small_and_square_as_torchvision_does(tmp_path):
    classes_under(tmp_path / "train", 1, size=(90, 60))
    classes_under(tmp_path / "val", 1, size=(50, 70))
    data = opened(tmp_path, image_size=28, resize=32)
    pipeline = v2.Compose([v2.Resize(32), v2.CenterCrop(28), v2.PILToTensor()])
    expected, _ = ImageFolder(tmp_path / "val", pipeline)[1]
    assert torch.equal(data.val[1][0], expected)


def test_images_may_be_read_as_grayscale(pictures):
    data = opened(pictures, channels=1)
    assert data.train[0][0].shape == (1, 12, 12) and len(data.mean) == len(data.std) == 1


def test_training_from_disk_crops_at_random_by_seed_and_index(tmp_path):
    classes_under(tmp_path, 8, size=(40, 30))
    how = {"image_size": 16, "cache": "never", "augment": Augment(random_resized_crop=0.2), "batch_size": 6}
    before = torch.get_rng_state()
    batches = [list(opened(tmp_path, workers=workers, **how).train_dataloader()) for workers in (0, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    for alone, shared in zip(*batches, strict=True):
        assert torch.equal(alone.images, shared.images)
    data = opened(tmp_path, **how)
    whole, _ = data.train.batch(batches[0][0].indices)
    assert not torch.equal(whole, batches[0][0].images)
    prepared = data.preprocess(batches[0][0], train=True)  # not cropped a second time
    assert torch.equal(prepared.images, batches[0][0].images / 255)


def spoil(folder):
    file = folder / "train" / "red" / "red2.png"
    file.write_bytes(file.read_bytes()[:100])
    return file


@pytest.mark.slow
def test_a_corrupt_image_is_reported_with_its_path(pictures):
    file = spoil(pictures)
    with pytest.raises(SettingError, match=r"data.root: .*red2\.png cannot be read.*data\.skip_corrupt=true"):
        opened(pictures)
    lazily = opened(pictures, cache="never", workers=1)
    with pytest.raises(UnreadableImage, match=r"red2\.png cannot be read as an image"):
        for _ in range(3):
            list(lazily.train_dataloader())
    assert file.exists()


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["auto", "never"])
def test_a_corrupt_image_is_left_out_when_asked(pictures, cache, caplog):
    spoil(pictures)
    data = opened(pictures, skip_corrupt=True, cache=cache)
    assert len(data.train) == 11 and data.train.labels.tolist() == [0] * 6 + [1] * 5
    assert "red2.png" in caplog.text
    data.train.batch(torch.arange(11))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda root: None, "is missing; expected ROOT/train/CLASS"),
        (lambda root: root.write_text(""), "is not a folder"),
        (lambda root: root.mkdir(), "holds no folder a class"),
        (lambda root: (root / "cat").mkdir(parents=True), "holds no images"),
        (lambda root: classes_under(root / "train", 1), "neither val/ nor test/"),
        (
            lambda root: (
                classes_under(root / "train", 1),
                write(root / "val" / "green", "a.png", (0, 90, 0)),
            ),
            "class 'green', which train/ has not",
        ),
    ],
)
def test_a_folder_that_will_not_do_is_answered_by_what_is_expected(tmp_path, build, message):
    root = tmp_path / "data"
    build(root)
    with pytest.raises(SettingError, match=message) as caught:
        opened(root)
    assert caught.value.key == "data.root"


def test_no_folder_at_all_is_answered_alike():
    with pytest.raises(SettingError, match=r"data.root: is not set; expected ROOT/train"):
        Folder().setup()


def test_sizes_that_differ_ask_for_one(tmp_path):
    classes_under(tmp_path, 1, size=(20, 20))
    write(tmp_path / "red", "odd.png", (1, 1, 1), size=(20, 22))
    with pytest.raises(SettingError, match=r"data.image_size: is 0, but the images are 20 x 20, 20 x 22"):
        opened(tmp_path)
    with pytest.raises(SettingError, match=r"data.resize: is 8, expected at least data.image_size, 16"):
        opened(tmp_path, image_size=16, resize=8)


def test_cifar10_photographs_are_read(shared, tmp_path):
    wanted, root = 12, tmp_path / "cifar10-jpeg"
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.xz") as archive:
        found = {}
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                folder = root.parent / member.name
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.write_bytes(archive.extractfile(member).read())
                found[folder.parent] = found.get(folder.parent, 0) + 1
            if sum(found.values()) >= wanted:
                break
    split = next(iter(found)).parent
    data = opened(split, val_fraction=0.5)
    assert data.image_size == 32 and len(data.train) + len(data.val) == wanted
    file = opened(split, val_fraction=0.5, cache="never").train.files[0]
    apart = (decode_image(str(file)).int() - data.train[0][0].int()).abs()
    assert apart.max() <= 3  # two decoders, two roundings
