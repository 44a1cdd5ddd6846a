"""What is frozen does not change; what is not trains as if the frozen part were a fixed function."""

import copy

import pytest
import tiny
import torch
import torch.nn.functional as F
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import nn

from vitrine.callbacks.averaging import ExactEMA
from vitrine.callbacks.resume import ExactResume
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.settings import SettingError
from vitrine.modules import OBJECTIVES, Classifier, OptimizerSettings, load_network
from vitrine.modules.freezing import find_frozen_part

SGD = OptimizerSettings("sgd", lr=0.05, weight_decay=0.01, schedule="constant")


def classifier(objective=None, settings=SGD, **options):
    torch.manual_seed(0)
    network = load_network("convnet", classes=["dark", "bright"], widths=[4, 8], mean=[0.5] * 3, std=[1] * 3)
    return Classifier(network, objective or OBJECTIVES["standard"](), settings, ["dark", "bright"], **options)


def fit(module, epochs=2, steps=3, callbacks=(), checkpoint=None, **options):
    seed_everything(0, verbose=False)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=[ExactResume(), *callbacks],
        use_distributed_sampler=False, **dict.fromkeys(quiet, False), **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=tiny.TinyData(steps), ckpt_path=checkpoint, weights_only=True)
    return trainer


def state(module):
    return {name: value.clone() for name, value in module.network.state_dict().items()}


def changed(module, before):
    return {
        name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])
    }


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    "objective",
    [
        OBJECTIVES["standard"](awp=0.01),
        OBJECTIVES["free"](replays=2),
        OBJECTIVES["trades"](steps=2, attack_mode="train"),
        OBJECTIVES["fast"](guard_every=2),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_only_the_head_changes_whatever_the_objective(objective):
    module = classifier(objective, freeze="all_but_head")
    before = state(module)
    fit(module, epochs=1, callbacks=[ExactEMA(decay=0.5)])
    assert changed(module, before) == HEAD
    assert all(not p.requires_grad for n, p in module.network.named_parameters() if n not in HEAD)


def test_the_head_trains_as_on_the_features_of_a_fixed_network():
    module = classifier(freeze="all_but_head")
    body, head = copy.deepcopy(module.network).eval(), copy.deepcopy(module.network.head).requires_grad_(True)
    body.head = nn.Identity()
    seen = []
    real = module.training_step
    module.training_step = lambda batch, batch_idx: (seen.append(batch), real(batch, batch_idx))[1]
    fit(module)
    optimizer = torch.optim.SGD(
        [{"params": [head.weight], "weight_decay": 0.01}, {"params": [head.bias]}], 0.05, 0.9, nesterov=True
    )
    for batch in seen:
        optimizer.zero_grad()
        F.cross_entropy(head(body(batch.images)), batch.labels).backward()
        optimizer.step()
    torch.testing.assert_close(module.network.head.state_dict(), head.state_dict())


def test_from_the_epoch_of_unfreezing_everything_trains_running_statistics_too():
    module = classifier(freeze=["features.0", "features.1.1.weight"], unfreeze_epoch=1)
    before, held = state(module), {n for n in state(module) if n.startswith(("features.0", "features.1.1.w"))}

    found = []

    class AtTheEndOfEachEpoch(Callback):
        def on_train_epoch_end(self, trainer, module):
            found.append(changed(module, before))

    fit(module, callbacks=[AtTheEndOfEachEpoch()])
    statistics = {"normalize.mean", "normalize.std"}
    assert found == [set(before) - held - statistics, set(before) - statistics]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"average": True}], ids=str)
def test_a_run_cut_off_before_or_after_unfreezing_ends_in_the_same_weights(tmp_path, options):
    options = dict(options)
    average = options.pop("average", False)

    class SaveAt(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            file = tmp_path / f"{trainer.global_step}.ckpt"
            if trainer.global_step and not file.exists():  # right after the step, before batches of the next
                trainer.save_checkpoint(file)

    def train(checkpoint=None, *callbacks):
        settings = OptimizerSettings("adamw", lr=0.01, layer_decay=0.5)
        module = classifier(None, settings, freeze="all_but_head", unfreeze_epoch=1)
        callbacks = [*([ExactEMA(decay=0.5)] if average else []), *callbacks]
        fit(module, checkpoint=checkpoint, callbacks=callbacks, **options)
        return state(module)

    whole = train(None, SaveAt())
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == (4 if "accumulate_grad_batches" in options else 6)
    for file in files[:-1]:
        found = train(file)
        assert all(torch.equal(found[name], value) for name, value in whole.items()), file.stem


def test_a_frozen_normalisation_is_attacked_as_it_is_trained_with():
    module = classifier(freeze="all_but_head")
    network = module.network.train()
    module.frozen.keep_statistics(network)
    with frozen_weights(network, torch.device("cpu"), mode="train"):
        assert not network.features[0][1].training
    network.train()
    with frozen_weights(network, torch.device("cpu"), mode="train"):
        assert network.features[0][1].training


@pytest.mark.parametrize(
    "name, head",
    [
        ("squeezenet1_0", "classifier.1"),
        ("vgg11_bn", "classifier.6"),
        ("densenet121", "classifier"),
        ("vit_b_16", "heads.head"),
        ("swin_t", "head"),
        ("convnext_tiny", "classifier.2"),
    ],
)
def test_the_head_is_the_layer_that_a_new_head_replaces(name, head):
    with torch.device("meta"):
        network = load_network(name, classes=7, mean=[0.5] * 3, std=[1] * 3)
    frozen = find_frozen_part(network, "all_but_head", 7)
    left = {n for n, _ in network.named_parameters()} - set(frozen.parameters)
    assert left == {f"{head}.weight", f"{head}.bias"}
    assert len(frozen.statistics) == sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_what_the_network_itself_keeps_frozen_stays_so():
    module = classifier()
    module.network.features[0][0].weight.requires_grad_(False)
    frozen = find_frozen_part(module.network, "features", 2)
    assert "features.0.0.weight" not in frozen.parameters
    frozen.freeze(module.network)
    frozen.release(module.network)
    assert [n for n, p in module.network.named_parameters() if not p.requires_grad] == ["features.0.0.weight"]


@pytest.mark.parametrize(
    "freeze, problem",
    [
        ("all_but_heads", "'all_but_heads' matches nothing that trains; did you mean all_but_head"),
        (["features", "haed"], "'haed' matches nothing that trains; did you mean head"),
        (["normalize"], "'normalize' matches nothing that trains; its parts are features, head"),
        ("*", "leaves nothing to train"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(freeze, problem):
    with pytest.raises(SettingError, match=r"model\.freeze: ") as caught:
        classifier(freeze=freeze)
    assert problem in str(caught.value)
