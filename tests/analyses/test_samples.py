import csv
import dataclasses
import io
import logging

import pytest
import torch
from thread_ranks import on_ranks
from torch import nn

from vitrine.analyses.base import Figure, File, Probes, Scalar, State, Subject
from vitrine.analyses.head import head_inputs, linear_head
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, distilled_targets, fit_head
from vitrine.analyses.samples import ProbesAlone, Samples
from vitrine.analyses.training_pass import stratified
from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.memory import InMemory
from vitrine.runs.scratch import FileScratch

CLASSES = ["red", "green", "blue"]


def network(seed=0, *tail):
    """Random features of the mean colours of four quarters, and a head that tells the classes."""
    torch.manual_seed(seed)
    see = nn.Linear(12, 8)
    head = nn.Linear(8, 3)
    trunk = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), see, nn.Tanh(), head]
    return nn.Sequential(*trunk, *tail).eval().requires_grad_(False)


def images(count=90, seed=0):
    """Images in which one colour is strongest, which is their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    values = torch.randint(0, 160, (count, 3, 8, 8), generator=generator)
    values[torch.arange(count), labels] += 70
    return values.to(torch.uint8), labels


def subject(net=None, data=None, **more):
    train = InMemory(*images()) if data is None else data
    pictures, labels = images(6, seed=1)
    probes = Probes(pictures / 255, labels, torch.arange(6))
    given = {"train": train, "learning_rate": 0.1, "step": 10, "batch_size": 32} | more
    return Subject(net or network(), probes, InMemory(pictures, labels), CLASSES, {}, **given)


def run(given, technique=Samples, **settings):
    """Figures and scalars by key, the state's tensors and the files."""
    found = list(technique(**{"side": 16, "shown": 4, "penalty": 1e-2, "probes": 2} | settings)(given))
    figures = {item.key: item for item in found if isinstance(item, Figure)}
    scalars = {item.key: item.value for item in found if isinstance(item, Scalar)}
    state = next((item.tensors for item in found if isinstance(item, State)), {})
    return figures, scalars, state, {item.name: item.text for item in found if isinstance(item, File)}


def test_each_probe_has_a_picture_a_score_and_the_set_has_its_own():
    figures, scalars, _, files = run(subject())
    scores = ("duals", "influence", "tracin", "nearest")
    of_probes = [f"probe-{i:03d}/{score}" for i in range(2) for score in scores]
    of_set = ["most influential", "suspects by self-influence", "suspects by loss"]
    assert list(figures) == [*of_probes, *of_set]
    assert {f.probe for f in figures.values()} == {0, 1, None}
    assert all(f.image.dtype == torch.uint8 and f.image.shape[2] == 3 for f in figures.values())
    assert list(files) == ["suspects.csv"]
    assert set(scalars) == {"refit_agreement", "dual_share_of_top_1_percent", "dual_entropy"}
    assert all(0 <= value <= 1 for value in scalars.values())


def test_the_duals_of_all_images_are_the_refitted_logit():
    given = subject()
    figures, scalars, _, _ = run(given, probes=6)
    head = linear_head(given.network, given.probes.images)
    own = head.augmented
    features = torch.cat([inputs for inputs, *_ in head_inputs(given.network, head, given.train_batches())])
    weight = fit_head(HeadProblem(Features(features), distilled_targets(own), 1e-2), own)
    inputs, logits, _ = next(head_inputs(given.network, head, [(given.probes.images, given.probes.labels)]))
    refitted = Features(inputs)[:] @ weight.T
    for i in range(6):
        figure = figures[f"probe-{i:03d}/duals"]
        assert figure.values["logit"] == pytest.approx(refitted[i, logits[i].argmax()].item(), rel=1e-4)
        assert figure.values["added"] + figure.values["taken"] == pytest.approx(figure.values["logit"])
        assert list(figure.scores[:4]) == sorted(figure.scores[:4], reverse=True)
        assert min(figure.scores[:4]) > 0 > max(figure.scores[4:])  # for, then against
    same = (features @ own[:, :8].T.float() + own[:, 8].float()).argmax(1) == (
        Features(features)[:] @ weight.T
    ).argmax(1)
    assert scalars["refit_agreement"] == pytest.approx(same.float().mean().item())
    caution = "CAUTION" in figures["probe-000/duals"].caption
    assert caution == (scalars["refit_agreement"] < 0.995)


def test_planted_wrong_labels_are_found_and_said():
    pictures, labels = images()
    wrong = torch.zeros(90, dtype=torch.bool)
    wrong[[4, 30, 53, 71]] = True
    data = InMemory(pictures, torch.where(wrong, (labels + 1) % 3, labels))
    data.mislabeled = wrong
    given = subject(trained(pictures, labels), data)
    figures, scalars, _, files = run(given)
    assert scalars["mislabels_auc/self_influence"] > 0.95 and scalars["mislabels_auc/loss"] > 0.95
    for key in ("suspects by self-influence", "suspects by loss"):
        assert set(figures[key].indices[:4]) == {4, 30, 53, 71}
        assert "4 labels are known to be wrong" in figures[key].caption
        assert figures[key].table.columns["known"][:4] == ["wrong"] * 4
    rows = list(csv.DictReader(io.StringIO(files["suspects.csv"])))
    assert len(rows) == 90 and {int(row["index"]) for row in rows[:4]} == {4, 30, 53, 71}
    assert [int(row["self_influence_rank"]) for row in rows] == list(range(1, 91))
    assert sorted(int(row["loss_rank"]) for row in rows) == list(range(1, 91))
    first = rows[0]
    assert first["known_wrong"] == "1" and first["label"] != first["predicted"] and first["path"] == ""


def trained(pictures, labels):
    """The network with a head that is fitted to labels."""
    net = network()
    with torch.no_grad():
        features = Features(net[:-1](pictures / 255))
        one_hot = nn.functional.one_hot(labels).double()
        weight = torch.linalg.lstsq(features[:], 8 * one_hot).solution.T.float()
        net[-1].weight.copy_(weight[:, :8])
        net[-1].bias.copy_(weight[:, 8])
    return net


def test_tracin_goes_on_from_the_checkpoint_before():
    """Twice the same network: the sums are its products times the sum of the learning rates."""
    figures, _, first, _ = run(subject(step=10, learning_rate=0.1))
    assert "step 10" in figures["probe-000/tracin"].caption
    before = {"samples": first}
    figures, _, second, _ = run(subject(step=20, learning_rate=0.3, previous_state=before))
    torch.testing.assert_close(second["tracin"], 4 * first["tracin"])
    assert "2 checkpoints from step 10 to 20" in figures["probe-000/tracin"].caption
    assert second["steps"].tolist() == [10, 20] and second["rates"].tolist() == [0.1, 0.3]
    # what is of later steps, or of other products, is not gone on with
    for other, settings in (
        (subject(step=5, previous_state=before), {}),
        (subject(step=20, previous_state=before), {"product": "cosine"}),
    ):
        assert len(run(other, **settings)[2]["steps"]) == 1


def test_what_is_shown_is_said():
    figures, _, _, _ = run(subject(), targets="labels", product="cosine")
    assert "refitted to the labels" in figures["probe-000/duals"].caption
    assert "cosines" in figures["probe-000/tracin"].caption
    assert all(-1 <= score <= 1 for score in figures["probe-000/nearest"].scores)


def test_without_a_learning_rate_tracin_is_left_out_and_said(caplog):
    caplog.set_level(logging.INFO)
    figures, _, state, _ = run(subject(learning_rate=None))
    assert not state and not any(key.endswith("tracin") for key in figures)
    assert "does not say its learning rate" in caplog.text
    figures, _, state, _ = run(subject(learning_rate=0.0))  # as at the end of a schedule
    assert state["rates"].tolist() == [0.0] and not any(key.endswith("tracin") for key in figures)


def test_of_an_image_of_ones_own_nothing_of_the_whole_set_is_computed(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("computed, and nobody sees it")

    figures, _, state, _ = run(subject())
    monkeypatch.setattr("vitrine.analyses.samples.self_influence", refuse)
    monkeypatch.setattr("vitrine.analyses.samples.SuspectFigures", refuse)
    own, _, after, files = run(subject(), ProbesAlone)
    assert own and own.keys() == {key for key, figure in figures.items() if figure.probe is not None}
    assert all(torch.equal(figure.image, figures[key].image) for key, figure in own.items())
    assert torch.equal(after["tracin"], state["tracin"]) and not files


def test_ranks_together_show_the_same():
    one, subjects = run(subject()), [subject(), subject()]

    def run_rank(rank, all_gather):
        return run(dataclasses.replace(subjects[rank], rank=rank, world_size=2, all_gather=all_gather))

    figures, scalars, state, files = on_ranks(2, run_rank)[0]
    assert list(figures) == list(one[0]) and list(files) == list(one[3])
    for key, figure in figures.items():
        assert figure.indices == one[0][key].indices and figure.caption == one[0][key].caption
        assert list(figure.scores) == pytest.approx(list(one[0][key].scores), rel=1e-4, abs=1e-9)
        assert torch.equal(figure.image, one[0][key].image)
    assert scalars == pytest.approx(one[1])
    torch.testing.assert_close(state["tracin"], one[2]["tracin"])


def test_of_more_images_a_share_of_each_class_is_looked_at():
    figures, _, _, _ = run(subject(), images=30)
    assert "of 30 of 90, the same share of each class" in figures["most influential"].caption
    labels = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    chosen = stratified(labels, 20, seed=0)
    assert labels[chosen].bincount().tolist() == [14, 5, 1]
    assert torch.equal(chosen, stratified(labels, 20, 0)) and not torch.equal(
        chosen, stratified(labels, 20, 1)
    )
    assert labels[stratified(labels, 3, 0)].tolist() == [0, 1, 2]  # each class at least once


def test_labels_that_are_not_listed_are_not_read_to_draw_a_share():
    class Unlisted(ImageDataset):
        read = 0

        def __len__(self):
            return 90

        def __getitem__(self, index):
            self.read += 1
            return data[0][index], int(data[1][index])

    data, train = images(), Unlisted()
    figures, _, _, _ = run(subject(data=train), images=30)
    assert "of 30 of 90, drawn at random" in figures["most influential"].caption
    assert train.read < 90 * 2  # those, and what is shown


def test_features_in_half_precision_in_a_file_show_the_same(monkeypatch, tmp_path):
    whole, _, _, _ = run(subject())
    monkeypatch.setattr("vitrine.analyses.training_pass.FULL", 0)
    monkeypatch.setattr("vitrine.analyses.training_pass.IN_MEMORY", 0)
    monkeypatch.setattr("vitrine.analyses.head_features.KEPT", 0)
    asked = []

    class Watched(FileScratch):
        def empty(self, key, shape, dtype):
            asked.append((shape, dtype))
            return super().empty(key, shape, dtype)

    halves, _, _, _ = run(subject(scratch=Watched(tmp_path)))
    assert asked == [((90, 8), torch.float16)]
    for key, figure in halves.items():
        assert figure.values == pytest.approx(whole[key].values, rel=1e-2)
    assert halves["probe-000/nearest"].indices[:2] == whole["probe-000/nearest"].indices[:2]


def test_an_image_of_unknown_class_is_explained():
    given = subject()
    probes = dataclasses.replace(given.probes, labels=torch.full((6,), -1))
    figures, _, _, _ = run(dataclasses.replace(given, probes=probes))
    assert figures["probe-000/duals"].label is None


@pytest.mark.parametrize(
    ("net", "more", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), {}, "no linear layer"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), {}, "is a convolution"),
        (network(0, nn.Softmax(1)), {}, "something follows it"),
        (network(), {"train": None, "train_note": "a stream"}, "there are no training images: a stream"),
    ],
)
def test_what_has_no_such_scores_is_left_out_and_said_once(net, more, reason, caplog):
    figures, scalars, state, files = run(subject(net.eval(), **more))
    assert not figures and not scalars and not state
    assert reason in files["left-out.txt"] and reason in caplog.text and len(caplog.records) == 1


def one_class():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).eval()


def not_finite():
    net = network()
    net[2].weight[0, 0] = torch.nan
    return net


@pytest.mark.parametrize(
    ("net", "settings", "data", "reason"),
    [
        (one_class, {}, None, "has one class"),
        (not_finite, {}, None, "not finite"),
        (network, {}, InMemory(*(part[:2] for part in images())), "2 training images are fewer than the 3"),
        (network, {"images": 2}, None, "2 training images are fewer than the 3"),
        (network, {}, InMemory(images()[0], images()[1] + 1), "label 3, and the network 3 classes"),
    ],
)
def test_what_cannot_be_computed_is_an_error_that_says_why(net, settings, data, reason):
    with pytest.raises(ValueError, match=reason):
        run(subject(net(), data), **settings)
