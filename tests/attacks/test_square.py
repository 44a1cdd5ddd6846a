import pytest
import torch

from vitrine.attacks import Square, is_adversarial


def test_the_schedule_halves_where_the_paper_says():
    attack = Square()
    assert [attack.changed_share(query) for query in (0, 10, 11, 50, 51, 201)] == [
        0.8,
        0.8,
        0.4,
        0.4,
        0.2,
        0.1,
    ]
    assert attack.changed_share(9000) == 0.8 / 512
    assert Square(queries=1000, rescale=True).changed_share(2) == 0.4, (
        "query 2 of 1,000 is query 20 of 10,000"
    )


def pyramid(height: int, width: int) -> torch.Tensor:
    """Rectangles of half-width 0, 1, 2, ... around the middle, the k-th of weight 1 / k^2, of norm 1."""
    image = torch.zeros(height, width)
    middle = height // 2, width // 2
    for k in range(max(middle) + 1):
        rows = slice(max(middle[0] - k, 0), middle[0] + k + 1)
        columns = slice(max(middle[1] - k, 0), middle[1] + k + 1)
        image[rows, columns] += 1 / (k + 1) ** 2
    return image / image.norm()


@pytest.mark.parametrize(("size", "side"), [(5, 1), (15, 3), (30, 6), (37, 7)])
def test_l2_begins_with_a_grid_of_the_papers_bumps(size, side, linear, images):
    pictures, labels = torch.full((4, 1, size, size), 0.5).double(), torch.tensor([0, 1, 0, 1])
    attack = Square(norm="l2", eps=0.4, queries=1, early_stop=False)
    change = attack(linear(pixels=size * size), pictures, labels) - pictures
    half = side // 2
    bump = torch.cat([pyramid(half, side), -pyramid(side - half, side)]) if half else torch.ones(1, 1)
    count, first = size // side, size % side // 2
    covered = slice(first, first + count * side)
    tiles = change[:, 0, covered, covered].unfold(1, side, side).unfold(2, side, side)
    signs = tiles[..., 0, 0].sign() * bump[0, 0].sign()
    expected = signs[..., None, None] * bump * 0.4 / (count * bump.norm())
    torch.testing.assert_close(tiles, expected.double(), atol=2e-6, rtol=0)
    assert 0 < (signs > 0).double().mean() < 1
    assert change.square().sum((1, 2, 3)).sqrt().sub(0.4).abs().max() < 1e-5, "nothing beside the grid"


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_breaks_most_of_what_a_linear_networks_margin_allows(norm, eps, linear, images, own_labels):
    network, pictures = linear(pixels=24), images(30, 1, 4, 6, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    w = network[1].weight[0] - network[1].weight[1]
    size = w.abs().sum() if norm == "linf" else w.norm()
    logits = network(pictures).detach()
    reach = (logits[:, 0] - logits[:, 1]).abs() / size
    success = is_adversarial(
        network, Square(norm=norm, eps=eps, queries=400)(network, pictures, labels), labels
    )
    assert not success[reach > eps].any()
    assert success[reach < eps * 0.6].all() and (reach < eps * 0.6).sum() > 5


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


def test_more_queries_never_break_fewer(convnet, images, own_labels):
    pictures = images(12, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    few, more = (
        is_adversarial(convnet, Square(eps=0.05, queries=n)(convnet, pictures, labels), labels)
        for n in (40, 160)
    )
    assert (more | ~few).all()
