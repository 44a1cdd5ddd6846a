import os
import zipfile

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from vitrine.modules import Classifier, OptimizerSettings, load_checkpoint, load_network, record_of
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.weights import WeightsError

IMAGES = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
STATISTICS = {"mean": [0.4], "std": [0.3]}


def quiet(folder, **options):
    options |= dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **options)


def trained(folder, name="convnet", callbacks=(), steps=3, **options):
    """A classifier after some steps, and its checkpoint."""
    torch.manual_seed(0)
    network = load_network(name, classes=["a", "b/c", "d"], channels=1, **STATISTICS, **options)
    classifier = Classifier(
        network, Standard(), OptimizerSettings(lr=0.01, schedule="constant"), record_of(network).classes
    )
    trainer = quiet(folder, max_steps=steps, callbacks=list(callbacks))
    loader = DataLoader(TensorDataset(IMAGES, LABELS, torch.arange(12)), 4)
    trainer.fit(classifier, loader)
    file = folder / "step.ckpt"
    trainer.save_checkpoint(file)
    return classifier, file


@pytest.mark.parametrize(
    "name, options",
    [
        ("convnet", {"widths": [4, 6]}),
        ("perceptron", {"image_size": 16}),
        ("resnet20", {"blocks": 1}),
        ("vit_tiny_4", {"image_size": 16, "width": 12, "depth": 1, "registers": 1, "conv_stem": True}),
        ("vit", {"image_size": 16, "patch_size": 8, "hidden_dim": 12, "num_layers": 1}),
        ("squeezenet1_1", {"stem": "small", "dropout": 0.1}),
    ],
)
def test_a_checkpoint_alone_gives_the_network_back(tmp_path, name, options):
    classifier, file = trained(tmp_path, name, **options)
    state = torch.get_rng_state()
    network = load_checkpoint(file)
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training and record_of(network).classes == ["a", "b/c", "d"]
    assert torch.equal(network(IMAGES), classifier.network.eval()(IMAGES))
    assert network.normalize.mean.item() == pytest.approx(0.4)
    assert record_of(network).spec == record_of(classifier.network).spec


def test_a_checkpoint_says_which_network_and_step_it_holds(tmp_path):
    _, file = trained(tmp_path, widths=[4])
    ours = torch.load(file, weights_only=True)["vitrine"]
    spec = {"name": "convnet", "classes": 3, "channels": 1, "options": {"widths": [4]}}
    expected = {"spec": spec, "classes": ["a", "b/c", "d"], "step": 3, "objective": {}}
    assert {name: ours[name] for name in expected} == expected
    assert record_of(load_checkpoint(file)).learning_rate == 0.01
    content = torch.load(file, weights_only=True)
    del content["optimizer_states"]  # as with save_weights_only
    torch.save(content, file)
    assert record_of(load_checkpoint(file)).learning_rate is None


def test_a_compiled_networks_checkpoint_is_as_any_other(tmp_path):
    torch.manual_seed(0)
    network = load_network("convnet", classes=3, channels=1, widths=[4], **STATISTICS)
    network.compile(backend="eager")
    classifier = Classifier(network, Standard(), OptimizerSettings(), ["a", "b", "c"])
    trainer = quiet(tmp_path, max_steps=0)
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(load_checkpoint(tmp_path / "a.ckpt")(IMAGES), network.eval()(IMAGES))


def test_averaged_weights_are_what_comes_back(tmp_path):
    saved, live = {}, []

    class Notice(EMAWeightAveraging):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            saved["live"] = {k: v.clone() for k, v in checkpoint["current_model_state"].items()}

    torch.manual_seed(0)
    network = load_network("perceptron", classes=3, channels=1, image_size=16, **STATISTICS)
    start = network.linear.weight.detach().clone()
    classifier = Classifier(
        network, Standard(), OptimizerSettings(lr=0.1, schedule="constant"), ["a", "b", "c"]
    )

    class Track(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            live.append(pl_module.network.linear.weight.detach().clone())
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "ema.ckpt")

    trainer = quiet(tmp_path, max_steps=3, callbacks=[Notice(decay=0.5), Track()])
    trainer.fit(classifier, DataLoader(TensorDataset(IMAGES, LABELS), 4))
    expected = live[0]  # the first update takes the weights over
    for weight in live[1:]:
        expected = 0.5 * expected + 0.5 * weight
    found = load_checkpoint(tmp_path / "ema.ckpt")
    torch.testing.assert_close(found.linear.weight, expected)
    assert not torch.equal(found.linear.weight, live[-1]) and not torch.equal(found.linear.weight, start)
    assert torch.equal(saved["live"]["network.linear.weight"], live[-1])
    assert found.normalize.std.item() == pytest.approx(0.3)


def test_a_checkpoint_serves_as_weights(tmp_path):
    classifier, file = trained(tmp_path, "perceptron", image_size=16)
    network = load_network("perceptron", classes=3, channels=1, weights=file).eval()
    assert torch.equal(network(IMAGES), classifier.network.eval()(IMAGES))
    assert record_of(network).classes == ["a", "b/c", "d"]
    with pytest.raises(WeightsError, match="is a checkpoint of perceptron, not of convnet"):
        load_network("convnet", classes=3, channels=1, weights=file)


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("load", [load_checkpoint, lambda f: load_network("convnet", classes=3, weights=f)])
def test_a_pickle_bomb_does_not_go_off(tmp_path, load):
    file = tmp_path / "bomb.ckpt"
    torch.save({"vitrine": {}, "state_dict": {"a": Bomb(tmp_path / "harm")}}, file)
    with pytest.raises(WeightsError, match=r"asks for \w+\.system to be run"):
        load(file)
    assert not (tmp_path / "harm").exists()


def test_files_that_are_no_checkpoints_are_refused_with_the_reason(tmp_path):
    def refused(name, message):
        with pytest.raises(WeightsError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert name in str(caught.value)

    _, file = trained(tmp_path, widths=[4])
    whole = file.read_bytes()
    (tmp_path / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    refused("truncated.ckpt", "is truncated or of another kind")
    (tmp_path / "empty.ckpt").touch()
    refused("empty.ckpt", "is empty")
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    refused("text.ckpt", "was not loaded")
    refused("absent.ckpt", "is no file")
    (tmp_path / "folder.ckpt").mkdir()
    refused("folder.ckpt", "is no file")
    with zipfile.ZipFile(tmp_path / "archive.ckpt", "w") as archive:
        archive.writestr("a", "b")
    refused("archive.ckpt", "is truncated or of another kind")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    refused("broken.safetensors", "is truncated or of another kind")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    refused("foreign.ckpt", "is not a checkpoint of this program")
    torch.save(torch.zeros(2), tmp_path / "tensor.ckpt")
    refused("tensor.ckpt", "is not a checkpoint of this program")
    torch.save({"state_dict": {}, "vitrine": {"spec": None, "classes": []}}, tmp_path / "nobody.ckpt")
    refused("nobody.ckpt", "does not say which network it holds")
    spec = {"name": "resnet18", "classes": 3, "channels": 3, "options": {"weights": "DEFAULT"}}
    torch.save({"state_dict": {}, "vitrine": {"spec": spec, "classes": []}}, tmp_path / "sly.ckpt")
    refused("sly.ckpt", "its network cannot be built: weights")
