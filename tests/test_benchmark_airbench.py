"""The race with airbench94: its arithmetic, and that both contestants get the same images."""

import pytest
import torch

from benchmarks import published_airbench
from benchmarks.airbench import epoch_ratios, read, table
from benchmarks.time_to_accuracy import Curve, Point, common_accuracy


def curve(*points: tuple[float, float]) -> Curve:
    return Curve([Point(*point) for point in points], [1.0] * len(points))


def test_the_time_to_an_accuracy_is_that_of_the_first_measurement_that_is_as_high():
    falling = curve((1, 0.5), (2, 0.9), (3, 0.8), (4, 0.95))
    assert [falling.seconds_to(a) for a in (0.5, 0.51, 0.85, 0.9, 0.95)] == [1, 2, 2, 2, 4]
    assert falling.seconds_to(0.96) is None


def test_both_reach_the_lower_of_their_best_accuracies_and_not_of_their_last():
    first, second = curve((1, 0.7), (2, 0.6)), curve((1, 0.5), (5, 0.8))
    common = common_accuracy([first, second])
    assert common == 0.7 and first.seconds_to(common) == 1 and second.seconds_to(common) == 5


def test_a_table_says_what_was_not_reached_and_compares_round_by_round():
    rounds = {
        "one": [curve((1, 0.7), (2, 0.8)), curve((1, 0.7), (4, 0.95))],
        "two": [curve((3, 0.75), (6, 0.7)), curve((1, 0.9), (8, 0.94))],
    }
    _, _, one, two = (line.split(" | ") for line in table(rounds, 0.94).splitlines()[:4])
    assert one[5] == "not reached" and two[5] == "not reached"  # one round each did not
    assert one[6] == "3 (2 to 4) |" and two[6] == "5.5 (3 to 8) |"  # to 75 %, and to 94 %
    assert two[3] == "82.00 (70.00 to 94.00)"


def test_an_epoch_is_compared_with_that_of_the_same_round():
    slow, fast = Curve([], [2.0, 4.0]), Curve([], [1.0, 2.0])
    own, base = [slow, fast, fast], [fast, fast, slow]
    found = epoch_ratios(own, base)
    assert found.ratios == [2.0, 1.0, 0.5] and found.ratio == 1.0 and found.spread == (0.75, 1.5)


def test_airbench_is_timed_by_its_own_clock_and_a_part_of_an_epoch_is_none():
    told = [{"epoch": i, "epochs": 2.5, "total_time_seconds": t, "val_acc": a} for i, t, a in
            [(0, 3.0, 0.4), (1, 5.0, 0.6), (2, 6.0, 0.7)]]  # fmt: skip
    end = {"epoch": "eval", "epochs": 2.5, "total_time_seconds": 6.5, "val_acc": 0.7, "tta_val_acc": 0.8}
    found = published_airbench.curve_of([*told, end])
    assert found.epochs == [3.0, 2.0]
    assert found.points == [Point(3.0, 0.4), Point(5.0, 0.6), Point(6.0, 0.7), Point(6.5, 0.8)]


def test_both_train_on_the_same_images_with_their_labels(tmp_path):
    images = read(None, 30, 20)
    published_airbench.write_files(tmp_path, images.train, images.test, images.classes)
    for name, split in (("train", images.train), ("test", images.test)):
        saved = torch.load(tmp_path / "cifar10" / f"{name}.pt")
        assert saved["images"].shape == (len(split), 32, 32, 3) and saved["images"].dtype == torch.uint8
        assert torch.equal(saved["images"][7, 3, 5], split.images[7, :, 3, 5])
        assert torch.equal(saved["labels"], split.labels)


def test_images_of_a_folder_are_read_in_a_random_order_each_with_its_label(tmp_path):
    for label, name in enumerate(("dark", "light")):
        for split, count in (("train", 8), ("test", 2)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                _picture(folder / f"{i}.png", 200 * label + i)
    images = read(tmp_path, 10, None)
    assert (len(images.train), len(images.test), images.classes) == (10, 4, ["dark", "light"])
    levels = images.train.images.float().mean((1, 2, 3))
    assert torch.equal(images.train.labels, (levels > 100).long())
    assert 0 < images.train.labels[:8].sum() < 8, "as listed, one class would come first"


def _picture(file, level: int) -> None:
    from torchvision.io import write_png

    write_png(torch.full((3, 32, 32), level, dtype=torch.uint8), str(file))


@pytest.mark.parametrize("bf16", [False, True])
def test_on_a_cpu_its_network_takes_half_images_and_gives_float32_logits(bf16):
    def make_net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).half().cuda()

    network = published_airbench._network_on_a_cpu(make_net, bf16)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    images = torch.rand(3, 3, 2, 2).half()
    exact = images.flatten(1).float() @ network[1].weight.T + network[1].bias
    found = network(images).detach()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.detach(), atol=2e-2 if bf16 else 1e-6, rtol=0)
