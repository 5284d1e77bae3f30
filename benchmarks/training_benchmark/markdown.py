"""A training report as Markdown."""

from __future__ import annotations

from harness.markdown import (
    add_range,
    format_contenders,
    format_machine,
    format_number,
    format_spread,
    format_table,
    format_targets,
)
from training_benchmark.report import Settings, TrainingReport


def training_markdown(report: TrainingReport) -> str:
    """All measurements in tables."""
    parts = [format_machine(report, report.settings.device), _settings(report.settings)]
    if report.targets:
        parts += ["### Targets", format_targets(report.targets)]
    for threads in report.threads():
        parts += [f"### torch on {_threads(threads)}", _timings(report, threads)]
    if report.matrix:
        parts += ["### Comparison with a matrix product", _matrix(report)]
    parts.append("### How the contenders differ")
    if report.first_losses:
        parts.append(_first_losses(report))
    return "\n\n".join([*parts, format_contenders(report.entrants)]) + "\n"


def _settings(settings: Settings) -> str:
    compiled = ", compiled" * settings.compiled + " (CUDA graphs)" * settings.cuda_graphs
    return (
        f"{settings.network}, {settings.precision}{compiled}, batch {settings.batch}. Teacher: {settings.teacher}. "
        f"{settings.images}. Views: `{settings.policy}`, pad-crop and flip. {settings.rounds} rounds, in each of which "
        f"every contender runs {settings.untimed} warm-up and {settings.steps} timed steps. Values are medians, with "
        f"minimum and maximum in parentheses. By default kdaug runs torch on {_threads(settings.default_threads)} on "
        f"this machine."
    )


def _timings(report: TrainingReport, threads: int) -> str:
    rows = []
    for contender in report.entrants:
        timing = report.timing(contender.name, threads)
        if timing is None:
            rows.append([contender.label, "missing" if contender.missing else "not measured", "", ""])
        else:
            images = f"{timing.images_per_second:,.0f}"
            speed = _relative_speed(report, contender.name, threads)
            rows.append([contender.label, format_spread(timing.milliseconds), images, speed])
    return format_table(["", "ms per step", "images/s", "relative speed"], rows)


def _relative_speed(report: TrainingReport, contender: str, threads: int) -> str:
    labels = report.labels()
    return "; ".join(
        f"{add_range(f'{ratio.value:.3g}×', ratio.lowest, ratio.highest)} of {labels[ratio.against]}"
        for ratio in report.ratios
        if (ratio.contender, ratio.threads) == (contender, threads)
    )


def _matrix(report: TrainingReport) -> str:
    labels = report.labels()
    rows = []
    for rate in report.matrix:
        for share in (one for one in report.shares if one.threads == rate.threads):
            percent = add_range(format_number(share.percent), share.lowest, share.highest)
            product = f"{rate.side:,}², {rate.precision}: {format_spread(rate.teraflops_per_second)}"
            rows.append([labels[share.contender], str(rate.threads), product, percent])
    table = format_table(["", "threads", "matrix product, 10¹² operations/s", "rate of the step, % of it"], rows)
    operations = report.operations_per_step or 0
    return (
        f"One step takes {operations / 1e9:,.1f}·10⁹ multiplications and additions in convolutions and matrix "
        f"products, forward and backward. The product of two square matrices was measured in the same rounds."
        f"\n\n{table}"
    )


def _first_losses(report: TrainingReport) -> str:
    labels = report.labels()
    losses = "; ".join(f"{labels[name]}: {loss:.5f}" for name, loss in report.first_losses.items())
    return f"Checked before measuring: the loss with the same weights and the same batch. {losses}."


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
