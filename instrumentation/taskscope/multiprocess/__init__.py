"""Several worker processes of one service as one answer: `uvicorn --workers`, gunicorn, `multiprocessing`.

store = WorkerStore(folder, service="taskapi", failed=instruments.failed)   # a taskscope.metrics.store.Store
workers = WorkerFolder(folder, service="taskapi", known=catalogue.all_metrics, failed=instruments.failed)
answer = workers.collect(exemplars=openmetrics)    # Collected(readings, workers, skipped), in any worker
theirs = foreign_multiprocess(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))    # families, skipped
"""

from taskscope.multiprocess.folder import Collected, WorkerFolder, collect
from taskscope.multiprocess.foreign import Foreign, foreign_multiprocess
from taskscope.multiprocess.worker import WorkerStore

__all__ = [
    "Collected",
    "Foreign",
    "WorkerFolder",
    "WorkerStore",
    "collect",
    "foreign_multiprocess",
]
