"""Rules, routing and runbooks for on-call, made from a service's catalogue.

`taskscope_alerts.render.render(catalogue)` gives the files; the values behind them are these.
"""

from taskscope_alerts.groups import alerts_by_name, groups
from taskscope_alerts.routing import alertmanager
from taskscope_alerts.rule import WATCHDOG, Alert, Group, Recording, RuleError
from taskscope_alerts.severity import Severity

__all__ = [
    "WATCHDOG",
    "Alert",
    "Group",
    "Recording",
    "RuleError",
    "Severity",
    "alertmanager",
    "alerts_by_name",
    "groups",
]
