"""Where concepts are in images, and how much each adds to a class's logit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.cam import class_gradients
from vitrine.analyses.dictionary import Dictionary
from vitrine.analyses.evidence import last_spatial_layer
from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import layouts
from vitrine.analyses.pooled_head import NoPooledHead, pooled_head
from vitrine.core.network_scopes import in_eager_eval_mode

NEAR_HEAD = 8  # how many of the last modules may be the one whose output the head averages


@dataclass(frozen=True)
class ConceptEvidence:
    """What a dictionary of K concepts finds in N images; on the CPU."""

    peaks: Tensor  # the largest coefficient of each concept in each image, [N, K]
    means: Tensor  # its mean over the places, [N, K]
    parts: Tensor  # what it adds to the logit of the image's class, to first order, [N, K]
    labels: Tensor  # the images' classes, [N]
    agrees: Tensor  # whether the network says the same of what concepts rebuild, bool [N]
    unexplained: float  # squared error of what they rebuild, as a share of the variance over all places

    @property
    def shares(self) -> Tensor:
        """Each concept's share of all coefficients, [K]."""
        totals = self.means.double().sum(0)
        return (totals / totals.sum().clamp_min(1e-30)).float()

    def importance(self, classes: int) -> Tensor:
        """What each concept adds to a class's logit in the images of that class, mean, [K, classes]; NaN for
        a class without images."""
        sums = torch.zeros(classes, self.parts.shape[1]).index_add_(0, self.labels, self.parts)
        return (sums / self.labels.bincount(minlength=classes)[:, None]).T


def concept_layer(network: nn.Module, images: Tensor) -> str:
    """The layer whose maps the head averages, where it does, so that what concepts add to a logit adds up;
    else the last one with maps that the logits depend on.

    They differ where what follows is added to what passes by, as in a transformer's last block.

    Raises:
        NoSpatialLayer: there is none.
    """
    images = images[:2]
    default = last_spatial_layer(network, images)
    try:
        averaged = pooled_head(network, images).maps
    except NoPooledHead:
        return default
    names = [name for name, _ in network.named_modules() if name]
    for layer in (default, *reversed(names[-NEAR_HEAD:])):
        try:
            with torch.no_grad():
                maps = activations(network, images, [layer])[layer]
        except ValueError:
            continue
        if torch.equal(maps, averaged):
            return layer
    return default


def sample_places(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], layer: str, each: int, seed: int
) -> Tensor:
    """A layer's channels at `each` places of every image (all, where there are fewer), drawn by the seed:
    float32 [P, C].

    Args:
        batches: images [N, C, H, W] and labels.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = []
    with torch.no_grad():
        for images, _ in batches:
            maps = activations(network, images, [layer])[layer].flatten(2).float()
            order = torch.rand(len(maps), maps.shape[2], generator=generator).argsort(1)[:, :each]
            places = order.to(maps.device)[:, None].expand(-1, maps.shape[1], -1)
            kept.append(maps.gather(2, places).transpose(1, 2).flatten(0, 1))
    return torch.cat(kept)


def concept_maps(network: nn.Module, images: Tensor, layer: str, dictionary: Dictionary) -> Tensor:
    """The coefficient of each concept at each place of a layer's maps, [N, K, h, w]."""
    with torch.no_grad():
        return _encode(activations(network, images, [layer])[layer], dictionary)


def find_evidence(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], layer: str, dictionary: Dictionary
) -> ConceptEvidence:
    """What a dictionary finds in images, batch by batch.

    What a concept with direction v adds to a logit z is gradient x activation of its part of the maps A: the
    sum over places of its coefficient times dz/dA . v. All concepts, the offset and the error add up to
    gradient x activation of the layer, which is the logit less its bias where a linear head follows an
    average; occlusion, integrated gradients and the total Sobol index of CRAFT then rank concepts alike (Fel
    2023, "A holistic approach").

    Args:
        batches: images [N, C, H, W] and their classes [N].
    """
    rows: list[list[Tensor]] = []
    error = squares = count = 0.0
    sums: Tensor | float = 0.0
    for images, labels in batches:
        maps, gradients, logits = class_gradients(network, images, labels, layer)
        with torch.no_grad():
            maps, gradients = maps.float(), gradients.float()
            codes = _encode(maps, dictionary)
            rebuilt = _decode(codes, dictionary)
            along = torch.einsum("nchw,kc->nkhw", gradients, dictionary.directions)
            error += (maps - rebuilt).double().square().sum().item()
            squares += maps.double().square().sum().item()
            sums = sums + maps.double().sum((0, 2, 3))
            count += maps.numel() / maps.shape[1]
            said = logits_of_rebuilt(network, images, layer, dictionary).argmax(1)
            flat = codes.flatten(2)
            row = [flat.amax(2), flat.mean(2), (codes * along).sum((2, 3)), labels, said == logits.argmax(1)]
            rows.append([values.cpu() for values in row])
    variance = squares - (sums.square().sum() / count).item()
    peaks, means, parts, labels, agrees = (torch.cat(column) for column in zip(*rows))
    return ConceptEvidence(peaks, means, parts, labels, agrees, error / max(variance, 1e-30))


@in_eager_eval_mode
def logits_of_rebuilt(network: nn.Module, images: Tensor, layer: str, dictionary: Dictionary) -> Tensor:
    """The logits [N, K] where a layer's maps are replaced by what concepts rebuild of them."""
    layout = layouts(network, images, [layer])[layer]

    def replace(_layer: str, output: Tensor) -> Tensor:
        output = output.clone()
        maps = layout.maps(output)  # a view
        maps.copy_(_decode(_encode(maps.float(), dictionary), dictionary))
        return output

    with torch.no_grad(), output_hooks(network, [layer], replace):
        return network(images)


def match_concepts(traces: Tensor, previous: Sequence[Sequence[float]]) -> list[tuple[int, float] | None]:
    """Which concept of before each of these is: a one-to-one assignment with the largest sum of correlations
    (Kuhn 1955), as pairs of index and correlation; None for those that are left over.

    Directions rotate while a network learns, so that what is compared is where concepts are found.

    Args:
        traces: coefficients of each concept at the same places of the same images, [K, T].
        previous: those of before, each of any length.
    """
    from scipy.optimize import linear_sum_assignment

    count = traces.shape[1]
    comparable = [i for i, trace in enumerate(previous) if len(trace) == count]
    if not comparable:
        return [None] * len(traces)
    before = torch.tensor([list(previous[i]) for i in comparable])
    now, before = (_standardised(rows.double().nan_to_num(0)) for rows in (traces, before))
    correlations = now @ before.T
    found: list[tuple[int, float] | None] = [None] * len(traces)
    for row, column in zip(*linear_sum_assignment(correlations.numpy(), maximize=True)):
        found[row] = comparable[column], correlations[row, column].item()
    return found


def _standardised(rows: Tensor) -> Tensor:
    """Rows with mean 0 and length 1; of a constant one, zeros."""
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _encode(maps: Tensor, dictionary: Dictionary) -> Tensor:
    n, channels, height, width = maps.shape
    places = maps.float().permute(0, 2, 3, 1).reshape(-1, channels)
    return dictionary.encode(places).view(n, height, width, -1).permute(0, 3, 1, 2)


def _decode(codes: Tensor, dictionary: Dictionary) -> Tensor:
    n, count, height, width = codes.shape
    places = dictionary.decode(codes.permute(0, 2, 3, 1).reshape(-1, count))
    return places.view(n, height, width, -1).permute(0, 3, 1, 2)
