import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrine.datamodules.samplers import BalancedBatchSampler, BatchSampler, ChunkBatchSampler, occurrences


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


LABELS = torch.tensor([0] * 300 + [1] * 60 + [3] * 12 + [7] * 3)


def balanced(**options):
    return BalancedBatchSampler(LABELS, 25, **{"seed": 4} | options)


def test_a_balanced_sampler_draws_all_classes_equally_often():
    drawn = torch.cat([torch.cat(balanced().batches(epoch)) for epoch in range(20)])
    counts = LABELS[drawn].bincount(minlength=8)[[0, 1, 3, 7]]
    assert counts.sum() == 20 * 375
    chi2 = ((counts - counts.sum() / 4) ** 2 / (counts.sum() / 4)).sum().item()
    assert 0.02 < chi2 < 16.3  # between 0.1 and 99.9 % of chi-squared with three degrees of freedom


def test_within_a_class_a_balanced_epoch_repeats_no_image_before_all_have_come():
    drawn = torch.cat(balanced().batches(3))
    for label in LABELS.unique():
        times = drawn[LABELS[drawn] == label].bincount(minlength=375)[label == LABELS]
        assert times.max() - times.min() <= 1


def test_a_balanced_order_depends_on_seed_and_epoch_and_is_divided_among_the_ranks():
    assert rows(balanced(), 2) == rows(balanced(), 2) != rows(balanced(), 1)
    assert rows(balanced(seed=5), 2) != rows(balanced(), 2)
    one = [i for batch in rows(BalancedBatchSampler(LABELS, 50, seed=4), 2) for i in batch]
    two = [rows(balanced(rank=rank, world_size=2), 2) for rank in range(2)]
    together = [i for batches in zip(*two) for pair in zip(*batches) for i in pair]
    assert together == one


@pytest.mark.parametrize("kind", ["plain", "balanced", "copies"])
def test_an_image_has_another_seed_each_time_that_it_comes_in_an_epoch(kind):
    ranks = {
        "plain": lambda **options: BatchSampler(375, 25, **options),
        "balanced": balanced,
        "copies": lambda **options: BatchSampler(375, 25, copies=4, **options),
    }[kind]
    pairs = set()
    for rank in range(2):
        sampler = ranks(rank=rank, world_size=2)
        batches, seeds = sampler.batches(1), sampler.seeds(1)
        assert len(batches) == len(seeds) == 7
        if kind == "plain":
            assert {(seed.shape, int(seed)) for seed in seeds} == {((), sampler.epoch_key(1))}
        for batch, seed in zip(batches, seeds):
            pairs |= set(zip(batch.tolist(), seed.expand(25).tolist()))
    assert len(pairs) == 2 * 7 * 25
    assert {seed for _, seed in pairs} >= {sampler.epoch_key(1)}  # the first time it is as without copies


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world=st.integers(1, 4),
    copies=st.integers(1, 5),
)
def test_copies_of_an_image_are_in_one_global_batch_and_an_epoch_stays_as_long(
    length, batch_size, world, copies
):
    if length < world:
        return
    ranks = [BatchSampler(length, batch_size, rank=r, world_size=world, copies=copies) for r in range(world)]
    assert len(ranks[0]) == len(BatchSampler(length, batch_size, world_size=world))
    seen = set()
    for together in zip(*(rows(sampler, 0) for sampler in ranks)):
        images = [i for batch in together for i in batch]
        counts = {image: images.count(image) for image in images}
        assert max(counts.values()) <= copies and len(counts) == -(-len(images) // copies)
        assert seen.isdisjoint(counts)
        seen |= set(counts)


def test_copies_of_an_image_in_chunks_are_in_one_batch_of_a_rank():
    for rank in range(2):
        sampler = ChunkBatchSampler(60, 10, chunks=[20, 20, 20], window=2, copies=5, rank=rank, world_size=2)
        assert len(sampler) == 3
        for batch in rows(sampler, 0):
            assert {batch.count(image) for image in batch} == {5}


def test_occurrences_are_counted():
    assert occurrences(torch.tensor([5, 2, 5, 5, 0, 2])).tolist() == [0, 0, 1, 2, 0, 1]
    assert occurrences(torch.tensor([], dtype=torch.int64)).tolist() == []
