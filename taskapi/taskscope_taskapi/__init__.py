"""The task API: the service that is watched. Importing the package stays light; the service is in `app`."""

from taskscope_taskapi.catalogue import CATALOGUE

__all__ = ["CATALOGUE"]
