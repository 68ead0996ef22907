"""What a service declares: metrics, objectives and the catalogue that holds them."""

from taskscope.catalogue.catalogue import Catalogue, Target
from taskscope.catalogue.links import Links
from taskscope.catalogue.metric import Across, Kind, Label, Metric, Unit
from taskscope.catalogue.objective import Match, Objective, Window

__all__ = [
    "Across",
    "Catalogue",
    "Kind",
    "Label",
    "Links",
    "Match",
    "Metric",
    "Objective",
    "Target",
    "Unit",
    "Window",
]
