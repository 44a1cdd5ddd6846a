import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrine.datamodules.samplers import BatchSampler


def rows(sampler, epoch):
    return [batch.tolist() for batch in sampler.batches(epoch)]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60), batch_size=st.integers(1, 20), world=st.integers(1, 4), epoch=st.integers(0, 9)
)
def test_training_batches_are_alike_in_size_and_no_image_comes_twice(length, batch_size, world, epoch):
    if length < world:
        return
    ranks = [BatchSampler(length, batch_size, seed=5, rank=rank, world_size=world) for rank in range(world)]
    batches = [rows(sampler, epoch) for sampler in ranks]
    assert {len(b) for b in batches} == {len(ranks[0])}
    assert len({len(batch) for rank in batches for batch in rank}) == 1
    seen = [i for rank in batches for batch in rank for i in batch]
    assert len(seen) == len(set(seen)) and set(seen) <= set(range(length))
    assert length - len(seen) < max(batch_size * world, world)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(4, 60), batch_size=st.integers(1, 20), world=st.integers(1, 4))
def test_validation_sees_every_image_once_in_as_many_batches_on_every_rank(length, batch_size, world):
    ranks = [
        BatchSampler(length, batch_size, train=False, rank=rank, world_size=world) for rank in range(world)
    ]
    batches = [rows(sampler, 0) for sampler in ranks]
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(length))
    assert all(len(rank) == len(ranks[0]) and all(rank) for rank in batches)
    most = max(batch_size, 2 if world > 1 else 1)  # a batch of one could not be split
    assert all(len(batch) <= most for rank in batches for batch in rank)


def test_one_rank_validates_in_the_splits_own_order():
    assert rows(BatchSampler(5, 2, train=False), 3) == [[0, 1], [2, 3], [4]]


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    first = rows(BatchSampler(50, 10, seed=1), 2)
    torch.rand(3)
    assert rows(BatchSampler(50, 10, seed=1), 2) == first
    assert rows(BatchSampler(50, 10, seed=1), 3) != first
    assert rows(BatchSampler(50, 10, seed=2), 2) != first


def test_every_image_is_equally_likely_to_come_first():
    firsts = torch.tensor([BatchSampler(4, 1, seed=0).batches(epoch)[0].item() for epoch in range(2000)])
    expected = 500
    chi2 = ((firsts.bincount(minlength=4) - expected) ** 2 / expected).sum().item()
    assert chi2 < 16.3  # 99.9 % of chi-squared with three degrees of freedom


def test_a_split_smaller_than_a_batch_is_one_batch():
    assert [sorted(batch) for batch in rows(BatchSampler(3, 128), 0)] == [[0, 1, 2]]


def test_overfitting_sees_the_same_batches_every_epoch():
    sampler = BatchSampler(50, 10, seed=1, repeat=True)
    assert rows(sampler, 0) == rows(sampler, 7) != rows(sampler, 7)[::-1]


def test_fewer_images_than_ranks_are_refused():
    with pytest.raises(ValueError, match="1 images cannot be shared among 2 ranks"):
        BatchSampler(1, 4, world_size=2)
