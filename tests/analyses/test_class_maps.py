import torch
from torch import nn

from vitrine import modules
from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.cam import cam, grad_cam
from vitrine.analyses.class_maps import ClassMaps, share_inside

CLASSES = ["stop", "yield", "no entry"]


def subject(network, n=4, size=32, masks=None):
    torch.manual_seed(1)
    images = torch.rand(n, 3, size, size)
    with torch.no_grad():
        predicted = network(images).argmax(1)
    labels = predicted.clone()
    labels[0] = (labels[0] + 1) % 3  # one that the network gets wrong
    return Subject(network, Probes(images, labels, torch.arange(n), masks), [], CLASSES, {})


def convnet():
    torch.manual_seed(0)
    return modules.load_network("convnet", classes=CLASSES).eval().requires_grad_(False)


def test_each_probe_shows_its_true_class_and_the_predicted_one_where_that_is_another():
    given = subject(convnet())
    figures = list(ClassMaps()(given))
    wrong, truth = figures[1].label, given.probes.labels.tolist()
    assert [(f.probe, f.label) for f in figures] == [(0, truth[0]), (0, wrong), *list(enumerate(truth))[1:]]
    assert [f.key for f in figures][:2] == [f"probe-000/{CLASSES[truth[0]]}", f"probe-000/{CLASSES[wrong]}"]
    with torch.no_grad():
        confidence = given.network(given.probes.images).softmax(1)
    layer = figures[0].layer
    found = grad_cam(given.network, given.probes.images, given.probes.labels, layer)
    for figure in figures:
        assert abs(figure.values["confidence"] - confidence[figure.probe, figure.label].item()) < 1e-6
        assert figure.image.dtype == torch.uint8
        if figure.label == truth[figure.probe]:
            assert abs(figure.values["maximum"] - found[figure.probe].max().item()) < 1e-6
    peak = cam(given.network, given.probes.images)[0, wrong].max().item()
    assert abs(figures[1].values["cam_maximum"] - peak) < 1e-5


def test_pictures_are_enlarged_by_whole_pixels_and_the_difference_comes_last():
    right, wrong = (f.image for f in list(ClassMaps(side=64)(subject(convnet())))[:2])
    assert right.shape == (64, 3 * 64 + 4, 3)  # picture, CAM, Grad-CAM
    assert wrong.shape == (64, 4 * 64 + 6, 3)


def test_a_network_without_a_pooled_head_shows_grad_cam_alone():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)).eval()
    figures = list(ClassMaps(side=32)(subject(network)))
    assert figures[0].image.shape == (32, 2 * 32 + 2, 3)
    assert "cam_maximum" not in figures[0].values
    assert figures[0].layer == "1"


def test_a_perceptron_looks_nowhere():
    network = modules.load_network("perceptron", classes=CLASSES, image_size=32).eval()
    assert list(ClassMaps()(subject(network))) == []


def test_explanations_are_held_against_the_masks():
    left = torch.zeros(4, 32, 32, dtype=torch.bool)
    left[:, :, :16] = True
    results = list(ClassMaps()(subject(convnet(), masks={"sign": left, "sticker": ~left})))
    figures = [r for r in results if isinstance(r, Figure)]
    for figure in figures:
        assert abs(figure.values["inside_sign"] + figure.values["inside_sticker"] - 1) < 1e-5
    scalars = {r.key: r.value for r in results if isinstance(r, Scalar)}
    truths = [f for f in figures if "wrongly" not in f.caption]
    layer = figures[0].layer
    mean = sum(f.values["inside_sign"] for f in truths) / len(truths)
    assert len(truths) == 4 and abs(scalars[f"inside_sign/{layer}"] - mean) < 1e-6


def test_share_inside_is_a_share_of_the_mass():
    values = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    top = torch.tensor([[True, True], [False, False]])
    assert share_inside(values, top) == 0.75
