"""What a run leaves on disk: its directory, identity, environment, metrics and status."""

from kdaug.runs.directory import RunDirectory, check_resumable, find_run, list_checkpoints, open_run
from kdaug.runs.environment import describe_environment, keep_threads, read_environment, record_environment
from kdaug.runs.identity import recipe_differences, recipe_fingerprint, result_settings
from kdaug.runs.metrics import MetricsWriter, RunFollower, read_metrics, truncate_metrics
from kdaug.runs.status import RunStatus, find_runs, run_status

__all__ = [
    "MetricsWriter",
    "RunDirectory",
    "RunFollower",
    "RunStatus",
    "check_resumable",
    "describe_environment",
    "find_run",
    "find_runs",
    "keep_threads",
    "list_checkpoints",
    "open_run",
    "read_environment",
    "read_metrics",
    "recipe_differences",
    "recipe_fingerprint",
    "record_environment",
    "result_settings",
    "run_status",
    "truncate_metrics",
]
