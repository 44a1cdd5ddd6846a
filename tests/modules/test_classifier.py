import copy

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from vitrine.core.settings import SettingError
from vitrine.modules import Classifier, OptimizerSettings, load_network, record_of
from vitrine.modules.finite import NonFiniteLoss
from vitrine.modules.objectives.standard import Standard

NAMES = ["zero", "one", "two", "three"]
SETTINGS = OptimizerSettings("sgd", lr=0.05, weight_decay=5e-4, schedule="constant")


class Squares(Dataset):
    """Noise that is brighter the higher its label."""

    def __init__(self, count, classes=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(classes, (count,), generator=generator)
        light = self.labels.view(-1, 1, 1, 1) / classes
        self.images = (torch.rand(count, 3, 8, 8, generator=generator) + light) / 2

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index], index, 0


def loader(dataset, batch_size=8):
    return DataLoader(dataset, batch_size, generator=torch.Generator())


def small(classes=NAMES, objective=None, optimizer=SETTINGS, **options):
    torch.manual_seed(0)
    network = load_network("convnet", classes=classes, widths=[4, 8])
    return Classifier(network, objective or Standard(), optimizer, record_of(network).classes, **options)


def trainer(tmp_path, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"logger": False, "max_epochs": 1, "num_sanity_val_steps": 0} | quiet | options
    return Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=1, **options)


def by_hand(classifier, dataset, steps=None, smoothing=0.0, replays=1, batch_size=8):
    """The weights after a plain loop with SGD, Nesterov momentum and weight decay on matrices."""
    network = copy.deepcopy(classifier.network).train()
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 5e-4}, {"params": vectors}]
    optimizer = torch.optim.SGD(groups, 0.05, momentum=0.9, nesterov=True)
    for images, labels in zip(dataset.images.split(batch_size), dataset.labels.split(batch_size)):
        for _ in range(replays):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels, label_smoothing=smoothing).backward()
            optimizer.step()
    return network.state_dict()


def assert_same(state, other):
    for key, value in state.items():
        assert torch.equal(value, other[key]), key


def test_a_trained_classifier_is_bit_for_bit_that_of_a_plain_loop(tmp_path):
    dataset = Squares(40)
    classifier = small(objective=Standard(label_smoothing=0.1))
    expected = by_hand(classifier, dataset, smoothing=0.1)
    trainer(tmp_path).fit(classifier, loader(dataset), loader(dataset))
    assert_same(classifier.network.state_dict(), expected)


def test_the_scalars_of_a_validation_are_those_of_a_brute_force(tmp_path):
    dataset = Squares(50)
    classifier = small()
    run = trainer(tmp_path)
    run.fit(classifier, loader(dataset), loader(dataset))
    network = classifier.network.eval()
    with torch.no_grad():
        logits = network(dataset.images)
    guesses, probabilities = logits.argmax(1).tolist(), logits.softmax(1).max(1).values.tolist()
    labels = dataset.labels.tolist()
    found = {key: float(value) for key, value in run.callback_metrics.items()}
    right = [g == t for g, t in zip(guesses, labels)]
    assert found["val/accuracy"] == pytest.approx(sum(right) / 50)
    assert found["val/loss"] == pytest.approx(F.cross_entropy(logits, dataset.labels).item(), rel=1e-5)
    for k, name in enumerate(NAMES):
        mine = [r for r, t in zip(right, labels) if t == k]
        assert found[f"val/accuracy_class/{name}"] == pytest.approx(sum(mine) / len(mine))
    recalls, f1s = [], []
    for k in range(4):
        hits = sum(g == t == k for g, t in zip(guesses, labels))
        recalls.append(hits / labels.count(k))
        f1s.append(2 * hits / (labels.count(k) + guesses.count(k)))
    assert found["val/macro_accuracy"] == pytest.approx(sum(recalls) / 4)
    assert found["val/macro_f1"] == pytest.approx(sum(f1s) / 4)
    matrix = [[sum(t == i and g == j for g, t in zip(guesses, labels)) for j in range(4)] for i in range(4)]
    assert classifier.metrics.confusion.tolist() == matrix
    gap = 0.0
    for b in range(15):
        inside = [i for i, p in enumerate(probabilities) if b / 15 < p <= (b + 1) / 15]
        if inside:
            gap += abs(sum(right[i] for i in inside) - sum(probabilities[i] for i in inside)) / 50
    assert found["val/ece"] == pytest.approx(gap, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes(tmp_path, classes):
    dataset = Squares(24, classes)
    classifier = small(classes=classes)
    run = trainer(tmp_path, limit_train_batches=1)
    run.fit(classifier, loader(dataset), loader(dataset))
    confusion = classifier.metrics.confusion
    assert confusion.shape == (classes, classes) and confusion.sum() == 24
    logged = {key: float(value) for key, value in run.callback_metrics.items()}
    each = [key for key in logged if key.startswith("val/accuracy_class/")]
    if classes == 2:  # a class that does not occur has no accuracy
        assert len(each) == len(dataset.labels.unique())
        return
    assert not each and len(logged) < 50
    occurring = confusion.sum(1) > 0
    recalls = confusion.diagonal()[occurring].double() / confusion.sum(1)[occurring]
    for name, share in (("minimum", 0), ("percentile_10", 0.1), ("median", 0.5), ("maximum", 1)):
        assert logged[f"val/class_accuracy/{name}"] == pytest.approx(recalls.quantile(share).item())
    ranks = [f"{rank:02d}" for rank in range(1, min(20, len(recalls)) // 2 + 1)]
    for family, extreme in (("worst", recalls.sort()), ("best", recalls.sort(descending=True))):
        of_rank = [logged[f"val/{family}_classes/{rank}"] for rank in ranks]
        assert of_rank == pytest.approx(extreme.values[: len(ranks)].tolist())
    assert sorted(classifier.validation_metrics(dataset.labels)) == sorted(
        key for key in logged if key.startswith("val/")
    )


def test_ranked_classes_are_called_alike_however_many_occur():
    classifier = small(classes=1000)
    few, all_ = (classifier.validation_metrics(torch.arange(count)) for count in (5, 1000))
    ranked = {name for name in few if "worst" in name or "best" in name}
    assert len(ranked) == 4 and ranked < set(all_)


@pytest.mark.parametrize("classes", [10, 11])
def test_five_guesses_are_counted_where_there_are_more_than_ten_classes(tmp_path, classes):
    dataset, classifier = Squares(40, classes), small(classes=classes)
    run = trainer(tmp_path)
    run.validate(classifier, loader(dataset), verbose=False)
    assert sorted(classifier.validation_metrics(dataset.labels)) == sorted(run.callback_metrics)
    if classes == 10:
        assert "val/top5_accuracy" not in run.callback_metrics
        return
    with torch.no_grad():
        order = classifier.network.eval()(dataset.images).argsort(1, descending=True).tolist()
    hits = [label in guesses[:5] for label, guesses in zip(dataset.labels.tolist(), order)]
    assert run.callback_metrics["val/top5_accuracy"].item() == pytest.approx(sum(hits) / 40)
    assert 0 < sum(hits) < 40


def test_classes_of_one_name_have_an_accuracy_each(tmp_path):
    dataset = Squares(24)
    run = trainer(tmp_path, limit_train_batches=1)
    run.fit(small(classes=["crane", "lake", "crane", "heron"]), loader(dataset), loader(dataset))
    logged = {key.rpartition("/")[2] for key in run.callback_metrics if "accuracy_class" in key}
    assert logged == {"crane (0)", "lake", "crane (2)", "heron"}


def test_classes_that_tie_are_counted_as_the_first(tmp_path):
    dataset, classifier = Squares(24), small()
    torch.nn.init.zeros_(classifier.network.head.weight), torch.nn.init.zeros_(classifier.network.head.bias)
    run = trainer(tmp_path)
    run.validate(classifier, loader(dataset), verbose=False)
    first = (dataset.labels == 0).float().mean().item()
    found = {key: float(value) for key, value in run.callback_metrics.items()}
    assert found["val/accuracy"] == pytest.approx(first) and found["val/accuracy_class/zero"] == 1
    assert found["val/ece"] == pytest.approx(abs(first - 1 / 4))


def test_training_logs_the_mean_since_it_logged_last(tmp_path):
    class Listener(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

        def on_train_batch_start(self, trainer, *_):
            if "train/loss" in trainer.callback_metrics:
                logged[trainer.global_step] = float(trainer.callback_metrics["train/loss"])

    losses, logged = [], {}
    dataset = Squares(56)
    run = trainer(tmp_path, log_every_n_steps=3, callbacks=[Listener()])
    run.fit(small(), loader(dataset))
    assert logged[3] == pytest.approx(sum(losses[:3]) / 3)
    assert logged[6] == pytest.approx(sum(losses[3:6]) / 3)


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path):
    dataset = Squares(24)
    dataset.images[13] = float("nan")
    classifier = small()
    with pytest.raises(
        NonFiniteLoss, match="the loss is nan at step 1 on the batch of images 8, 9"
    ) as caught:
        trainer(tmp_path).fit(classifier, loader(dataset))
    assert caught.value.step == 1 and caught.value.indices == list(range(8, 16))
    assert all(p.isfinite().all() for p in classifier.network.parameters())


class Replayed(Standard):
    """An objective with all that the protocol offers, to see that Classifier takes it up."""

    replays = 3

    def __call__(self, network, images, labels):
        seen.append("loss")
        return super().__call__(network, images, labels)

    def after_backward(self, network):
        assert all(p.grad is not None for p in network.parameters())
        seen.append("after_backward")

    def validate(self, network, images, labels):
        assert not network.training
        images = images.requires_grad_()
        (gradient,) = torch.autograd.grad(network(images).sum(), images)
        return {"gradient": gradient.flatten(1).norm(dim=1), "ones": torch.ones(len(labels))}

    def state_dict(self):
        return {"calls": len(seen)}

    def load_state_dict(self, state):
        restored.update(state)


seen: list[str] = []
restored: dict[str, int] = {}


def test_an_objective_may_replay_batches_act_after_backward_and_validate(tmp_path):
    seen.clear()
    dataset = Squares(16)
    classifier = small(objective=Replayed())
    expected = by_hand(classifier, dataset, replays=3)
    run = trainer(tmp_path)
    run.fit(classifier, loader(dataset), loader(dataset))
    assert seen == ["loss", "after_backward"] * 6
    assert run.callback_metrics["val/ones"] == 1 and run.callback_metrics["val/gradient"] > 0
    assert run.global_step == 2  # batches, as schedules count them
    assert_same(classifier.network.state_dict(), expected)
    run.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path, max_epochs=2).fit(
        classifier, loader(dataset), ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert restored["calls"] == 12
    run.validate(classifier, loader(dataset), verbose=False)  # in inference mode
    assert run.callback_metrics["val/ones"] == 1


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_ends_in_the_weights_of_the_whole_one(tmp_path, ema):
    dataset = Squares(24)
    settings = OptimizerSettings(name="adamw", lr=0.01, schedule="cosine", warmup=0.3)

    class Save(Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def run(*callbacks, **options):
        classifier = small(optimizer=settings)
        average = [EMAWeightAveraging(decay=ema)] if ema else []
        trainer(tmp_path, max_epochs=2, callbacks=[*average, *callbacks]).fit(
            classifier, loader(dataset), loader(dataset), **options
        )
        return classifier.network.state_dict()

    whole = run(Save())
    assert_same(whole, run(ckpt_path=tmp_path / "half.ckpt", weights_only=True))


def test_the_network_is_compiled_in_place_when_asked(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(self))
    classifier = small(compile=True)
    assert compiled == [classifier.network]


@pytest.mark.slow
def test_each_size_of_a_compiled_batch_has_its_own_graph_whatever_came_before(monkeypatch):
    graphs, compile = [], torch.nn.Module.compile

    def record(graph, inputs):
        graphs.append([side for image in inputs if image.ndim == 4 for side in image.shape])
        return graph

    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile(self, backend=record, **options)
    )
    network = small(compile=True).network.eval()
    sizes = [*range(2, 13), 5, 2]
    for size in sizes:
        network(torch.rand(size, 3, 8, 8))
    assert all(type(side) is int for sides in graphs for side in sides)
    assert {sides[0] for sides in graphs if sides} == set(sizes)


def test_what_cannot_be_is_refused_by_name():
    network = load_network("convnet", classes=4, widths=[4])
    with pytest.raises(ValueError, match="classes: 2 came, the network has 4"):
        Classifier(network, Standard(), SETTINGS, ["a", "b"])
    with pytest.raises(SettingError, match=r"optimizer\.lr: is -1"):
        Classifier(network, Standard(), OptimizerSettings(lr=-1), NAMES)


def test_means_go_on_where_a_checkpoint_was_written(tmp_path):
    """Logged are means over all steps since the last time, also where a run was cut off between."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step in (3, 4):
                trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    class Logged(Logger):
        name, version = "logged", ""

        def __init__(self):
            super().__init__()
            self.rows = {}

        def log_hyperparams(self, *_, **__):
            pass

        def log_metrics(self, metrics, step=None):
            self.rows.setdefault(step, {}).update(metrics)

    def rows(**how):
        logger = Logged()
        ran = trainer(tmp_path, logger=logger, log_every_n_steps=4, callbacks=[Save()], max_epochs=8)
        ran.fit(small(), loader(Squares(8)), **how)
        return logger.rows

    whole = rows()
    assert sorted(whole) == [3, 7]
    (tmp_path / "3.ckpt").rename(tmp_path / "before.ckpt")
    (tmp_path / "4.ckpt").rename(tmp_path / "at.ckpt")
    assert rows(ckpt_path=tmp_path / "before.ckpt", weights_only=True) == whole
    assert (
        rows(ckpt_path=tmp_path / "at.ckpt", weights_only=True) == whole
    )  # written before step 4 was logged


def test_channels_last_trains_the_same_network_but_for_rounding(tmp_path):
    dataset, formats = Squares(24), []
    plain, last = small(), small(channels_last=True)

    def record(module, inputs, output):
        formats.append(output.is_contiguous(memory_format=torch.channels_last))

    last.network.features[1][0].register_forward_hook(record)
    for classifier in (plain, last):
        trainer(tmp_path, max_epochs=2).fit(classifier, loader(dataset), loader(dataset))
    assert formats and all(formats)  # in training and in validation
    assert all(p.is_contiguous() for p in last.network.parameters())  # as a checkpoint and analyses want them
    for key, value in plain.network.state_dict().items():
        torch.testing.assert_close(last.network.state_dict()[key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_a_test_measures_what_validation_does_and_logs_nothing(tmp_path):
    classifier, dataset = small(classes=["a", "b", "a", "c"]), Squares(40)
    (validated,) = trainer(tmp_path).validate(classifier, loader(dataset), verbose=False)
    of_validation, tester = classifier.metrics.confusion, trainer(tmp_path)
    tester.test(classifier, loader(dataset), verbose=False)
    assert classifier.test_metrics == pytest.approx(
        {name.replace("val/", "test/"): value for name, value in validated.items()}
    )
    assert "test/accuracy_class/a (2)" in classifier.test_metrics
    assert torch.equal(classifier.metrics.confusion, of_validation)
    assert not tester.callback_metrics and not tester.logged_metrics
