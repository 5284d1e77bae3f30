"""The scheduler: order, dependencies, earlier failures, other processes, and stopping."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.study.sweep import Job, JobStatus, run_jobs, scheduler

TO_SHARE = ("teacher", "labels")


class FakeWorkers:
    """Workers whose jobs end one per poll, with their exit code in `codes`, or else 0."""

    def __init__(self, codes: dict[str, int] | None = None, max_jobs: int = 1) -> None:
        self.codes, self.max_jobs = codes or {}, max_jobs
        self.started: list[str] = []
        self.running: list[str] = []
        self.max_running, self.stopped = 0, False

    def can_start(self) -> bool:
        return len(self.running) < self.max_jobs

    def start(self, job: Job, log: Path) -> None:
        log.write_text(f"working\nkdaug: no luck with {job.name}\n")
        self.started.append(job.name)
        self.running.append(job.name)
        self.max_running = max(self.max_running, len(self.running))

    def poll(self) -> dict[str, int]:
        return {name: self.codes.get(name, 0) for name in [self.running.pop(0)]} if self.running else {}

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """A teacher, labels that depend on it, two runs that depend on the labels, and an independent one."""
    depends_on = {"teacher": (), "labels": ("teacher",), "a": ("labels",), "b": ("labels",), "c": ()}
    return [
        Job(name, tmp_path / name, ("label" if name == "labels" else "train",), depends_on[name], name in TO_SHARE)
        for name in depends_on
    ]


def states(statuses: list[JobStatus]) -> dict[str, str]:
    return {status.job.name: status.state for status in statuses}


def run(jobs: list[Job], folder: Path, workers: FakeWorkers, retry: bool = False) -> list[JobStatus]:
    return run_jobs(jobs, folder, workers, retry, lambda _: None)


def test_jobs_run_after_their_dependencies(jobs: list[Job], tmp_path: Path) -> None:
    workers = FakeWorkers(max_jobs=2)
    assert set(states(run(jobs, tmp_path, workers)).values()) == {"finished"}
    assert workers.started == ["teacher", "c", "labels", "a", "b"]
    assert workers.max_running == 2


def test_run_that_teaches_a_finished_one_is_still_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike a teacher that is no run of the sweep."""
    student, teacher = Job("b", tmp_path / "b", ("train",), ("a",)), Job("a", tmp_path / "a", ("train",))
    workers = FakeWorkers()
    assert set(states(run([student, teacher], tmp_path, workers)).values()) == {"finished"}
    assert workers.started == ["a", "b"]
    monkeypatch.setattr(scheduler, "_is_finished", lambda job: job.name == "b")
    workers = FakeWorkers()
    run([student, teacher], tmp_path, workers)
    assert workers.started == ["a"]


def test_labels_that_wait_for_a_run_are_needed(tmp_path: Path) -> None:
    """Jobs are in any order."""
    jobs = [
        Job("labels", tmp_path / "labels", ("label",), ("a",), serves_others=True),
        Job("a", tmp_path / "a", ("train",)),
        Job("b", tmp_path / "b", ("train",), ("labels",)),
    ]
    workers = FakeWorkers()
    run(jobs, tmp_path, workers)
    assert workers.started == ["a", "labels", "b"]


def test_failure_is_recorded_and_fails_dependents(jobs: list[Job], tmp_path: Path) -> None:
    statuses = run(jobs, tmp_path, FakeWorkers({"labels": 2, "c": -9}))
    assert states(statuses) == {"teacher": "finished", "labels": "failed", "a": "failed", "b": "failed", "c": "failed"}
    message = {status.job.name: status.message for status in statuses}
    assert message["labels"] == f"no luck with labels ({tmp_path / 'logs/labels.log'})"
    assert message["a"] == "it depends on labels, which failed"
    assert message["c"].startswith("killed by signal 9; ")
    assert json.loads((tmp_path / "failed.json").read_text()) == {
        name: message[name] for name in ("labels", "a", "b", "c")
    }


def test_failed_jobs_run_again_only_with_retry(jobs: list[Job], tmp_path: Path) -> None:
    run(jobs, tmp_path, FakeWorkers({"b": 1}))
    second = FakeWorkers()
    statuses = run(jobs, tmp_path, second)
    assert states(statuses)["b"] == "failed"
    assert "b" not in second.started
    third = FakeWorkers()
    assert set(states(run(jobs, tmp_path, third, retry=True)).values()) == {"finished"}
    assert "b" in third.started
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_failed_dependency_is_reported_again(jobs: list[Job], tmp_path: Path) -> None:
    first, again, more = (run(some, tmp_path, FakeWorkers({"teacher": 1})) for some in (jobs[:3], jobs[:3], jobs[:4]))
    assert states(first) == states(again) == dict.fromkeys(("teacher", "labels", "a"), "failed")
    assert [status.message for status in again] == [status.message for status in first]
    assert states(more)["b"] == "failed", "the teacher does not run again without retry"
    assert set(states(run(jobs, tmp_path, FakeWorkers(), retry=True)).values()) == {"finished"}


def test_error_stops_all_jobs(jobs: list[Job], tmp_path: Path) -> None:
    def raise_disk_full(_: object) -> None:
        raise OSError(28, "No space left on device")

    workers = FakeWorkers()
    with pytest.raises(OSError, match="No space left"):
        run_jobs(jobs, tmp_path, workers, False, raise_disk_full)
    assert workers.stopped


def test_finished_jobs_and_their_dependencies_are_skipped(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_is_finished", lambda job: job.name in ("a", "b"))
    workers = FakeWorkers()
    assert set(states(run(jobs, tmp_path, workers)).values()) == {"finished"}
    assert workers.started == ["c"]


def test_interrupted_job_is_neither_failed_nor_finished(jobs: list[Job], tmp_path: Path) -> None:
    assert states(run(jobs[4:], tmp_path, FakeWorkers({"c": 130}))) == {"c": "stopped"}
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_dependents_of_an_interrupted_job_stop(jobs: list[Job], tmp_path: Path) -> None:
    statuses = run(jobs, tmp_path, FakeWorkers({"teacher": scheduler.INTERRUPTED}))
    assert states(statuses) == {"c": "finished", **dict.fromkeys(("teacher", "labels", "a", "b"), "stopped")}
    assert statuses[1].message == "it depends on teacher, which was interrupted"
    assert set(states(run(jobs, tmp_path, FakeWorkers())).values()) == {"finished"}, "the next call resumes it"


def test_failures_of_other_jobs_are_kept(jobs: list[Job], tmp_path: Path) -> None:
    run(jobs[-1:], tmp_path, FakeWorkers({"c": 2}))
    run(jobs[:1], tmp_path, FakeWorkers())
    assert list(json.loads((tmp_path / "failed.json").read_text())) == ["c"]


@pytest.fixture
def lock_c(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """lock_c(n): another process locks the directory of job c for the next n polls."""
    polls = [0]

    def is_locked(path: Path) -> bool:
        if path.name != "c":
            return False
        polls[0] -= 1
        return polls[0] >= 0

    monkeypatch.setattr(scheduler, "is_locked", is_locked)
    return lambda count: polls.__setitem__(0, count)


def test_locked_run_starts_when_it_is_unlocked(jobs: list[Job], tmp_path: Path, lock_c: Callable[[int], None]) -> None:
    lock_c(5)
    workers, shown = FakeWorkers(), list[str]()
    statuses = run_jobs(jobs[4:], tmp_path, workers, False, lambda statuses: shown.append(statuses[0].state))
    assert shown[:5] == ["locked"] * 5
    assert states(statuses) == {"c": "finished"}
    assert workers.started == ["c"]


def test_run_locked_by_another_process_at_start_has_not_failed(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = FakeWorkers({"c": 2})
    monkeypatch.setattr(scheduler, "is_locked", lambda _: workers.started == ["c"] and workers.codes.pop("c", 0) == 2)
    assert states(run(jobs[4:], tmp_path, workers)) == {"c": "finished"}
    assert workers.started == ["c", "c"]


def test_ctrl_c_stops_all_jobs(jobs: list[Job], tmp_path: Path) -> None:
    workers = FakeWorkers()

    def raise_interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path, workers, False, raise_interrupt)
    assert workers.stopped


@pytest.fixture
def _terminal_signals() -> Iterator[None]:
    """Signal handlers as in a terminal, even if the tests run under nohup or in the background."""
    handlers = {
        signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
    }  # fmt: skip
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("_terminal_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_stop_all_jobs(jobs: list[Job], tmp_path: Path, number: signal.Signals) -> None:
    workers, before = FakeWorkers(), signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path, workers, False, lambda _: signal.raise_signal(number))
    assert workers.stopped
    assert signal.getsignal(number) == before


def test_sighup_is_ignored_under_nohup(jobs: list[Job], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        statuses = run_jobs(jobs, tmp_path, FakeWorkers(), False, lambda _: signal.raise_signal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert set(states(statuses).values()) == {"finished"}


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_damaged_failed_json_is_an_error(jobs: list[Job], tmp_path: Path, content: str) -> None:
    (tmp_path / "failed.json").write_text(content)
    with pytest.raises(InputError, match=r"failed.json is damaged; delete it"):
        run(jobs, tmp_path, FakeWorkers())
