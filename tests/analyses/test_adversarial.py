import pytest
import torch
from torch import nn

from vitrine import config, modules
from vitrine.analyses import paint
from vitrine.analyses.adversarial import Adversarial
from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.analyses.saliency import input_gradient
from vitrine.core.registry import UnknownName

EPS = 8 / 255


def linear(classes=2):
    """Closed forms: the worst perturbation for two classes is -eps sign(w_true - w_other)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes)).eval().requires_grad_(False)


def subject(network, names=("ant", "bee"), n=6, size=8, labels=None, masks=None):
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    if labels is None:
        with torch.no_grad():
            labels = network(images).argmax(1)
    return Subject(network, Probes(images, labels, torch.arange(n), masks), [], list(names), {})


def split(results):
    results = list(results)
    figures = [r for r in results if isinstance(r, Figure)]
    return figures, {r.key: r.value for r in results if isinstance(r, Scalar)}


def tile(figure, row, column, side):
    """A picture of the table below two lines of column titles, with one line of words below each row."""
    top, left = 2 * LINE + row * (side + LINE + GAP), LINE + column * (side + GAP)
    return figure.image[top : top + side, left : left + side]


def test_confidences_and_the_share_fooled_are_those_of_the_worst_perturbation():
    given = subject(linear())
    images, labels = given.probes.images, given.probes.labels
    figures, scalars = split(Adversarial()(given))
    weight = given.network[1].weight
    with torch.no_grad():
        logits = given.network(images)
    margin = logits.gather(1, labels[:, None])[:, 0] - logits.gather(1, 1 - labels[:, None])[:, 0]
    worst = margin - EPS * (weight[0] - weight[1]).abs().sum()
    assert scalars["fooled"] == pytest.approx((worst < 0).float().mean().item())
    drop = (margin.sigmoid() - worst.sigmoid()).mean().item()
    assert scalars["confidence_drop"] == pytest.approx(drop, abs=1e-5)
    for i, figure in enumerate(figures):
        assert figure.values["clean/true"] == pytest.approx(margin[i].sigmoid().item(), abs=1e-5)
        assert figure.values["adversarial/true"] == pytest.approx(worst[i].sigmoid().item(), abs=1e-5)
        name = given.classes[labels[i]]
        other = given.classes[labels[i] if worst[i] > 0 else 1 - labels[i]]
        assert figure.caption.startswith(
            f"probe {i}, {name}: {name} {margin[i].sigmoid():.0%} as it is, {other} "
        )


def test_the_picture_shows_the_image_ten_times_the_perturbation_and_the_adversarial_image():
    given = subject(linear(), n=1)
    (figure,), _ = split(Adversarial()(given))
    label, weight = int(given.probes.labels[0]), given.network[1].weight
    worst = -EPS * (weight[label] - weight[1 - label]).sign().view(3, 8, 8)
    image = given.probes.images[0]
    shown = {(0, 0): image, (0, 1): 0.5 + 10 * worst, (1, 0): image + worst, (1, 1): 0.5 + worst}
    for (row, column), expected in shown.items():
        painted = paint.resize(paint.picture(expected), 128).int()
        assert (tile(figure, row, column, 128).int() - painted).abs().max() <= 1
    assert figure.image.shape[1] == LINE + 3 * (128 + GAP) - GAP  # a linear network has no Grad-CAM


def test_both_rows_show_the_gradient_of_the_true_class_and_grad_cam_of_both_classes():
    torch.manual_seed(0)
    names = ["ant", "bee", "cat"]
    network = modules.load_network("convnet", classes=names).eval().requires_grad_(False)
    given = subject(network, names, n=3, size=64)
    figures, _ = split(Adversarial(steps=3)(given))
    images, labels = given.probes.images, given.probes.labels
    for i, figure in enumerate(figures):
        side = 128
        assert figure.image.shape[1] == LINE + 5 * (side + GAP) - GAP
        gradient = input_gradient(network, images, labels)[i]
        peak = gradient.abs().amax(0).flatten().sort().values[round(0.99 * 64 * 64) - 1].item()
        expected = paint.resize(paint.picture(gradient / (2 * peak) + 0.5), side).int()
        assert (tile(figure, 0, 2, side).int() - expected).abs().max() <= 2
        layer = [name for name, m in network.named_modules() if isinstance(m, nn.ReLU)][-1]
        cam = paint.upsample(grad_cam(network, images, labels, layer)[i], (64, 64))
        expected = paint.resize(paint.overlay_heatmap(cam, images[i]), side).int()
        assert (tile(figure, 0, 3, side).int() - expected).abs().max() <= 2


def test_a_target_is_reached_from_all_other_classes_and_may_be_a_name_or_an_index():
    names = ["ant", "bee", "cat", "dog"]
    given = subject(linear(4), names, labels=torch.tensor([0, 1, 2, 3, 0, 2]))
    figures, scalars = split(Adversarial(target="cat", eps=0.5)(given))
    assert [f.key for f in figures] == [f"probe-{i:03d}/as cat" for i in (0, 1, 3, 4)]
    assert {f.label for f in figures} == {2} and "towards cat" in figures[0].caption
    assert all(f.values["adversarial/other"] > f.values["clean/other"] for f in figures)
    assert scalars["fooled"] == 1
    again, _ = split(Adversarial(target="2", eps=0.5)(given))
    assert all(torch.equal(a.image, b.image) for a, b in zip(figures, again))
    with pytest.raises(UnknownName, match="did you mean cat"):
        list(Adversarial(target="kat")(given))


def test_the_share_of_the_gradient_on_a_thing_is_that_of_the_weights_there():
    there = torch.zeros(6, 8, 8, dtype=torch.bool)
    there[:3, :, :4] = True  # three probes have it
    given = subject(linear(), masks={"sign": there, "sticker": torch.zeros_like(there)})
    figures, scalars = split(Adversarial()(given))
    weight = (given.network[1].weight[0] - given.network[1].weight[1]).view(3, 8, 8).abs().amax(0)
    share = (weight[:, :4].sum() / weight.sum()).item()
    for side in ("clean", "adversarial"):
        assert scalars[f"gradient_on_sign/{side}"] == pytest.approx(share, abs=1e-5)
        assert figures[0].values[f"{side}/gradient_on_sign"] == pytest.approx(share, abs=1e-5)
    assert not any("sticker" in key for key in scalars)


def test_the_same_pictures_come_again_and_a_probe_does_not_depend_on_the_others():
    given = subject(linear())
    few, _ = split(Adversarial(probes=1)(given))
    again, _ = split(Adversarial(probes=1)(given))
    more, _ = split(Adversarial()(given))
    assert torch.equal(few[0].image, again[0].image)
    assert (few[0].image.int() - more[0].image.int()).abs().max() <= 1


def test_it_is_on_unless_switched_off_and_its_settings_are_understood():
    settings = config.load(["analysis.adversarial.eps=4/255", "analysis.adversarial.target=stop"])
    assert settings.analysis.adversarial == Adversarial(eps=4 / 255, target="stop")
    assert settings.analysis.adversarial.enabled
    assert not config.load(["analysis.adversarial.enabled=false"]).analysis.adversarial.enabled


def test_where_all_probes_are_of_the_target_that_is_said(caplog):
    (said,) = Adversarial(target="bee")(subject(linear(), labels=torch.ones(6).long()))
    assert said.name == "left-out.txt" and "every one (6) is of bee, the target" in said.text
    assert "adversarial is left out: no probe is attacked" in caplog.text and len(caplog.records) == 1
