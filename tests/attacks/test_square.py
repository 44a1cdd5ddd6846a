import pytest
import torch

from vitrine.attacks import Square, is_adversarial
from vitrine.attacks.square_moves import _pyramid


def test_the_schedule_halves_where_the_paper_says():
    attack = Square()
    assert [attack.share(query) for query in (0, 10, 11, 50, 51, 201)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.1]
    assert attack.share(9000) == 0.8 / 512
    assert Square(queries=1000, rescale=True).share(2) == 0.4, "query 2 of 1,000 is query 20 of 10,000"


def test_bumps_are_sums_of_shrinking_rectangles():
    expected = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25], [0.25, 0.25, 0.25]])
    torch.testing.assert_close(_pyramid(3, 3), expected / expected.norm())


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_fells_most_of_what_a_linear_networks_margin_allows(norm, eps, linear, images, own_labels):
    network, pictures = linear(pixels=24), images(30, 1, 4, 6, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    w = network[1].weight[0] - network[1].weight[1]
    size = w.abs().sum() if norm == "linf" else w.norm()
    logits = network(pictures).detach()
    reach = (logits[:, 0] - logits[:, 1]).abs() / size
    fell = is_adversarial(network, Square(norm=norm, eps=eps, queries=400)(network, pictures, labels), labels)
    assert not fell[reach > eps].any()
    assert fell[reach < eps * 0.6].all() and (reach < eps * 0.6).sum() > 5


def test_takes_no_gradient(convnet, images, own_labels, monkeypatch):
    pictures = images(3, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("a gradient was taken"))
    Square(queries=5)(convnet, pictures, labels)


def test_targeted_comes_nearer_to_its_target(convnet, images, own_labels):
    pictures = images(6, 3, 8, 8)
    targets = (own_labels(convnet, pictures) + 1) % 5
    ended = Square(eps=0.2, queries=200, targeted=True)(convnet, pictures, targets)
    convnet.eval()
    before, after = (convnet(x).softmax(1).gather(1, targets[:, None]) for x in (pictures, ended))
    assert (after > before).all()


def test_more_queries_never_fell_fewer(convnet, images, own_labels):
    pictures = images(12, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    few, more = (
        is_adversarial(convnet, Square(eps=0.05, queries=n)(convnet, pictures, labels), labels)
        for n in (40, 160)
    )
    assert (more | ~few).all()
