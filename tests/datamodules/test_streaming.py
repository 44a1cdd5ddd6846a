import os
import pickle
import shutil
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.cli.arguments import run_command
from vitrine.cli.convert import Settings, convert
from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.folder import Folder, FolderSettings
from vitrine.datamodules.streaming import Streaming, StreamingSettings

pytest.importorskip("litdata", reason="litdata is not installed")


def picture(file, seed, size=(20, 14)):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "folder"
    for i in range(40):
        picture(root / "train" / f"class{i % 3}" / f"{i:02d}.jpg", i)
    for i in range(9):
        picture(root / "val" / f"class{i % 3}" / f"{i:02d}.png", 100 + i)
    return root


@pytest.fixture(scope="module")
def chunks(folder):
    """Converted into chunks of a few images each."""
    out = folder.parent / "chunks"
    with pytest.MonkeyPatch.context() as patch:  # chunks are of MiB, and these pictures of bytes
        patch.setattr("vitrine.cli.convert._MIB", 1024)
        convert(folder, out, Settings(chunk_mib=6))
    return out


def opened(root, **how):
    how = {"image_size": 12, "batch_size": 4, "workers": 0, "window": 2} | how
    data = Streaming(StreamingSettings(root=None if root is None else str(root), **how))
    data.setup()
    return data


def batches(loader):
    return [(batch.indices.tolist(), batch.images) for batch in loader]


def same(some, others):
    return len(some) == len(others) and all(
        i == j and torch.equal(x, y) for (i, x), (j, y) in zip(some, others)
    )


@pytest.mark.slow
def test_a_test_split_is_held_out(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "folder")
    for i in range(6):
        picture(tmp_path / "folder" / "test" / f"class{i % 3}" / f"{i}.png", 200 + i)
    index = convert(tmp_path / "folder", tmp_path / "chunks")
    assert index["splits"]["test"]["labels"] == [0, 0, 1, 1, 2, 2]
    data = opened(tmp_path / "chunks")
    expected = Folder(FolderSettings(root=str(tmp_path / "folder"), image_size=12))
    indices = torch.arange(6)
    assert torch.equal(data.test_split().batch(indices)[0], expected.test_split().batch(indices)[0])
    assert [len(batch.labels) for batch in data.test_dataloader()] == [4, 2]


@pytest.mark.slow
def test_chunks_are_decoded_as_they_were_converted(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for i in range(3):
                numbers = np.random.default_rng(i).integers(0, 900, (4, 12, 12), dtype=np.uint16)
                np.save(tmp_path / "folder" / split / name / f"{i}.npy", numbers)
    how = {"channels": 4, "range": [100.0, 800.0], "background": "black", "exif": False}
    convert(tmp_path / "folder", tmp_path / "chunks", Settings(**how))
    data = opened(tmp_path / "chunks", channels=4, image_size=0)
    plain = Folder(FolderSettings(root=str(tmp_path / "folder"), **how))
    plain.setup()
    assert data.train.decoding == plain.settings.file_options()["decoding"]
    assert torch.equal(data.val.batch(torch.arange(6))[0], plain.val.batch(torch.arange(6))[0])
    assert data.mean == pytest.approx(plain.mean, abs=1e-6) and data.std == pytest.approx(plain.std, abs=1e-6)
    with pytest.raises(SettingError, match=r"^data\.channels: is 3, but .* was converted for 4"):
        opened(tmp_path / "chunks")
    with pytest.raises(SettingError, match=r"^range: is"):
        convert(tmp_path / "folder", tmp_path / "other", Settings(range=[3.0, 2.0]))
    assert not (tmp_path / "other").exists()


def test_images_labels_and_classes_are_those_of_the_folder(folder, chunks):
    data = opened(chunks)
    plain = Folder(FolderSettings(root=str(folder), image_size=12, cache="never"))
    plain.setup()
    assert (data.classes, data.channels, data.image_size) == (plain.classes, 3, 12)
    every = torch.arange(9)
    for mine, theirs in zip(data.val.batch(every), plain.val.batch(every)):
        assert torch.equal(mine, theirs)  # in the same order, so that pictures of a run are the same
    assert len(data.train) == 40 and len(data.train.chunks) > 4
    names = {str(file.relative_to(folder)): i for i, file in enumerate(plain.train.files)}
    for index in range(40):
        item = data.train.read_item(index)
        original = names[item["name"]]
        assert item["image"] == plain.train.files[original].read_bytes()  # byte for byte
        assert torch.equal(data.train[index][0], plain.train[original][0])
        assert data.train[index][1] == data.train.labels[index] == plain.train.labels[original]


def test_a_chunk_has_images_of_several_classes(chunks):
    data = opened(chunks)
    parts = data.train.labels.split(data.train.chunks)
    assert all(len(part.unique()) > 1 for part in parts if len(part) > 3)


def test_mean_and_deviation_are_those_of_the_pixels(folder, chunks):
    data, grey = opened(chunks), opened(chunks, channels=1)
    moments = []
    for file in sorted((folder / "train").rglob("*.jpg")):
        pixels = torch.tensor(list(Image.open(file).getdata())) / 255
        moments.append(torch.stack([pixels.mean(0), (pixels**2).mean(0)]))
    mean, squares = torch.stack(moments).mean(0)
    assert data.mean == pytest.approx(mean.tolist(), abs=1e-5)
    assert data.std == pytest.approx((squares - mean**2).sqrt().tolist(), abs=1e-5)
    assert len(grey.mean) == 1 and grey.train[0][0].shape == (1, 12, 12)


def test_every_epoch_has_every_image_once_in_another_order_and_few_chunks_at_a_time(chunks):
    data = opened(chunks, batch_size=5)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        epochs.append([i for indices, _ in batches(loader) for i in indices])
        assert sorted(epochs[-1]) == list(range(40))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    chunk_of = torch.repeat_interleave(torch.arange(len(data.train.chunks)), torch.tensor(data.train.chunks))
    for epoch in epochs:
        order = chunk_of[epoch].tolist()
        for chunk in set(order):  # from a chunk's first image to its last there are two chunks at most
            first, last = order.index(chunk), len(order) - 1 - order[::-1].index(chunk)
            assert len(set(order[first : last + 1])) <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_it_stopped_whatever_the_number_of_workers(chunks, workers):
    data = opened(chunks)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    whole = batches(loader)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    begun = iter(loader)
    for _ in range(4):
        next(begun)
    state = loader.state_dict()
    again = opened(chunks, workers=workers).train_dataloader()
    again.sampler.set_epoch(1)
    again.load_state_dict(state)
    assert same(batches(again), whole[4:])


def test_ranks_share_the_images_and_have_chunks_of_their_own(chunks):
    seen, held = [], []
    for rank in range(2):
        data = opened(chunks)
        order = data.sampler(data.train, 4, seed=0, train=True, repeat=False, rank=rank, world_size=2)
        indices = torch.cat(order.batches(0)).tolist()
        seen += indices
        ends = torch.tensor(data.train.chunks).cumsum(0)
        held.append(set(torch.searchsorted(ends, torch.tensor(indices), right=True).tolist()))
    assert sorted(seen) == list(range(40))
    assert len(held[0] & held[1]) <= 2  # where the stretches meet, within a window


def test_augmentation_does_not_depend_on_workers(chunks):
    def augmented(workers):
        data = opened(chunks, workers=workers, augment=Augment(random_resized_crop=0.5, flip=True, crop=2))
        return [data.preprocess(batch, train=True).images for batch in data.train_dataloader()]

    assert all(torch.equal(x, y) for x, y in zip(augmented(0), augmented(2)))


def test_they_can_be_held_in_memory(chunks):
    streamed, held = opened(chunks), opened(chunks, cache="always")
    assert held.train.in_memory and not streamed.train.in_memory
    assert torch.equal(held.train.batch(torch.arange(40))[0], streamed.train.batch(torch.arange(40))[0])


def test_chunks_are_found_again_from_everywhere(chunks, tmp_path, monkeypatch):
    monkeypatch.chdir(chunks.parent)
    data = opened(chunks.name, download_dir="cache")
    expected = str(chunks), str(chunks.parent / "cache")
    assert (data.settings.root, data.settings.download_dir) == expected
    monkeypatch.chdir(tmp_path)
    assert data.train[0][0].shape == (3, 12, 12)
    address = f"local:{chunks}"
    assert opened(address, download_dir=str(tmp_path)).settings.root == address


def test_an_address_is_fetched_chunk_by_chunk(chunks, tmp_path):
    data = opened(f"local:{chunks}", download_dir=str(tmp_path))  # litdata's stand-in for an object store
    local = opened(chunks)
    every = torch.arange(40)
    assert torch.equal(data.train.batch(every)[0], local.train.batch(every)[0])
    assert list(tmp_path.rglob("*.bin"))


def test_an_address_is_opened_by_one_process_at_a_time(chunks, tmp_path, monkeypatch):
    # litdata deletes the cache of an address that another process has just begun to fill
    import litdata

    whole, opening, together = litdata.StreamingDataset, [], []

    def open_source(*args, **options):
        opening.append(1)
        together.append(len(opening))
        time.sleep(0.05)
        opening.pop()
        return whole(*args, **options)

    data = opened(f"local:{chunks}", download_dir=str(tmp_path))
    workers = [pickle.loads(pickle.dumps(data.train)) for _ in range(4)]
    monkeypatch.setattr(litdata, "StreamingDataset", open_source)
    with ThreadPoolExecutor(4) as threads:
        items = list(threads.map(lambda split: split[0], workers))
    assert together == [1] * 4
    assert all(torch.equal(image, items[0][0]) for image, _ in items)


def test_a_store_that_cannot_be_opened_is_named(chunks, monkeypatch):
    import litdata

    def vanish(*args, **options):
        raise ValueError("no index.json")

    data = opened(chunks)
    monkeypatch.setattr(litdata, "StreamingDataset", vanish)
    with pytest.raises(UnreadableImage, match=r"train: chunk 0 .* cannot be read \(no index\.json\)"):
        pickle.loads(pickle.dumps(data.train))[0]


@pytest.mark.slow
def test_a_chunk_that_vanishes_is_named(chunks, tmp_path):
    shutil.copytree(chunks, tmp_path / "copy")
    data = opened(tmp_path / "copy")
    gone = sorted((tmp_path / "copy" / "train").glob("*.bin"))[-1]
    gone.unlink()
    assert data.train[0]
    with pytest.raises(UnreadableImage, match=f"copy/train: chunk .* cannot be read .*{gone.name}"):
        data.train[39]


def test_a_damaged_image_is_named(tmp_path):
    for i in range(4):
        picture(tmp_path / "folder" / f"class{i % 2}" / f"{i}.jpg", i)
    bad = tmp_path / "folder" / "class0" / "bad.jpg"
    bad.write_bytes((tmp_path / "folder" / "class0" / "0.jpg").read_bytes()[:-200])
    with pytest.raises(UnreadableImage, match=r"bad\.jpg.*; skip_corrupt=true leaves such images out"):
        convert(tmp_path / "folder", tmp_path / "out", Settings(val_fraction=0.25))
    assert not (tmp_path / "out").exists() and [p.name for p in tmp_path.iterdir()] == ["folder"]
    index = convert(tmp_path / "folder", tmp_path / "out", Settings(val_fraction=0.25, skip_corrupt=True))
    assert sum(len(split["labels"]) for split in index["splits"].values()) == 4


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"root": None}, r"data\.root: is not set"),
        ({"root": "/nowhere"}, r"data\.root: /nowhere has no images\.json; expected the OUT"),
        ({"image_size": 0}, r"data\.image_size: is 0, but the images are not squares"),
        ({"resize": 6}, r"data\.resize: is 6, expected at least"),
    ],
)
def test_wrong_settings_are_named(chunks, how, message):
    with pytest.raises(SettingError, match=message):
        opened(**{"root": chunks} | how)


def test_an_index_of_another_kind_is_refused(tmp_path):
    (tmp_path / "images.json").write_text("[1, 2]")
    with pytest.raises(SettingError, match=r"images\.json is of another kind"):
        opened(tmp_path)


def test_what_is_there_is_not_written_over(folder, chunks):
    with pytest.raises(SettingError, match="is there already"):
        convert(folder, chunks)


def test_photographs(shared, tmp_path):
    with tarfile.open(shared / "data" / "imagenet-sample.tar") as archive:
        some = [m for m in archive if m.isfile()][:30]
        for member in some:  # by hand: Python 3.11.2 has no `filter`
            target = tmp_path / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.extractfile(member).read())
    index = convert(tmp_path / "imagenet-sample", tmp_path / "out", Settings(chunk_mib=1))
    assert len(index["classes"]) == 30 and index["side"] is None
    data = opened(tmp_path / "out", image_size=64, workers=2, augment=Augment(random_resized_crop=0.3))
    seen = [i for indices, images in batches(data.train_dataloader()) for i in indices]
    assert len(seen) == len(set(seen)) == 24 and len(data.val) == 3
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.bin"))
    original = sum(
        file.stat().st_size for file in (tmp_path / "imagenet-sample").rglob("*") if file.is_file()
    )
    assert original < size < original * 1.02


def test_the_command_says_what_it_made(folder, tmp_path, capsys):
    def main(arguments):
        run_command("convert", arguments)

    main([str(folder), str(tmp_path / "out"), "chunk_mib=4"])
    said = capsys.readouterr().out
    assert "40 training and 9 validation images of 3 classes" in said
    assert f"python train.py data.name=streaming data.root={tmp_path / 'out'}" in said
    with pytest.raises(SettingError, match="chunk_mib: is 0, expected at least 1"):
        main([str(folder), str(tmp_path / "other"), "chunk_mib=0"])
    with pytest.raises(SettingError, match="expected FOLDER OUT"):
        main([str(folder)])
    with pytest.raises(SettingError, match=r"images\.json/other: cannot be made: Not a directory"):
        main([str(folder), str(tmp_path / "out" / "images.json" / "other")])
    assert os.listdir(tmp_path) == ["out"]
    main([str(folder), str(tmp_path / "my out")])
    assert f"data.name=streaming 'data.root={tmp_path / 'my out'}'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind", ["16-bit PNG", "16-bit TIFF", "float TIFF", "upside down", "on its side", "CMYK"]
)
def test_odd_formats_are_read_as_from_the_folder(tmp_path, kind):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            for i in range(2):
                gray = generator.integers(0, 256, (14, 20), dtype=np.uint8)
                image, options = Image.fromarray(np.stack([gray] * 3, -1)), {}
                if kind.startswith("16-bit"):
                    image = Image.fromarray(gray.astype(np.uint16) * 257)
                elif kind == "float TIFF":
                    image = Image.fromarray(gray.astype(np.float32) / 255)
                elif kind == "CMYK":
                    image = image.convert("CMYK")
                else:
                    options["exif"] = Image.Exif()
                    options["exif"][0x0112] = 3 if kind == "upside down" else 6
                file = tmp_path / "folder" / split / name / f"{i}{'.png' if 'PNG' in kind else '.tif'}"
                file.parent.mkdir(parents=True, exist_ok=True)
                image.save(file, **options)
    convert(tmp_path / "folder", tmp_path / "chunks", Settings())
    streamed = opened(tmp_path / "chunks")
    plain = Folder(FolderSettings(root=str(tmp_path / "folder"), image_size=12, batch_size=4, workers=0))
    plain.setup()
    index = torch.arange(4)
    assert torch.equal(streamed.val.batch(index)[0], plain.val.batch(index)[0])
    assert plain.val.batch(index)[0].float().std() > 10  # neither black nor white
