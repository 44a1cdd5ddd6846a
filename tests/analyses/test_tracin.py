import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import label_targets
from vitrine.analyses.tracin import cosines, gradient_products


def draw(count, width=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator), torch.randint(
        classes, (count,), generator=generator
    )


def errors_of(features, labels, weight):
    return F.one_hot(labels, len(weight)) - (features.double() @ weight.T).softmax(1)


@pytest.mark.slow  # importing it takes a second
def test_products_are_those_of_captum_over_checkpoints():
    """Captum leaves the bias out, and takes the learning rate from what loads a checkpoint."""
    influence = pytest.importorskip("captum.influence")
    (features, labels), (probes, said) = draw(50), draw(3, seed=1)
    weights = [torch.randn(4, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    rates = [0.3, 0.1, 0.02]
    network = nn.Sequential(nn.Identity(), nn.Linear(6, 4))
    nn.init.zeros_(network[1].bias)

    def load(model, checkpoint):
        with torch.no_grad():
            model[1].weight.copy_(weights[checkpoint])
        return rates[checkpoint]

    oracle = influence.TracInCPFast(
        network,
        network[1],
        TensorDataset(features, labels),
        [0, 1, 2],
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=7,
    )
    expected = oracle.influence((probes, said))
    stored, found = Features(features, bias=False), 0
    for rate, weight in zip(rates, (weight.double() for weight in weights)):
        errors = errors_of(probes, said, weight)
        targets = label_targets(labels, 4)
        found += rate * gradient_products(stored, targets, weight, probes.double(), errors, cosine=False)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("cosine", [False, True])
def test_products_are_those_of_gradients_with_the_bias(cosine):
    (features, labels), (probes, said) = draw(20), draw(2, seed=1)
    weight = torch.randn(4, 7, generator=torch.Generator().manual_seed(2)).double()

    def gradients(features, labels):
        features = torch.cat([features, torch.ones(len(features), 1)], 1).double().requires_grad_()
        w = weight.expand(len(features), 4, 7).clone().requires_grad_()  # of each image its own
        losses = F.cross_entropy((w @ features[:, :, None])[:, :, 0], labels, reduction="sum")
        found = torch.autograd.grad(losses, w)[0].flatten(1)
        return F.normalize(found) if cosine else found

    probe_features = torch.cat([probes, torch.ones(2, 1)], 1).double()
    found = gradient_products(
        Features(features),
        label_targets(labels, 4),
        weight,
        probe_features,
        errors_of(probe_features, said, weight),
        cosine,
    )
    torch.testing.assert_close(found, gradients(probes, said) @ gradients(features, labels).T)


def test_the_nearest_are_by_the_angle_between_features():
    (features, _), (probes, _) = draw(20), draw(2, seed=1)
    probes = torch.cat([probes, torch.ones(2, 1)], 1).double()
    expected = F.cosine_similarity(probes[:, None, :6], features[None].double(), dim=2)
    torch.testing.assert_close(cosines(Features(features), probes), expected)
