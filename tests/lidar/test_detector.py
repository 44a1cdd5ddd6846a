"""What the network should say, what its outputs mean, and how detections are measured."""

import pytest
import torch

from vitrine.lidar.boxes import iou
from vitrine.lidar.detector import Detector, DetectorSettings, focal_loss
from vitrine.lidar.evaluation import Detections, evaluate, recall_within
from vitrine.lidar.frames import Frame, batch_of
from vitrine.lidar.grid import Grid
from vitrine.lidar.network import decode, places, targets

GRID = Grid(cell=0.5, ahead=16, aside=8, slices=4)
CARS = torch.tensor([[5.0, 1, 4.4, 1.9, 0.7], [11, -4, 3.8, 1.7, -2.0]])


def test_what_the_network_should_say_decodes_to_the_cars():
    middles = places(GRID)
    labels, numbers = targets(CARS, torch.tensor([True, True]), middles)
    found = decode(numbers, middles)[labels == 1]
    overlaps = iou(found[:, None], CARS[None])
    torch.testing.assert_close(overlaps.amax(1), torch.ones(len(found)))
    assert set(overlaps.argmax(1).tolist()) == {0, 1}
    assert (labels == 0).float().mean() > 0.8 and (labels == -1).any()
    hidden, _ = targets(CARS, torch.tensor([True, False]), middles)
    assert (hidden[labels == 1] == -1).any() and (hidden == 1).sum() < (labels == 1).sum()


def test_focal_loss_with_gamma_0_is_cross_entropy_of_what_counts():
    logits, labels = torch.tensor([0.3, -1.0, 2.0, 9.0]), torch.tensor([1.0, 0, 0, -1])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:3], labels[:3], reduction="sum")
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0), expected / 2)
    by_hand = 0.5 * (1 - torch.sigmoid(logits[0])) ** 2 * -torch.sigmoid(logits[0]).log()
    torch.testing.assert_close(focal_loss(logits[:1], labels[:1]), by_hand)


def test_average_precision_by_hand():
    cars = torch.tensor([[5.0, 0, 4, 2, 0], [15, 0, 4, 2, 0], [25, 0, 4, 2, 0], [35, 0, 4, 2, 0]])
    counted = torch.tensor([True, True, True, False])
    wrong = torch.tensor([[5.0, 9, 4, 2, 0]])
    # right, wrong, right, of one that does not count, right but again the first
    boxes = torch.cat([cars[:1], wrong, cars[1:2], cars[3:], cars[:1]])
    scene = Detections(torch.tensor([0.9, 0.8, 0.7, 0.6, 0.55]), boxes, cars, counted)
    quality = evaluate([scene], threshold=0.65)
    assert quality.cars == 3
    assert quality.recall == pytest.approx(2 / 3) and quality.precision == pytest.approx(2 / 3)
    assert quality.average_precision == pytest.approx((1 + 2 / 3) / 3)
    assert recall_within([scene], 0.65, 0, 20) == (1, 2)
    assert recall_within([scene], 0.65, 20, 30) == (0, 1)
    assert recall_within([scene], 0.65, 30, 40) == (None, 0)
    assert evaluate([], 0.5).recall is None


@pytest.mark.slow
def test_it_learns_one_scene_and_its_proposals_have_gradients():
    torch.manual_seed(0)
    detector, middles = Detector(DetectorSettings(width=8), GRID), places(GRID)
    occupancy = torch.rand(GRID.shape) < 0.02
    for x, y, *_ in CARS.tolist():
        occupancy[1, int(x * 2) - 2 : int(x * 2) + 2, int(y * 2) + 14 : int(y * 2) + 18] = True
    cells = occupancy.flatten().nonzero()[:, 0].int()
    frame = Frame(cells, CARS, torch.tensor([True, True]), torch.tensor([50, 50]))
    batch = batch_of([frame, frame], GRID, middles)
    assert torch.equal(batch.occupancy[1], occupancy.float())
    optimizer = torch.optim.AdamW(detector.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        detector.loss(batch)["loss"].backward()
        optimizer.step()
    detector.eval()
    scores, boxes = detector.detect(batch.occupancy[0])
    assert len(scores) == 2 and (iou(boxes[:, None], CARS[None]).amax(0) > 0.5).all()

    volume = batch.occupancy[0].clone().requires_grad_()
    scores, boxes = detector.proposals(volume)
    assert scores.shape == (256,) and boxes.shape == (256, 5)
    (scores.max() + boxes[scores.argmax()].sum()).backward()
    assert volume.grad.abs().sum() > 0
