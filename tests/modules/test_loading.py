import io
import tarfile

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as TF

from vitrine.core.registry import UnknownName
from vitrine.modules import NETWORKS, load_network, record_of

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t",
    "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
]  # fmt: skip


def photographs(archive, wanted, convert):
    """Images of a tar archive, streamed, with the folder each lies in."""
    images, folders = [], []
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isfile() and wanted(member.name):
                images.append(convert(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")))
                folders.append(member.name.split("/")[-2])
    return images, folders


def as_pixels(image):
    return TF.to_dtype(TF.pil_to_tensor(image), torch.float32, scale=True)


LARGE = ("densenet121", "efficientnet_v2_s", "maxvit_t", "mnasnet0_5")  # seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in FAMILIES]
)
def test_every_family_of_torchvision_is_built_for_the_classes_asked_for(name):
    with torch.device("meta"):
        network = load_network(name, classes=7).eval()
        assert network(torch.rand(2, 3, 224, 224)).shape == (2, 7)


def test_all_of_torchvisions_classifiers_are_known_by_name():
    for name in torchvision.models.list_models(module=torchvision.models):
        assert name in NETWORKS
    regnet = load_network("regnet_x_400mf", classes=7, channels=1).eval()  # cannot be built without storage
    assert regnet(torch.rand(1, 1, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("name, side", [("googlenet", 64), ("inception_v3", 96)])
def test_the_inceptions_give_one_tensor_in_training_too(name, side):
    with torch.device("meta"):
        network = load_network(name, classes=7)
        assert network.training
        assert isinstance(network(torch.rand(2, 3, side, side)), torch.Tensor)


@pytest.mark.parametrize(
    "name", ["convnet", "resnet20", "quick_convnet", "preact_resnet18", "wide_resnet28_10"]
)
@pytest.mark.parametrize("channels, side", [(3, 64), (1, 28)])
def test_our_own_networks_take_images_of_any_size(name, channels, side):
    with torch.device("meta"):
        network = load_network(name, classes=list("abc"), channels=channels)
        assert network(torch.rand(2, channels, side, side)).shape == (2, 3)
    assert record_of(network).classes == ["a", "b", "c"]


def test_the_parameters_of_the_published_networks_are_counted_right():
    with torch.device("meta"):
        networks = {name: load_network(name, classes=10) for name in ("resnet20", "wide_resnet28_10")}
    count = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert count["resnet20"] == 269_722  # 0.27 M in He 2016
    assert count["wide_resnet28_10"] == 36_479_194  # 36.5 M in Zagoruyko 2016


def test_a_perceptron_is_its_weight_rows():
    network = load_network("perceptron", classes=3, channels=1, image_size=5, mean=[0.25], std=[0.5])
    images = torch.rand(4, 1, 5, 5)
    templates = network.linear.weight.view(3, 1, 5, 5)
    expected = ((images[:, None] - 0.25) / 0.5 * templates).sum((2, 3, 4)) + network.linear.bias
    torch.testing.assert_close(network(images), expected)
    with pytest.raises(ValueError, match=r"images are \[1, 6, 6\], expected \[1, 5, 5\]"):
        network(torch.rand(1, 1, 6, 6))
    with pytest.raises(ValueError, match="image_size"):
        load_network("perceptron", classes=3)


@pytest.mark.parametrize("name", ["vit_tiny_4", "vit"])
def test_position_embeddings_of_another_image_size_are_interpolated_and_that_is_said(tmp_path, caplog, name):
    sizes = {"width": 12, "depth": 1} if name == "vit_tiny_4" else {"hidden_dim": 12, "num_layers": 1}
    sizes |= {"classes": 3, "patch_size": 4}
    network = load_network(name, image_size=16, **sizes)
    key = next(k for k in network.state_dict() if k.startswith(("pos_embed", "encoder.pos")))
    state, prefix = network.state_dict(), int(name == "vit")
    rows = torch.arange(4.0).repeat_interleave(4)[None, :, None].expand(1, 16, 12)
    state[key] = torch.cat([torch.full((1, prefix, 12), 7.0), rows], 1)  # embeddings that grow downwards
    torch.save(state, tmp_path / "small.pt")
    large = load_network(name, image_size=32, weights=tmp_path / "small.pt", **sizes).eval()
    assert "interpolated from 4 x 4 patches to 8 x 8" in caplog.text
    assert large(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    found = large.state_dict()[key]
    assert (found[:, :prefix] == 7).all()
    grid = found[0, prefix:].unflatten(0, (8, 8))
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))  # no change along a row
    torch.testing.assert_close(grid[3:5, 0, 0], torch.tensor([1.25, 1.75]), atol=0.05, rtol=0)
    assert (grid.diff(dim=0) > 0).all()
    other = {**sizes, "patch_size": 8}
    with pytest.raises(ValueError, match=r"shapes differ: \S+ is \[12, 3, 4, 4\], expected \[12, 3, 8, 8\]"):
        load_network(name, image_size=32, weights=tmp_path / "small.pt", **other)


SMALL = [
    "alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_small_stem_keeps_the_resolution_of_small_images(name):
    sides = []
    with torch.device("meta"):
        network = load_network(name, classes=5, channels=1, stem="small").eval()
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        for module in convolutions:
            module.register_forward_hook(lambda m, i, o: sides.append(o.shape[-1]))
        assert network(torch.rand(1, 1, 64, 64)).shape == (1, 5)
    first = convolutions[0]
    assert first.kernel_size == (3, 3) and first.stride == (1, 1) and first.in_channels == 1
    assert sides[0] == 64 and sides[-1] >= 4  # 64 pixels come to 2 or 3 behind the usual stems


@pytest.mark.parametrize("name", ["vgg11", "vit_b_32", "convnext_tiny", "swin_t", "maxvit_t", "convnet"])
def test_a_network_without_a_stem_to_shrink_says_so(name):
    with torch.device("meta"), pytest.raises(ValueError, match="stem"):
        load_network(name, classes=5, stem="small")


def test_networks_built_for_one_size_are_built_for_the_size_asked_for():
    with torch.device("meta"):
        network = load_network("vit_b_16", classes=5, image_size=64).eval()
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 5)
        resnet = load_network("resnet18", classes=5, image_size=64)
        assert "image_size" not in record_of(resnet).spec["options"]
        with pytest.raises(ValueError, match="maxvit_t cannot be built"):
            load_network("maxvit_t", classes=5, image_size=64)


def test_the_logits_are_torchvisions_own_for_the_normalised_image():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    network = load_network("resnet18", classes=6, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]).eval()
    reference = torchvision.models.resnet18(num_classes=6)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("normalize.")}
    reference.load_state_dict(state)
    normalised = TF.normalize(images, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert torch.equal(network(images), reference.eval()(normalised))


@pytest.mark.slow
def test_resnet20_recognises_the_cifar_photographs(shared):
    network = load_network("resnet20", classes=CIFAR, weights=shared / "weights/resnet20-cifar10.pt").eval()
    archive = shared / "data/cifar10-jpeg.tar.xz"
    images, names = photographs(archive, lambda n: "/test/" in n and n[-8:-4] < "0060", as_pixels)
    labels = torch.tensor([CIFAR.index(name) for name in names])
    assert len(images) == 600
    with torch.no_grad():
        accuracy = (network(torch.stack(images)).argmax(1) == labels).float().mean().item()
    assert abs(accuracy - 0.81) < 0.05  # three standard errors


@pytest.mark.slow
def test_squeezenet_recognises_the_imagenet_photographs(shared):
    def crop(image):
        image = TF.center_crop(TF.resize(image, [256], antialias=True), [227, 227])
        return as_pixels(image)

    network = load_network(
        "squeezenet1_0", classes=1000, weights=shared / "weights/squeezenet1_0-imagenet.pt"
    ).eval()
    folders = []

    def every_tenth(name):
        folders.append(name.split("/")[-2])
        return len(folders) % 10 == 1

    images, names = photographs(shared / "data/imagenet-sample.tar", every_tenth, crop)
    order = sorted(set(folders))
    labels = torch.tensor([order.index(name) for name in names])
    assert len(order) == 1000 and len(images) == 100
    with torch.no_grad():
        logits = torch.cat([network(batch) for batch in torch.stack(images).split(25)])
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    assert abs(accuracy - 0.623) < 0.145  # three standard errors


def test_weights_come_from_pt_and_safetensors_files_and_wrapped_state_dicts(tmp_path):
    network = load_network("resnet20", classes=10)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("normalize.")}
    save_file(state, tmp_path / "plain.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "parallel.pth")
    torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, tmp_path / "compiled.pt")
    images = torch.rand(2, 3, 32, 32)
    expected = network.eval()(images)
    for file in ("plain.safetensors", "parallel.pth", "compiled.pt"):
        loaded = load_network("resnet20", classes=10, weights=tmp_path / file).eval()
        assert torch.equal(loaded(images), expected)


def test_normalisation_in_the_weights_is_used_unless_another_is_given(tmp_path):
    network = load_network("convnet", classes=4, channels=1, mean=[0.3], std=[0.2])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = load_network("convnet", classes=4, channels=1, weights=tmp_path / "weights.pt")
    assert torch.equal(again.normalize.mean, network.normalize.mean)
    given = load_network(
        "convnet", classes=4, channels=1, weights=tmp_path / "weights.pt", mean=[0.0], std=[1.0]
    )
    assert given.normalize.std.item() == 1
    bare = {k: v for k, v in network.state_dict().items() if not k.startswith("normalize.")}
    torch.save(bare, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="does not say how images of 1 channels were normalised"):
        load_network("convnet", classes=4, channels=1, weights=tmp_path / "bare.pt")


def test_weights_that_do_not_fit_are_answered_with_the_nearest_names(tmp_path):
    state = load_network("resnet20", classes=10).state_dict()
    state["layer1.0.convA.weight"] = state.pop("layer1.0.conv1.weight")
    state["conv1.weight"] = torch.zeros(16, 1, 5, 5)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError) as caught:
        load_network("resnet20", classes=10, weights=tmp_path / "weights.pt")
    assert "missing layer1.0.conv1.weight" in str(caught.value)
    assert "layer1.0.convA.weight (nearest: layer1.0.conv1.weight)" in str(caught.value)
    assert "conv1.weight is [16, 1, 5, 5], expected [16, 3, 3, 3]" in str(caught.value)


@pytest.mark.parametrize(("name", "first"), [("resnet20", "conv1"), ("squeezenet1_1", "features.0")])
def test_weights_are_fitted_to_images_of_other_channels(tmp_path, caplog, name, first):
    network = load_network(name, classes=10, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    gray = torch.rand(2, 1, 64, 64)
    expected = network(gray.expand(-1, 3, -1, -1))
    for channels in (1, 2, 6, 7, 13):
        statistics = (0.5,) * channels, (0.25,) * channels
        options = {"channels": channels, "image_statistics": statistics}
        fitted = load_network(name, classes=10, weights=tmp_path / "weights.pt", **options).eval()
        assert fitted.normalize.mean.flatten().tolist() == [0.5] * channels
        if channels % 3 == 0 or channels == 1:  # each colour as often as any other
            torch.testing.assert_close(fitted(gray.expand(-1, channels, -1, -1)), expected)
        weight, theirs = fitted.get_submodule(first).weight, network.get_submodule(first).weight
        for i in range(channels if channels > 1 else 0):
            torch.testing.assert_close(weight[:, i], theirs[:, i % 3] * 3 / channels)
        assert f"the weights of {first}, for 3 channels, were fitted to {channels}" in caplog.text
    with pytest.raises(ValueError, match="does not say how images of 2 channels were normalised"):
        load_network(name, classes=10, weights=tmp_path / "weights.pt", channels=2)


def test_a_head_of_other_classes_is_refused_or_started_afresh_when_asked(tmp_path):
    network = load_network("resnet20", classes=10)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="has 10 classes, expected 3: head=new"):
        load_network("resnet20", classes=3, weights=tmp_path / "weights.pt")
    new = load_network("resnet20", classes=3, weights=tmp_path / "weights.pt", head="new")
    assert new.linear.weight.shape == (3, 64)
    assert torch.equal(new.conv1.weight, network.conv1.weight)


@pytest.fixture
def pets(tmp_path):
    """A checkpoint as training writes it, of a network for cats and dogs."""
    network, file = load_network("convnet", classes=["cat", "dog"], widths=[4]), tmp_path / "last.ckpt"
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    spec = record_of(network).spec
    torch.save({"vitrine": {"spec": spec, "classes": ["cat", "dog"]}, "state_dict": state}, file)
    return file


@pytest.mark.parametrize("names", [("dog", "cat"), ("a_dog", "cat"), ("dog", "fox")], ids=str)
def test_weights_are_not_taken_for_classes_in_another_order(pets, names):
    how = {"weights": pets, "widths": [4]}
    with pytest.raises(ValueError, match="has its classes in another order"):
        load_network("convnet", classes=names, **how)
    load_network("convnet", classes=names, head="new", **how)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ("a_dog", "z_cat"),
            "2 of 2 classes have other names in the weights; label 0 is 'cat', h",
        ),
        (("cat", "puppy"), "1 of 2 classes have other names in the weights; label 1 is 'dog', h"),
        (("cat", "dog"), ""),
        (("0", "1"), ""),  # a data set without names
    ],
    ids=str,
)
def test_other_names_than_those_of_the_weights_are_said(pets, caplog, names, said):
    network = load_network("convnet", classes=names, weights=pets, widths=[4])
    assert record_of(network).classes == list(names)
    assert said in caplog.text and bool(said) == bool(caplog.text)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A folder that torchvision takes for what it has downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)

    def keep(weights, state):
        torch.save(state, folder / weights.url.split("/")[-1])

    return keep


def test_torchvisions_weights_bring_their_class_names_and_normalisation(downloads):
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    reference = torchvision.models.squeezenet1_1().eval()
    downloads(entry, reference.state_dict())
    network = load_network("squeezenet1_1", classes=1000, weights="DEFAULT").eval()
    images = torch.rand(1, 3, 64, 64)
    assert record_of(network).classes[:2] == ["tench", "goldfish"]
    assert torch.equal(network(images), reference(TF.normalize(images, **IMAGENET)))
    with pytest.raises(ValueError, match="has 1000 classes, expected 5"):
        load_network("squeezenet1_1", classes=5, weights="IMAGENET1K_V1")


def test_googlenet_needs_no_second_normalisation(downloads):
    reference = torchvision.models.googlenet(init_weights=False)
    downloads(torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1, reference.state_dict())
    reference.transform_input = True  # as torchvision runs its own weights
    network = load_network("googlenet", classes=1000, weights="IMAGENET1K_V1").eval()
    images = torch.rand(1, 3, 64, 64)
    expected = reference.eval()(TF.normalize(images, **IMAGENET))
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


def test_the_names_of_2017_in_a_published_densenet_are_understood(tmp_path):
    reference = torchvision.models.densenet121()
    state = reference.state_dict()
    old = {k.replace("norm1", "norm.1").replace("conv2", "conv.2"): v for k, v in state.items()}
    assert any("norm.1" in key for key in old)
    torch.save(old, tmp_path / "densenet.pth")
    network = load_network("densenet121", classes=1000, weights=tmp_path / "densenet.pth")
    name = "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(network.state_dict()[name], state[name])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnt18"}, "did you mean resnet18"),
        ({"name": "resnet18", "classes": 1}, "classes: 1 came, expected at least 2"),
        ({"name": "resnet18", "channels": 0}, "channels is 0"),
        ({"name": "resnet18", "stem": "tiny"}, "stem is 'tiny', expected one of standard, small"),
        ({"name": "resnet18", "mean": [0.5] * 3}, "mean and std come together"),
        (
            {"name": "resnet18", "mean": [0.5], "std": [0.5]},
            "mean has 1 entries, expected one for each of 3",
        ),
        ({"name": "resnet18", "mean": [0.5] * 3, "std": [0.5, 0.5, 0]}, "expected positive numbers"),
        ({"name": "resnet18", "groops": 2}, "groops: resnet18 has no such option; did you mean groups"),
        ({"name": "convnet", "width": [8]}, "width: convnet has no such option; did you mean widths"),
        ({"name": "mobilenet_v2", "droput": 0.1}, "did you mean dropout"),
        ({"name": "googlenet", "aux_logits": True}, "aux_logits"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V7"}, "did you mean IMAGENET1K_V1"),
        ({"name": "resnet18", "weights": "nowhere.pt"}, "nowhere.pt: is no file"),
        ({"name": "convnet", "weights": "DEFAULT"}, "unknown weights of convnet"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_network(**{"classes": 5, **arguments})
    if arguments["name"] == "resnt18":
        assert isinstance(caught.value, UnknownName)


def test_a_spec_holds_the_options_that_were_defaults_so_that_they_may_change():
    network = load_network("convnet", classes=3)
    assert record_of(network).spec["options"] == {"widths": [16, 32, 64, 96, 128]}
    assert record_of(load_network("resnet18", classes=3)).spec["options"] == {}
