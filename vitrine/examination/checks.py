"""What is checked before a run begins: settings with which its network cannot be examined."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vitrine.analyses.base import Analysis
from vitrine.core.settings import SettingError
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import choose_units


def check_analyses(
    analyses: Mapping[str, Analysis], settings: AnalysisSettings, network: nn.Module, images: Tensor
) -> None:
    """Raise SettingError for a layer or a unit that the network does not have, and for what one of the
    analyses that are enabled cannot be made with.

    Args:
        network: in eval mode.
        images: [1, C, H, W], of the size of the data set's.
    """
    choose_units(network, images, settings.layers, settings.units)
    for name, analysis in analyses.items():
        try:
            if analysis.enabled:
                analysis.check(network, images)
        except SettingError as error:
            raise SettingError(f"analysis.{name}.{error.key}", error.problem) from error
