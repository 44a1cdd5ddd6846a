import dataclasses
import io

import pytest
import torch
from torch import nn

from vitrine.attacks import AutoAttack, is_adversarial

SHORT = {"steps": 30, "queries": 60, "batch_size": 16}


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.05)])
def test_breaks_every_image_whose_margin_is_smaller_and_no_other(
    norm, eps, linear, images, own_labels, boundary_distances
):
    network, pictures = linear(classes=5), images(40, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    *_, evaluation = AutoAttack(norm=norm, eps=eps, **SHORT).run(network, pictures, labels)
    reach = boundary_distances(network, pictures, labels, norm)
    assert 5 < (reach < eps).sum() < 35
    assert torch.equal(evaluation.robust, reach >= eps)
    assert torch.equal(is_adversarial(network, evaluation.adversarial, labels), reach < eps)
    assert torch.equal(evaluation.adversarial[evaluation.robust], pictures[evaluation.robust])


def test_finds_what_brute_force_finds_on_two_pixels(images, own_labels):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    for parameter in network.parameters():
        parameter.data *= 4
    network[1].bias.data -= network[1].weight.data.sum(1) / 2
    pictures, eps = images(40, 1, 1, 2), 0.1
    labels = own_labels(network, pictures)
    line = torch.linspace(-eps, eps, 161)
    grid = torch.cartesian_prod(line, line)
    known = []
    for image, label in zip(pictures, labels):
        points = (image.view(1, 2) + grid).clamp(0, 1).view(-1, 1, 1, 2)
        known.append(bool((network(points).argmax(1) != label).any()))
    success = is_adversarial(network, AutoAttack(eps=eps, **SHORT)(network, pictures, labels), labels)
    assert 5 < sum(known) < 35
    assert success.tolist() == known


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_as_the_one_that_was_not(convnet, images, own_labels):
    pictures = images(20, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    labels[3] = (labels[3] + 1) % 5
    attack = AutoAttack(eps=0.01, steps=6, targets=2, queries=30, batch_size=6)
    whole = list(attack.run(convnet, pictures, labels))[-1]
    assert 0 < whole.robust.sum() < 19 and whole.broken_by[3] == 0
    for cut in range(0, 12, 3):
        state = None
        for number, evaluation in enumerate(attack.run(convnet, pictures, labels)):
            if number == cut:
                kept = io.BytesIO()
                torch.save(evaluation.state_dict(), kept)
                state = torch.load(io.BytesIO(kept.getvalue()), weights_only=True)
                break
        again = list(attack.run(convnet, pictures, labels, state=state))[-1]
        assert torch.equal(again.broken_by, whole.broken_by)
        assert torch.equal(again.adversarial, whole.adversarial)
        assert again.report() == whole.report()


def test_a_state_of_something_else_is_refused(convnet, images, own_labels):
    pictures = images(6, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    attack = AutoAttack(eps=0.01, steps=2, targets=1, queries=2)
    state = next(attack.run(convnet, pictures, labels)).state_dict()
    others = (
        (attack, pictures.flip(0), labels.flip(0)),
        (attack, pictures, (labels + 1) % 5),
        (dataclasses.replace(attack, eps=0.02), pictures, labels),
    )
    for other, x, y in others:
        with pytest.raises(ValueError, match="state is of"):
            list(other.run(convnet, x, y, state=state))


def test_the_report_goes_down_part_by_part(convnet, images, own_labels):
    pictures = images(20, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    *_, evaluation = AutoAttack(eps=0.01, steps=6, targets=2, queries=30).run(convnet, pictures, labels)
    report = evaluation.report()
    assert list(report) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    values = list(report.values())
    assert values == sorted(values, reverse=True) and values[0] == 1
    assert values[-1] == pytest.approx(evaluation.accuracy)


def test_the_same_images_are_broken_without_early_stopping(convnet, images, own_labels):
    network, pictures = convnet.double(), images(16, 3, 8, 8).double()
    labels = own_labels(network, pictures)
    attack = AutoAttack(eps=0.01, steps=8, targets=2, queries=30)
    left, stayed = (
        is_adversarial(network, dataclasses.replace(attack, early_stop=c)(network, pictures, labels), labels)
        for c in (True, False)
    )
    assert torch.equal(left, stayed)


@pytest.mark.parametrize(("classes", "left"), [(2, ["apgd-ce", "fab-t", "square"]), (4, None)])
def test_attacks_that_need_more_classes_are_skipped_with_a_warning(classes, left, linear, images, own_labels):
    network, pictures = linear(classes), images(4, 1, 1, 12).double()
    labels = own_labels(network, pictures)
    attack = AutoAttack(eps=0.01, steps=3, queries=3)
    if left is None:
        *_, evaluation = attack.run(network, pictures, labels)
        assert evaluation.skipped == []
        return
    with pytest.warns(UserWarning, match=f"{classes} classes: apgd-t"):
        *_, evaluation = attack.run(network, pictures, labels)
    assert evaluation.skipped == ["apgd-t"]
    assert evaluation.names == ["clean", *left]


def test_resumes_from_a_state_in_which_no_image_is_left(linear, images, own_labels):
    network, pictures = linear(classes=4), images(8, 1, 1, 12).double()
    attack = AutoAttack(eps=0.9, steps=2, queries=2, batch_size=4)
    labels = own_labels(network, pictures)
    *_, whole = attack.run(network, pictures, labels)
    assert whole.accuracy == 0
    *_, again = attack.run(network, pictures, labels, state=whole.state_dict())
    assert torch.equal(again.adversarial, whole.adversarial)
