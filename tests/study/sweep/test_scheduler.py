"""Doing jobs: order, what waits for what, what failed before, other processes, and stopping."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.study.sweep import Job, JobStatus, run_jobs, scheduler


class Scripted:
    """Workers whose jobs end, one a look, with the exit code that `codes` gives them; 0 if none."""

    def __init__(self, codes: dict[str, int] | None = None, at_once: int = 1) -> None:
        self.codes, self.at_once = codes or {}, at_once
        self.started: list[str] = []
        self.running: list[str] = []
        self.most, self.stopped = 0, False

    def has_room(self) -> bool:
        return len(self.running) < self.at_once

    def start(self, job: Job, log: Path) -> None:
        log.write_text(f"working\nkdaug: no luck with {job.name}\n")
        self.started.append(job.name)
        self.running.append(job.name)
        self.most = max(self.most, len(self.running))

    def ended(self) -> dict[str, int]:
        return {name: self.codes.get(name, 0) for name in [self.running.pop(0)]} if self.running else {}

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SECONDS_BETWEEN_LOOKS", 0)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """A teacher, labels that wait for it, two runs that wait for those, and one that waits for nothing."""
    depends_on = {"teacher": None, "labels": "teacher", "a": "labels", "b": "labels", "c": None}
    return [
        Job(name, tmp_path / name, ("label" if name == "labels" else "train",), depends_on[name]) for name in depends_on
    ]


def states(statuses: list[JobStatus]) -> dict[str, str]:
    return {status.job.name: status.state for status in statuses}


def done(jobs: list[Job], folder: Path, workers: Scripted, retry: bool = False) -> list[JobStatus]:
    return run_jobs(jobs, folder, workers, retry, lambda _: None)


def test_what_waits_is_done_after_what_it_waits_for(jobs: list[Job], tmp_path: Path) -> None:
    workers = Scripted(at_once=2)
    assert set(states(done(jobs, tmp_path, workers)).values()) == {"finished"}
    assert workers.started == ["teacher", "c", "labels", "a", "b"]
    assert workers.most == 2


def test_a_failure_is_told_and_takes_with_it_what_waits_for_it(jobs: list[Job], tmp_path: Path) -> None:
    statuses = done(jobs, tmp_path, Scripted({"labels": 2, "c": -9}))
    assert states(statuses) == {"teacher": "finished", "labels": "failed", "a": "failed", "b": "failed", "c": "failed"}
    message = {status.job.name: status.message for status in statuses}
    assert message["labels"] == f"no luck with labels ({tmp_path / 'logs/labels.log'})"
    assert message["a"] == "it needs labels, which failed"
    assert message["c"].startswith("killed by signal 9; ")
    assert json.loads((tmp_path / "failed.json").read_text()) == {
        name: message[name] for name in ("labels", "a", "b", "c")
    }


def test_what_failed_is_tried_again_only_on_request(jobs: list[Job], tmp_path: Path) -> None:
    done(jobs, tmp_path, Scripted({"b": 1}))
    second = Scripted()
    statuses = done(jobs, tmp_path, second)
    assert states(statuses)["b"] == "failed"
    assert "b" not in second.started
    third = Scripted()
    assert set(states(done(jobs, tmp_path, third, retry=True)).values()) == {"finished"}
    assert "b" in third.started
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_what_failed_and_is_waited_for_is_still_told_the_next_time(jobs: list[Job], tmp_path: Path) -> None:
    first, again, more = (done(some, tmp_path, Scripted({"teacher": 1})) for some in (jobs[:3], jobs[:3], jobs[:4]))
    assert states(first) == states(again) == dict.fromkeys(("teacher", "labels", "a"), "failed")
    assert [status.message for status in again] == [status.message for status in first]
    assert states(more)["b"] == "failed", "the teacher is not tried again unasked"
    assert set(states(done(jobs, tmp_path, Scripted(), retry=True)).values()) == {"finished"}


def test_an_error_leaves_nothing_running(jobs: list[Job], tmp_path: Path) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    workers = Scripted()
    with pytest.raises(OSError, match="No space left"):
        run_jobs(jobs, tmp_path, workers, False, full)
    assert workers.stopped


def test_what_is_finished_is_left_alone_and_so_is_what_only_it_needed(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_is_finished", lambda job: job.name in ("a", "b"))
    workers = Scripted()
    assert set(states(done(jobs, tmp_path, workers)).values()) == {"finished"}
    assert workers.started == ["c"]


def test_an_interrupted_job_is_neither_failed_nor_finished(jobs: list[Job], tmp_path: Path) -> None:
    assert states(done(jobs[4:], tmp_path, Scripted({"c": 130}))) == {"c": "stopped"}
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_what_waits_for_an_interrupted_job_waits_no_longer(jobs: list[Job], tmp_path: Path) -> None:
    statuses = done(jobs, tmp_path, Scripted({"teacher": scheduler.INTERRUPTED}))
    assert states(statuses) == {"c": "finished", **dict.fromkeys(("teacher", "labels", "a", "b"), "stopped")}
    assert statuses[1].message == "it needs teacher, which was interrupted"
    assert set(states(done(jobs, tmp_path, Scripted())).values()) == {"finished"}, (
        "it goes on without being asked twice"
    )


def test_failures_of_other_jobs_in_the_folder_stay(jobs: list[Job], tmp_path: Path) -> None:
    done(jobs[-1:], tmp_path, Scripted({"c": 2}))
    done(jobs[:1], tmp_path, Scripted())
    assert list(json.loads((tmp_path / "failed.json").read_text())) == ["c"]


@pytest.fixture
def held(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Called with a number of looks: so long another process has the directory of c."""
    looks = [0]

    def of_another(place: Path) -> bool:
        if place.name != "c":
            return False
        looks[0] -= 1
        return looks[0] >= 0

    monkeypatch.setattr(scheduler, "is_locked", of_another)
    return lambda count: looks.__setitem__(0, count)


def test_a_run_of_another_process_is_waited_for_and_done_if_that_was_lost(
    jobs: list[Job], tmp_path: Path, held: Callable[[int], None]
) -> None:
    held(5)
    workers, seen = Scripted(), list[str]()
    statuses = run_jobs(jobs[4:], tmp_path, workers, False, lambda all_: seen.append(all_[0].state))
    assert seen[:5] == ["elsewhere"] * 5
    assert states(statuses) == {"c": "finished"}
    assert workers.started == ["c"]


def test_a_run_that_another_process_took_a_moment_before_has_not_failed(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Scripted({"c": 2})
    monkeypatch.setattr(scheduler, "is_locked", lambda _: workers.started == ["c"] and workers.codes.pop("c", 0) == 2)
    assert states(done(jobs[4:], tmp_path, workers)) == {"c": "finished"}
    assert workers.started == ["c", "c"]


def test_ctrl_c_stops_all_jobs(jobs: list[Job], tmp_path: Path) -> None:
    workers = Scripted()

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path, workers, False, interrupt)
    assert workers.stopped


@pytest.fixture
def _of_a_terminal() -> Iterator[None]:
    """Signals are as in a terminal, even if the tests themselves run under nohup or in the background."""
    usual = {
        signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
    }  # fmt: skip
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("_of_a_terminal")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_it_stops_all_jobs_as_after_ctrl_c(jobs: list[Job], tmp_path: Path, sent: signal.Signals) -> None:
    workers, before = Scripted(), signal.getsignal(sent)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path, workers, False, lambda _: signal.raise_signal(sent))
    assert workers.stopped
    assert signal.getsignal(sent) == before


def test_under_nohup_it_outlives_its_terminal(jobs: list[Job], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        statuses = run_jobs(jobs, tmp_path, Scripted(), False, lambda _: signal.raise_signal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert set(states(statuses).values()) == {"finished"}


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_a_damaged_list_of_failures_is_named(jobs: list[Job], tmp_path: Path, content: str) -> None:
    (tmp_path / "failed.json").write_text(content)
    with pytest.raises(InputError, match=r"failed.json is damaged; delete it"):
        done(jobs, tmp_path, Scripted())
