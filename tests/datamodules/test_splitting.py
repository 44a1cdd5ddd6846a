"""Which images are held out, of which class."""

import logging

import pytest
import torch

from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError
from vitrine.datamodules.splitting import SplitSettings, divide, hold_out


def labels_of(*counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[permutation(sum(counts), 7)]


def counts_held_out(labels, val=0.1, test=0.0, seed=0, **options):
    names = [f"c{i}" for i in range(int(labels.max()) + 1)]
    parts = hold_out(labels, val, test, seed, names, **options)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(labels)))  # each image in one part
    assert all(torch.equal(part, part.sort().values) for part in parts)
    return [labels[part].bincount(minlength=len(names)).tolist() for part in parts]


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_validated_whatever_the_seed(seed):
    train, val, _ = counts_held_out(labels_of(401, 4), seed=seed)
    assert val == [40, 1] and train == [361, 3]


def test_each_class_gives_its_share_and_all_together_theirs():
    _, val, _ = counts_held_out(labels_of(*[14] * 10, 100, 60), val=0.1)
    assert sum(val) == 30 and val[-2:] == [10, 6] and set(val[:10]) == {1, 2}
    _, val, _ = counts_held_out(labels_of(*[3] * 40), val=0.1)
    assert val == [1] * 40  # one at least


def test_a_class_of_one_image_is_trained_on_and_said(caplog):
    train, val, test = counts_held_out(labels_of(10, 1, 2, 1), val=0.5, test=0.2)
    assert train[1] == train[3] == 1 and val[2] == train[2] == 1 and test[2] == 0
    assert caplog.messages == [
        "the data set: of 2 of 4 classes (c1, c3) there is one image, which stays in training"
    ]


def test_what_is_validated_on_does_not_depend_on_the_test_set():
    labels = labels_of(50, 30, 9)
    _, val, none = hold_out(labels, 0.2, 0.0, 3, "abc")
    _, same, test = hold_out(labels, 0.2, 0.3, 3, "abc")
    assert torch.equal(val, same) and len(none) == 0 and len(test) == round(0.3 * 89)
    other = hold_out(labels, 0.2, 0.3, 4, "abc")[2]
    assert not torch.equal(test, other)


def test_without_strata_the_images_are_those_that_earlier_versions_held_out():
    labels, count = labels_of(401, 4), 405
    _, val, _ = hold_out(labels, 0.1, 0.0, 5, "ab", stratify=False)
    assert torch.equal(val, permutation(count, 5)[: round(0.1 * count)].sort().values)


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({"test_fraction": 0.1}, {"test": labels_of(2, 2)}, "data.test_fraction: is 0.1, but DIR has a test"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, {}, "data.test_fraction: is 0.5 beside data.val_fract"),
        ({"val_fraction": 1.0, "test_fraction": 0.5}, {}, "data.test_fraction: is 0.5 beside data.val_fract"),
    ],
)
def test_fractions_that_do_not_fit_are_refused(options, labels, message):
    with pytest.raises(SettingError, match=message):
        divide({"train": labels_of(8, 8)} | labels, "ab", SplitSettings(**options), "DIR")


def test_one_image_a_class_is_held_out_of_all_together_and_said(caplog):
    found = divide({"train": torch.arange(20)}, [str(i) for i in range(20)], SplitSettings(), "DIR")
    assert (len(found["train"][1]), len(found["val"][1])) == (18, 2)
    assert caplog.messages == ["DIR: each class has one image; those held out are of classes not trained on"]


def test_a_test_set_is_drawn_of_training_where_validation_exists(caplog):
    found = divide(
        {"train": labels_of(20, 20), "val": labels_of(3, 3)},
        "ab",
        SplitSettings(test_fraction=0.25),
        "DIR",
    )
    assert {name: (of, len(indices)) for name, (of, indices) in found.items()} == {
        "train": ("train", 30),
        "val": ("val", 6),
        "test": ("train", 10),
    }
    assert not caplog.records


def test_a_class_that_chance_left_out_is_said(caplog):
    caplog.set_level(logging.WARNING)
    labels = torch.cat([torch.zeros(50, dtype=torch.int64), torch.ones(1, dtype=torch.int64)])
    divide({"train": labels}, "ab", SplitSettings(stratify=False), "DIR")
    assert caplog.messages == ["DIR: there are no validation images of 1 of 2 classes (b)"]
