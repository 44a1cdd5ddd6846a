"""Mixup and cutmix against torchvision's, which are given the same draws."""

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from vitrine.core.random_numbers import fold_in
from vitrine.datamodules import mixing

IMAGES = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 3, 0])
TARGETS = torch.nn.functional.one_hot(LABELS, 4).float()
KEYS = fold_in(torch.tensor(3), torch.arange(6))


def torchvisions(kind, params):
    params = {"labels": LABELS, "batch_size": 6, **params}
    transform = kind(num_classes=4)
    return transform.transform(IMAGES, params), transform.transform(LABELS, params)


@pytest.mark.parametrize("share", [0.0, 0.013, 0.3, 0.7, 1.0])
def test_mixup_is_torchvisions(share):
    for mine, theirs in zip(mixing.mixup(IMAGES, TARGETS, share), torchvisions(v2.MixUp, {"lam": share})):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(
        mixing.mixup(IMAGES, TARGETS, torch.tensor(share)), torchvisions(v2.MixUp, {"lam": share})
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7)


def test_cutmix_and_its_boxes_are_torchvisions(monkeypatch):
    shares = torch.rand(200, generator=torch.Generator().manual_seed(1))
    centres = torch.rand(200, 2, generator=torch.Generator().manual_seed(2))
    for share, centre in zip(shares, centres):
        transform = v2.CutMix(num_classes=4)
        transform._dist = type("Fixed", (), {"sample": lambda *_, share=share: share})
        places = [(centre * torch.tensor([10, 12])).long()[i : i + 1] for i in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_, places=places, **__: places.pop(0))
            params = transform.make_params([IMAGES])
        box = mixing.cut_box(share, centre, 12, 10)
        assert tuple(box.tolist()) == params["box"]
        for mine, theirs in zip(mixing.cutmix(IMAGES, TARGETS, box), torchvisions(v2.CutMix, params)):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha):
    random = torch.rand(2, 5000, generator=torch.Generator().manual_seed(0))
    shares = mixing.symmetric_beta(alpha, *random)
    assert shares.isfinite().all() and shares.min() >= 0 and shares.max() <= 1
    if alpha > 0.1:  # else float32 holds many as 1 exactly
        assert stats.kstest(shares.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    corners = mixing.symmetric_beta(
        alpha, *torch.cartesian_prod(*[torch.tensor([0, 0.25, 1 - 2**-24])] * 2).T
    )
    assert corners.isfinite().all()


def test_a_batch_gets_one_draw_which_its_keys_decide():
    def mixed(keys=KEYS, **alphas):
        return mixing.mix(
            IMAGES, LABELS, keys, classes=4, **{"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | alphas
        )

    kinds = set()
    for seed in range(20):
        keys = fold_in(torch.tensor(seed), torch.arange(6))
        first, second = mixed(keys, mixup_alpha=1.0), mixed(keys, cutmix_alpha=1.0)
        both = mixed(keys, mixup_alpha=1.0, cutmix_alpha=1.0)
        assert torch.equal(mixed(keys, mixup_alpha=1.0)[0], first[0])
        assert any(all(map(torch.equal, both, one)) for one in (first, second))
        kinds.add(torch.equal(both[0], first[0]))
        torch.testing.assert_close(both[1].sum(1), torch.ones(6))
    assert kinds == {True, False}
    assert not torch.equal(mixed(mixup_alpha=1.0)[0], mixed(KEYS + 1, mixup_alpha=1.0)[0])


def test_a_batch_of_one_image_is_mixed_with_itself():
    images, targets = mixing.mix(
        IMAGES[:1], LABELS[:1], KEYS[:1], mixup_alpha=1.0, cutmix_alpha=1.0, classes=4
    )
    torch.testing.assert_close(images, IMAGES[:1])
    torch.testing.assert_close(targets, TARGETS[:1])
