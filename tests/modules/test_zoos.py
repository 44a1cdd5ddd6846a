"""Networks of timm and transformers by name: built, normalised as published, saved and loaded."""

import json
import shutil

import pytest
import torch

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train
from vitrine.core.registry import UnknownName
from vitrine.modules import Classifier, OptimizerSettings, load_checkpoint, load_network, record_of
from vitrine.modules.freezing import find_frozen_part
from vitrine.modules.loading import infer_classes
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.weights import WeightsError


def images(channels=3, size=32):
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def round_trip(network, folder):
    """The network of a checkpoint that holds this one."""
    classes = record_of(network).classes
    classifier = Classifier(network, Standard(), OptimizerSettings(), classes)
    content = {"state_dict": classifier.state_dict(), "global_step": 1}
    classifier.on_save_checkpoint(content)
    torch.save(content, folder / "step.ckpt")
    return load_checkpoint(folder / "step.ckpt")


@pytest.fixture
def folder(transformers, tmp_path):
    """A small ViT's configuration, weights of 7 classes and normalisation."""
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=7,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    known = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    known["image_std"] = [0.4, 0.4, 0.4]
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(known))
    config.save_pretrained(tmp_path / "bare")
    return tmp_path


def test_a_network_of_timm_is_timm_s_own_normalised_as_published(timm):
    network = load_network("timm/vit_tiny_patch16_224", classes=5, image_size=32, drop_path_rate=0.1).eval()
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32).eval()
    reference.load_state_dict(network.state_dict())
    assert torch.equal(network(images()), reference((images() - 0.5) / 0.5))
    assert record_of(network).spec["options"] == {"drop_path_rate": 0.1, "img_size": 32}
    resnet = load_network("timm/resnet18", classes=5, image_size=32)
    assert record_of(resnet).mean == [0.485, 0.456, 0.406]  # and takes any size
    assert record_of(resnet).spec["options"] == {}


def test_a_network_of_timm_for_other_channels_is_saved_and_loaded(timm, tmp_path):
    network = load_network("timm/resnet10t", classes=list("abc"), channels=1).eval()
    found = round_trip(network, tmp_path)
    assert torch.equal(found(images(1)), network(images(1))) and record_of(found).classes == list("abc")
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    assert infer_classes("timm/resnet10t", tmp_path / "bare.pt") == (3, 1)


def test_what_timm_does_not_have_is_answered_with_the_nearest(timm):
    with pytest.raises(UnknownName, match="did you mean vit_tiny_patch16_224"):
        load_network("timm/vit_tiny_patch16_225", classes=5)
    with pytest.raises(ValueError, match=r"cannot be built with \{'width': 3\}: .*unexpected keyword"):
        load_network("timm/resnet18", classes=5, width=3)
    with pytest.raises(WeightsError, match="has no weights in timm"):
        load_network("timm/vit_base_patch16_xp_224", classes=5, weights="pretrained")


def test_weights_from_an_unreachable_hub_are_missed_within_seconds(timm, monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("timm/resnet10t", "hf/nobody/no-such-network"):
        with pytest.raises(ValueError, match=r"127\.0\.0\.1 cannot be reached \(Connection refused\)"):
            load_network(name, classes=5, weights="pretrained")


def test_a_configuration_alone_gives_random_weights_for_the_classes_asked_for(folder):
    name = f"hf/{folder}/bare"
    network = load_network(name, classes=list("abc"), channels=1, image_size=16, hidden_size=32).eval()
    assert network(images(1, 16)).shape == (2, 3)  # a tensor, of images as large as asked for
    assert record_of(network).spec["config"]["hidden_size"] == 32
    (folder / "bare/config.json").unlink()
    found = round_trip(network, folder)  # the checkpoint has the configuration
    assert torch.equal(found(images(1, 16)), network(images(1, 16)))


def test_weights_beside_a_configuration_are_used_with_their_normalisation(folder, transformers):
    name = f"hf/{folder}/vit"
    network = load_network(name, classes=7, image_size=64).eval()
    reference = transformers.ViTForImageClassification.from_pretrained(folder / "vit").eval()
    mean = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    assert torch.equal(network(images()), reference((images() - mean) / 0.4).logits)
    assert record_of(network).classes == [f"LABEL_{i}" for i in range(7)]
    with pytest.raises(WeightsError, match="has 7 classes, expected 5: head=new"):
        load_network(name, classes=5)
    new = load_network(name, classes=5, head="new")
    assert torch.equal(new.vit.embeddings.cls_token, reference.vit.embeddings.cls_token)
    assert new.eval()(images()).shape == (2, 5)


@pytest.mark.parametrize("kind", ["MobileViTFeatureExtractor", "PPLCNetImageProcessor"])
def test_weights_for_blue_green_and_red_are_refused(folder, kind):
    for name in ("vit", "bare"):
        known = {"image_processor_type": kind, "do_normalize": False}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(known))
    with pytest.raises(WeightsError, match=r"are of images in blue, green, red.*: expected red, green, blue"):
        load_network(f"hf/{folder}/vit", classes=7)
    assert record_of(load_network(f"hf/{folder}/bare", classes=7)).mean == [0, 0, 0]


def test_what_is_wrong_with_a_folder_is_said_in_one_line(folder):
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    (folder / "text/config.json").write_text('{"model_type": "bert"}')
    (folder / "coded").mkdir()
    coded = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "coded/config.json").write_text(json.dumps(coded))
    (folder / "coded/mine.py").write_text("raise SystemExit('code of the folder was run')")
    for name, message in (
        ("empty", "has no config.json"),
        ("text", "cannot be built: .*BertConfig"),
        ("coded", "cannot be used"),
        ("bare", r"hiden_size: .* did you mean hidden_size"),
    ):
        options = {"hiden_size": 3} if name == "bare" else {}
        with pytest.raises(ValueError, match=message) as caught:
            load_network(f"hf/{folder}/{name}", classes=5, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="has a configuration alone"):
        load_network(f"hf/{folder}/bare", classes=5, weights="pretrained")


def test_the_head_of_theirs_trains_alone_where_all_else_is_frozen(timm, folder):
    for name, head in (
        ("timm/vit_tiny_patch16_224", "head"),
        ("timm/resnet18", "fc"),
        ("timm/convnext_atto", "head.fc"),
        (f"hf/{folder}/bare", "classifier"),
    ):
        network = load_network(name, classes=5, image_size=32)
        frozen = find_frozen_part(network, "all_but_head", 5)
        left = {key for key, _ in network.named_parameters()} - set(frozen.parameters)
        assert left == {f"{head}.weight", f"{head}.bias"}
        classifier = Classifier(
            network, Standard(), OptimizerSettings("sgd"), list("abcde"), freeze="all_but_head"
        )
        before = {key: value.clone() for key, value in network.state_dict().items()}
        optimizer, _ = classifier.build_optimizer(10)
        classifier.training_step((images(), torch.tensor([1, 2])), 0).backward()
        optimizer.step()
        changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        assert changed == left, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "hf"])
def test_train_and_analyze_take_them_by_name_alone(timm, folder, tmp_path, name):
    small = [
        "data.train_size=32",
        "data.val_size=16",
        "data.image_size=32",
        "data.batch_size=16",
        "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_steps=2",
        "logging.wandb.mode=disabled",
        "analysis.probes=1",
        "analysis.units=1",
        *(f"analysis.{technique}.enabled=false" for technique in ANALYSES if technique != "cam"),
    ]
    named = f"hf/{folder}/vit" if name == "hf" else name
    train.main([*small, f"run.root={tmp_path}", "run.name=run", f"model.name={named}", "model.head=new"])
    pictures = {file: file.read_bytes() for file in tmp_path.glob("run/analysis/*/cam/*.*")}
    assert len(pictures) > 1
    shutil.rmtree(tmp_path / "run/analysis")
    analyze.main([str(tmp_path / "run")])
    assert {file: file.read_bytes() for file in pictures} == pictures
