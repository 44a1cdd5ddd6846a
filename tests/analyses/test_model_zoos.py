"""Networks of timm and transformers, small and with random weights: their maps against what the libraries say
of their layouts, and against the reshaping that their papers describe."""

import pytest
import torch
from torch import nn

from vitrine.analyses.activations import activations
from vitrine.analyses.cam import cam, grad_cam
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.layers import auto_layers, choose_units, last_layers
from vitrine.analyses.receptive_field import receptive_field
from vitrine.modules import load_network


def images(height=32, width=48, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def raw_output(network, x, layer):
    outputs = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.no_grad():
        network(x)
    handle.remove()
    return outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]


def agree(network, x, layer, expected):
    """Whether the layer's maps are those of `expected(raw output)`, and every reader takes them for such."""
    maps = expected(raw_output(network, x, layer))
    with torch.no_grad():
        assert torch.equal(activations(network, x, [layer])[layer], maps)
    height, width = maps.shape[-2:]
    assert grad_cam(network, x, 1, layer).shape == (len(x), height, width)
    assert choose_units(network, x, [layer], [maps.shape[1] - 1])[layer] == (maps.shape[1] - 1,)
    boxes = receptive_field(network, layer, [[0, 0], [height - 1, width - 1]], x.shape[-2:])
    assert (boxes[0] <= boxes[1]).all()


def grid(height, width, prefix=0):
    return lambda tokens: tokens[:, prefix:].mT.unflatten(2, (height, width))


TINY = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}])
def test_vision_transformers_of_timm(timm, options):
    network = timm.models.VisionTransformer(**TINY, **options).eval()
    assert network.patch_embed.grid_size == (4, 6)
    agree(network, images(), "blocks.0", grid(4, 6, network.num_prefix_tokens))
    assert last_spatial_layer(network, images()) == "blocks.1.norm1"  # which attention reads
    assert auto_layers(network, images()) == ["blocks.0.mlp.act", "blocks.1.mlp.act", "blocks.1"]


def test_deit_with_its_distillation_token(timm):
    network = timm.models.deit.VisionTransformerDistilled(**TINY).eval()
    assert network.num_prefix_tokens == 2
    agree(network, images(), "blocks.1", grid(4, 6, 2))


def test_swin_of_timm_is_channels_last(timm):
    options = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 2, "num_classes": 5}
    network = timm.models.SwinTransformer(img_size=(32, 64), patch_size=4, **options).eval()
    assert network.output_fmt == "NHWC"
    for layer, channels in (("layers.0", 8), ("layers.1", 16)):  # the first is as high as it has channels
        agree(network, images(32, 64), layer, lambda maps: maps.permute(0, 3, 1, 2))
        assert raw_output(network, images(32, 64), layer).shape[3] == channels
    torch.testing.assert_close(
        cam(network, images(32, 64)).mean((2, 3)) + network.head.fc.bias, network(images(32, 64))
    )


def test_convnext_of_timm_as_high_as_it_has_channels(timm):
    network = timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=5).eval()
    assert raw_output(network, images(), "stages.0").shape == (2, 8, 8, 12)
    for layer in ("stages.0", "stages.1", "stages.2"):
        agree(network, images(), layer, lambda maps: maps)


def test_hiera_s_tokens_which_stand_in_no_raster_are_refused(timm):
    network = timm.create_model("hiera_tiny_224", img_size=64, num_classes=5).eval()
    with pytest.raises(ValueError, match=r"layout of layer 'blocks\.0' cannot be told"):
        activations(network, images(64, 64), ["blocks.0"])


class Logits(nn.Module):
    """What transformers' classifiers call logits."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}


def test_vit_of_transformers(transformers):
    config = transformers.ViTConfig(image_size=(32, 48), patch_size=8, intermediate_size=32, **SMALL)
    network = Logits(transformers.ViTForImageClassification(config)).eval()
    agree(network, images(), "network.vit.layers.0", grid(4, 6, 1))
    assert last_spatial_layer(network, images()) == "network.vit.layers.1.layernorm_before"


@pytest.mark.parametrize(
    ("name", "block"),
    [("vit_tiny_patch16_224", "blocks.2.mlp.act"), ("eva02_tiny_patch14_224", "blocks.2.mlp.")],
)
def test_hidden_units_of_timm_are_those_that_the_block_s_last_layer_reads(timm, name, block):
    side = 56 if "14" in name else 64
    network = timm.create_model(name, img_size=side, num_classes=5).eval()
    layers = auto_layers(network, images(side, side, count=1))
    assert layers[0].startswith(block) and len(layers) == 5 and layers[-1] == "blocks.11"
    read = []
    hook = network.blocks[2].mlp.fc2.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    hidden = raw_output(network, images(side, side, count=1), layers[0])
    hook.remove()
    assert torch.equal(hidden, read[0])


def test_of_a_hybrid_whose_tokens_are_no_maps_no_convolution_stands_for_a_feed_forward(timm):
    network = timm.create_model("mobilevit_xxs", num_classes=5).eval()
    stages = [f"stages.{i}" for i in range(4)]
    assert auto_layers(network, images(64, 64, count=1)) == [*stages, "final_conv"]


def test_dinov2_with_registers_of_transformers(transformers):
    config = transformers.Dinov2WithRegistersConfig(
        image_size=32, patch_size=8, num_register_tokens=4, **SMALL
    )
    network = Logits(transformers.Dinov2WithRegistersForImageClassification(config)).eval()
    agree(network, images(), "network.dinov2_with_registers.encoder.layer.1", grid(4, 6, 5))


def test_swin_of_transformers_gives_tokens(transformers):
    sizes = {"image_size": (32, 48), "patch_size": 4, "embed_dim": 8, "window_size": 2}
    config = transformers.SwinConfig(depths=[2, 2], num_heads=[2, 2], num_labels=5, **sizes)
    network = Logits(transformers.SwinForImageClassification(config)).eval()
    agree(network, images(), "network.swin.layernorm", grid(4, 6))
    agree(network, images(), "network.swin.embeddings.norm", grid(8, 12))
    bias = network.network.classifier.bias
    torch.testing.assert_close(cam(network, images()).mean((2, 3)) + bias, network(images()))
    agree(network, images(), "network.swin.encoder.layers.0", grid(4, 6))  # the first tensor of a tuple
    assert last_layers(network, images())[-1] == "network.swin.encoder.layers.1"
    assert last_spatial_layer(network, images()) == "network.swin.encoder.layers.1.blocks.1.layernorm_after"


def test_convnext_of_transformers_as_high_as_it_has_channels(transformers):
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=5)
    network = Logits(transformers.ConvNextForImageClassification(config)).eval()
    for layer in ("network.convnext.encoder.stages.0", "network.convnext.encoder.stages.1"):
        agree(network, images(), layer, lambda maps: maps)
    assert last_spatial_layer(network, images()) == "network.convnext.encoder.stages.1"


NHWC = "channels last"
PEERS = {  # network: side of images, prefix tokens before the grid or channels last, Grad-CAM's layer
    "timm/resnet10t": (64, None, "layer4"),
    "timm/convnext_atto": (64, None, "stages.3"),
    "timm/swinv2_tiny_window8_256": (64, NHWC, "layers.3"),
    "timm/vit_tiny_patch16_224": (64, 1, "blocks.11.norm1"),
    "timm/deit_tiny_distilled_patch16_224": (64, 2, "blocks.11.norm1"),
    "timm/swin_tiny_patch4_window7_224": (64, 0, "layers.3.blocks.1.norm2"),
    "hf/vit": (32, 1, "vit.layers.1.layernorm_before"),
    "hf/swin": (32, 0, "swin.encoder.layers.1.blocks.1.layernorm_after"),
}


def reshaping(prefix):
    """What pytorch-grad-cam is told of a layer's output."""
    if prefix == NHWC:
        return lambda output: output.permute(0, 3, 1, 2)

    def tokens_to_maps(output):
        side = round((output.shape[1] - prefix) ** 0.5)
        return output[:, prefix:].mT.unflatten(2, (side, side))

    return None if prefix is None else tokens_to_maps


@pytest.fixture
def by_name(timm, transformers, tmp_path):
    def build(name, side):
        sizes = {"image_size": side, "num_labels": 5}
        if name == "hf/vit":
            transformers.ViTConfig(patch_size=8, **SMALL | sizes).save_pretrained(tmp_path)
        elif name == "hf/swin":
            sizes |= {
                "patch_size": 4,
                "embed_dim": 8,
                "window_size": 2,
                "depths": [2, 2],
                "num_heads": [2, 2],
            }
            transformers.SwinConfig(**sizes).save_pretrained(tmp_path)
        torch.manual_seed(0)
        found = f"hf/{tmp_path}" if name.startswith("hf") else name
        return load_network(found, classes=5, image_size=side).eval()

    return build


@pytest.mark.parametrize("name", PEERS)
def test_grad_cam_at_the_layer_chosen_is_pytorch_grad_cam_s(by_name, name):
    """Gildenblat's library, told by hand where maps are, of the layer found here without being told."""
    peer = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    side, prefix, layer = PEERS[name]
    network, x = by_name(name, side), images(side, side)
    assert last_spatial_layer(network, x) == layer
    target = network.get_submodule(layer)
    peaks = torch.stack([grad_cam(network, x, k, layer).amax((1, 2)) for k in range(5)])
    assert (peaks.amax(0) > 0).all()
    classes = peaks.argmax(0)  # some have no positive evidence, with random weights
    with peer.GradCAM(network, [target], reshape_transform=reshaping(prefix)) as theirs:
        expected = theirs(input_tensor=x, targets=[ClassifierOutputTarget(int(k)) for k in classes])
    ours = grad_cam(network, x, classes, layer).numpy()
    found = scale_cam_image(scale_cam_image(ours, (side, side)))  # as the library does, twice
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_a_layer_before_attention_whose_places_cannot_be_told_is_not_taken(timm):
    """LeViT's later stages cannot be read as maps; what can be lies many attentions before the head."""
    network = timm.create_model("levit_128s", num_classes=5).eval()
    with pytest.raises(NoSpatialLayer):
        last_spatial_layer(network, images(224, 224, count=1))


def test_what_was_seen_on_an_input_embedding_or_an_identity_looks_at_the_last_block(timm, transformers):
    network = timm.create_model("crossvit_tiny_240", num_classes=5).eval()  # two branches in one block
    assert last_spatial_layer(network, images(240, 240, count=1)).startswith("blocks.2.fusion")
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, window_size=2, depths=[2, 2], num_heads=[2, 2], num_labels=5
    )
    swin = Logits(transformers.SwinForImageClassification(config)).eval()
    stages = [f"network.swin.encoder.layers.{name}" for name in ("0.blocks.1", "1")]
    assert last_layers(swin, images(32, 32)) == stages
    assert [len(x) for x in choose_units(swin, images(32, 32), units=100).values()] == [32, 64, 16]
