import torch

from vitrine.core.class_ranks import ranks_in_class


def test_it_is_how_many_of_the_class_come_before():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([4, 0, 2])[torch.randint(3, (50,), generator=generator)]  # of 1 and 3 there is none
    order = torch.randperm(50, generator=generator)
    ranks, seen = ranks_in_class(labels, order), []
    for image in order.tolist():
        assert ranks[image] == seen.count(int(labels[image]))
        seen.append(int(labels[image]))
    assert ranks_in_class(labels[:0], order[:0]).tolist() == []
