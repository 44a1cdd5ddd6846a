"""Networks of somebody's own, by reference: built, normalised, saved and loaded without a rule of ours."""

import copy

import pytest
import torch

from vitrine.config import load
from vitrine.core.settings import SettingError
from vitrine.examination.examiner import weights_hash
from vitrine.modules import Classifier, OptimizerSettings, load_checkpoint, load_network, record_of
from vitrine.modules.checkpoint import ReferenceNeeded
from vitrine.modules.loading import infer_classes
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.output_check import check_logits

CODE = '''
from torch import nn

class Awkward(nn.Module):
    """Names of ours as its own, a callable and a type as defaults, any further options."""
    def __init__(self, n_classes, width=4, act=nn.ReLU, reduce=lambda x: x.mean((2, 3)), **more):
        super().__init__()
        self.normalize, self.spec, self.reduce = nn.BatchNorm2d(3), act(), reduce
        self.conv, self.classes = nn.Conv2d(3, width, 3), nn.Linear(width, n_classes)
        self.more = more
    def forward(self, images):
        return {"logits": self.classes(self.reduce(self.spec(self.conv(self.normalize(images)))))}

def chain(num_labels, in_chans):
    return nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_labels))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))

class Needs(nn.Module):
    def __init__(self, depth): super().__init__()

def raises(classes): return [][classes]
def returns_text(classes): return "network"
def gives_a_tuple(classes): return Tuple(classes)
def squeezes(num_classes): return nn.Sequential(nn.Flatten(0), nn.Linear(2 * 3 * 64, num_classes))

class Extra(nn.Module):
    """Keeps more in its state_dict than tensors."""
    calls = 0
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)
    def forward(self, images): return self.head(self.conv(images).relu().mean((2, 3)))
    def get_extra_state(self): return {"calls": self.calls}
    def set_extra_state(self, state): self.calls = state["calls"]

def ten(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def logarithms(num_classes): return nn.Sequential(fixed()[0], nn.Linear(3 * 64, num_classes), Log())

class Log(nn.Module):
    def forward(self, x): return (x - 9).log()

class Tuple(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, classes))
    def forward(self, images): return self.inner(images), images
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    return f"{tmp_path}/net.py"


def images(channels=3):
    return torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def test_its_attributes_stay_its_own_and_it_is_normalised_once(file):
    options = {"width": 5, "stem": 3, "image_size": 9}  # names that load_network has, too
    network = load_network(
        f"{file}:Awkward", classes=list("abc"), mean=[0.5] * 3, std=[0.25] * 3, options=options
    )
    assert network.more == {"stem": 3, "image_size": 9} and network.conv.out_channels == 5
    assert isinstance(network.normalize, torch.nn.BatchNorm2d)
    assert isinstance(network.classes, torch.nn.Linear) and record_of(network).classes == ["a", "b", "c"]
    plain = copy.deepcopy(network).eval()
    plain._forward_pre_hooks.clear()
    network.eval()
    assert torch.equal(network(images()), plain((images() - 0.5) / 0.25))
    assert network(images()).shape == (2, 3)  # logits, not the dictionary
    assert not any("mean" in key.split(".")[0] for key in network.state_dict())


def test_a_sequence_with_a_lazy_layer_for_the_channels_asked_for(file):
    network = load_network(f"{file}:chain", classes=3, channels=1)
    check_logits(network, 3, 1, 8)
    assert network(images(1)).shape == (2, 3) and record_of(network).mean is None


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("chain", {"num_label": 3}, r"num_label: .* has no such option; did you mean num_labels\?"),
        ("Needs", {}, r"depth: .*:Needs needs one; give model\.options=\{depth: \.\.\.\}"),
        ("raises", {}, r"raised IndexError: .* \(net\.py, line 23\)"),
        ("returns_text", {}, r"gave a str, expected a torch\.nn\.Module"),
        ("gives_a_tuple", {}, "returns tuple of 2, expected logits"),
        ("fixed", {}, r"gives 10 logits an image, the data have 3 classes"),
        ("squeezes", {}, r"gives \[3\] for 2 images, expected logits \[2, 3\]"),
        ("logarithms", {}, "gives logits that are not finite"),
    ],
)
def test_what_does_not_fit_is_answered_in_one_line(file, name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_logits(load_network(f"{file}:{name}", classes=3, options=options), 3, 3, 8)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_s_word_alone_imports_nothing(file, tmp_path):
    name = f"{file}:Awkward"
    network = load_network(name, classes=list("abc"), mean=[0.5] * 3, std=[0.25] * 3, width=6)
    classifier = Classifier(network, Standard(), OptimizerSettings(), list("abc"))
    content = {"state_dict": classifier.state_dict(), "global_step": 1}
    classifier.on_save_checkpoint(content)
    torch.save(content, tmp_path / "step.ckpt")
    with pytest.raises(
        ReferenceNeeded, match=r"name it yourself, load_checkpoint\(file, network='.*:Awkward'\)"
    ):
        load_checkpoint(tmp_path / "step.ckpt")
    found = load_checkpoint(tmp_path / "step.ckpt", network=name)
    network.eval()
    assert torch.equal(found(images()), network(images()))
    assert record_of(found).classes == ["a", "b", "c"]
    again = load_network(name, classes=3, weights=tmp_path / "step.ckpt", width=6).eval()  # as weights
    assert torch.equal(again(images()), network(images())) and record_of(again).classes == ["a", "b", "c"]


def test_what_a_network_keeps_beside_tensors_is_saved_and_loaded(file, tmp_path):
    name = f"{file}:Extra"
    how = {"classes": list("abc"), "mean": [0.5] * 3, "std": [0.25] * 3}
    network = load_network(name, **how)
    network.calls = 7
    classifier = Classifier(network, Standard(), OptimizerSettings(), list("abc"))
    content = {"state_dict": classifier.state_dict(), "global_step": 1}
    classifier.on_save_checkpoint(content)
    torch.save(content, tmp_path / "step.ckpt")
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    found = [load_checkpoint(tmp_path / "step.ckpt", network=name)]
    found += [load_network(name, weights=tmp_path / each, **how) for each in ("step.ckpt", "bare.pt")]
    assert [(each.calls, weights_hash(each)) for each in found] == [(7, weights_hash(network))] * 3
    torch.save(dict(network.named_parameters()), tmp_path / "without.pt")
    assert load_network(name, weights=tmp_path / "without.pt", **how).calls == 0


@pytest.mark.parametrize(("name", "classes"), [("Awkward", 3), ("ten", 10)])
def test_classes_and_channels_are_read_off_bare_weights(file, tmp_path, name, classes):
    network = load_network(f"{file}:{name}", classes=classes)
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    assert infer_classes(f"{file}:{name}", tmp_path / "bare.pt") == (classes, 3)


def test_bare_weights_do_not_say_how_images_were_normalised(file, tmp_path):
    network = load_network(f"{file}:Awkward", classes=3)
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(
        ValueError, match="does not say how images were normalised; give mean and std, 0 and 1"
    ):
        load_network(f"{file}:Awkward", classes=3, weights=tmp_path / "bare.pt")
    known = {"mean": [0] * 3, "std": [1] * 3, "weights": tmp_path / "bare.pt"}
    again = load_network(f"{file}:Awkward", classes=3, **known).eval()
    assert torch.equal(again(images()), network.eval()(images()))


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere/net.py:Net", "there is no folder nowhere"),
        ("net.py", r"net\.py:Class"),
        ("package.module.Net", r"did you mean package\.module:Net\?"),
        ("my/net", r"path/to/file\.py:Class, or timm/NAME"),
        ("timm/", "expected timm/NAME"),
    ],
)
def test_recipes_answer_wrong_forms_at_once(name, message):
    with pytest.raises(SettingError, match=rf"^model\.name: .*{message}"):
        load([f"model.name={name}"])


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, package in (("timm/resnet18", "timm"), ("hf/folder", "transformers")):
        with pytest.raises(SettingError, match=rf"is not installed: pip install 'vitrine\[{package}\]'"):
            load([f"model.name={name}"])
