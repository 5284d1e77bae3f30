"""The report as Markdown."""

from __future__ import annotations

from training_benchmark.report import Ratio, Settings, Share, TrainingReport
from views_benchmark.markdown import figure, number, table
from views_benchmark.report import Entrant


def as_markdown(report: TrainingReport) -> str:
    """Everything that was measured, in tables."""
    parts = [_machine(report), _what(report.settings)]
    if report.targets:
        parts += ["### Targets", _targets(report)]
    for threads in report.threads():
        parts += [f"### torch on {_threads(threads)}", _timings(report, threads)]
    if report.matrix:
        parts += ["### Against a matrix product", _matrix(report)]
    parts += ["### What differs", *_first_losses(report), _differences(report.entrants)]
    return "\n\n".join(parts) + "\n"


def _machine(report: TrainingReport) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    load = " and ".join(f"{value:.2f}" for value in report.load)
    device = "" if report.settings.device == "cpu" else f", {report.settings.device}"
    return (
        f"Measured on {machine.date} at commit {machine.commit}: {machine.processor}, {machine.cores} cores{device}, "
        f"{machine.system}, load {load} at start and end; Python {machine.python}, {versions}."
    )


def _what(settings: Settings) -> str:
    compiled = ", compiled" if settings.compiled else ""
    return (
        f"{settings.network}, {settings.precision}{compiled}, batch {settings.batch}; teacher: {settings.teacher}. "
        f"{settings.images}; views `{settings.policy}`, pad-crop and flip. "
        f"{settings.rounds} rounds in which all took turns of {settings.untimed} untimed and {settings.steps} timed "
        f"steps; medians, in brackets the lowest and the highest. By default kdaug has torch work on "
        f"{_threads(settings.default_threads)} here."
    )


def _targets(report: TrainingReport) -> str:
    met = {True: "yes", False: "no", None: ""}
    rows = [
        [one.what, one.wanted, "not measured" if one.measured is None else f"{one.measured:g}", met[one.met]]
        for one in report.targets
    ]
    return table(["", "wanted", "measured", "met"], rows)


def _timings(report: TrainingReport, threads: int) -> str:
    rows = []
    for entrant in report.entrants:
        timing = report.timing(entrant.name, threads)
        if timing is None:
            rows.append([entrant.label, "missing" if entrant.missing else "not measured", "", ""])
        else:
            speed = f"{timing.images_per_second:,.0f}"
            rows.append([entrant.label, figure(timing.milliseconds), speed, _speeds(report, entrant.name, threads)])
    return table(["", "ms per step", "images/s", "speed"], rows)


def _speeds(report: TrainingReport, contender: str, threads: int) -> str:
    labels = {entrant.name: entrant.label for entrant in report.entrants}
    return "; ".join(
        f"{_in_brackets(f'{one.value:.3g}×', one)} {labels[one.against]}"
        for one in report.ratios
        if (one.contender, one.threads) == (contender, threads)
    )


def _in_brackets(value: str, spread: Ratio | Share) -> str:
    if spread.lowest == spread.highest:
        return value
    return f"{value} ({number(spread.lowest)}–{number(spread.highest)})"


def _matrix(report: TrainingReport) -> str:
    labels = {entrant.name: entrant.label for entrant in report.entrants}
    rows = []
    for rate in report.matrix:
        for share in (one for one in report.shares if one.threads == rate.threads):
            percent = _in_brackets(number(share.percent), share)
            product = f"{rate.side:,}², {rate.precision}: {figure(rate.teraflops_per_second)}"
            rows.append([labels[share.contender], str(rate.threads), product, percent])
    shares = table(["", "threads", "matrix product, 10¹² operations/s", "share, %"], rows)
    operations = report.operations_per_step or 0
    return (
        f"One step takes {operations / 1e9:,.1f}·10⁹ multiplications and additions in convolutions and matrix "
        f"products, forward and backward. Beside it, in the same rounds, one product of two square matrices."
        f"\n\n{shares}"
    )


def _first_losses(report: TrainingReport) -> list[str]:
    if not report.first_losses:
        return []
    labels = {entrant.name: entrant.label for entrant in report.entrants}
    losses = ", ".join(f"{labels[name]} {loss:.5f}" for name, loss in report.first_losses.items())
    return [f"Checked before measuring: from the same weights, the loss of the same batch is {losses}."]


def _differences(entrants: list[Entrant]) -> str:
    lines = []
    for entrant in entrants:
        missing = f" **Missing: {entrant.missing}.**" if entrant.missing else ""
        lines.append(f"- {entrant.label}: {entrant.differs}{missing}")
    return "\n".join(lines)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
