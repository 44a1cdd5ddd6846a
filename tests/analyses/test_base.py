import torch
from torch import nn

from vitrine.analyses.base import Probes, Subject, as_float
from vitrine.core.image_dataset import ImageDataset


class OneByOne(ImageDataset):
    def __init__(self, count):
        self.images = torch.arange(count * 12, dtype=torch.uint8).reshape(count, 3, 2, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 3


class Together(OneByOne):
    def batch(self, indices):
        return self.images[indices], indices % 3


def subject(dataset):
    probes = Probes(torch.rand(2, 3, 2, 2), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    return Subject(nn.Identity(), probes, dataset, ["a", "b", "c"], {"x": (0,)}, batch_size=4)


def test_images_come_as_floats_however_the_data_set_gives_them():
    one, many = (subject(kind(10)).images([3, 1]) for kind in (OneByOne, Together))
    assert all(torch.equal(a, b) for a, b in zip(one, many))
    assert one[0].dtype == torch.float32 and one[0].max() <= 1 and one[1].tolist() == [0, 1]
    torch.testing.assert_close(one[0][0], OneByOne(10).images[3] / 255)


def test_batches_are_the_whole_data_set_in_order():
    batches = list(subject(OneByOne(10)).batches())
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [i % 3 for i in range(10)]


def test_what_is_worked_out_once_is_shared_but_not_with_another_network():
    first, calls = subject(OneByOne(1)), []
    for _ in range(2):
        assert first.cached("key", lambda: calls.append(1) or 7) == 7
    assert calls == [1]
    assert first.with_network(nn.Identity()).cached("key", lambda: 8) == 8
    assert first.cached("key", lambda: 9) == 7


def test_uint8_is_divided_by_255_and_floats_are_taken_as_they_are():
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == [
        0,
        torch.tensor(0.2).item(),
        1,
    ]
    floats = torch.tensor([0.25, 1.0])
    assert as_float(floats) is floats
