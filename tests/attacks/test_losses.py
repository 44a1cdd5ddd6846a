import torch

from vitrine.attacks import losses

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.5, 2.0], [0.0, 5.0, 1.0, -1.0, 2.0]])
LABELS = torch.tensor([0, 2])


def test_dlr_is_the_papers():
    expected = [-(4 - 3) / (4 - 2), -(1 - 5) / (5 - 1)]
    torch.testing.assert_close(losses.dlr(LOGITS, LABELS), torch.tensor(expected))


def test_targeted_dlr_is_the_papers():
    expected = [-(4 - 0.5) / (4 - (2 + 1) / 2), -(1 - 5) / (5 - (1 + 0) / 2)]
    loss = losses.targeted_dlr(torch.tensor([3, 1]))
    torch.testing.assert_close(loss(LOGITS, LABELS), torch.tensor(expected))


def test_margin_is_positive_where_the_label_is_not_predicted():
    assert losses.margin(LOGITS, LABELS).tolist() == [-1.0, 4.0]


def test_dlr_does_not_depend_on_scale():
    torch.testing.assert_close(losses.dlr(LOGITS * 100, LABELS), losses.dlr(LOGITS, LABELS))
