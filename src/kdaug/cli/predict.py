"""kdaug predict RUN IMAGES ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from kdaug.cli.output import check_output_file, print_error
from kdaug.cli.parsing import parse
from kdaug.errors import InputError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from kdaug.inference import Classifier, TopClasses
    from kdaug.inference.prediction_files import FilePrediction

_ROWS_BESIDE_FILE = 20
"""Rows of the table if a file gets all of them."""
_MAX_LINE = 10_000


@dataclass(frozen=True)
class Arguments:
    """Predict the classes of images with the network of a finished run.

    kdaug predict runs/a photo.jpg
    kdaug predict runs/a holidays/ 'inbox/**/*.jpg' --top 3 --csv classes.csv
    """

    run: tyro.conf.Positional[str]
    """Run directory (its final weights), a weight file such as RUN/best.safetensors, or a folder in timm's layout."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders (with all below them) and glob patterns."""
    top: int = 5
    """Number of most probable classes per image."""
    csv: str | None = None
    """File to write as CSV: path, class_1, probability_1, class_2, ..."""
    json: str | None = None
    """File to write as JSON: [{"path", "top": [{"class", "probability"}, ...]}, ...]."""
    batch: int | None = None
    """Images per forward pass; None: as in evaluation."""
    device: str = "auto"
    """auto (a GPU if available), cpu, cuda, ..."""


def run(arguments: list[str]) -> int:
    """Predicts and prints; returns the exit code, 1 if there was no image or an unreadable one among the arguments."""
    args = parse(Arguments, arguments, "kdaug predict")
    if not args.images:
        raise InputError("no images to predict", "give files, folders or patterns after the run")
    for flag, file in (("--csv", args.csv), ("--json", args.json)):
        if file is not None:
            check_output_file(flag, Path(file))

    from rich.console import Console

    from kdaug.inference import load
    from kdaug.inference.image_files import find_images
    from kdaug.training.progress import console_logging

    console = Console(stderr=True)
    with console_logging(console):
        model = load(args.run, args.device)
        found = find_images(args.images)
        if found.passed_over:
            console.print(f"passed over: {found.passed_over}", markup=False, highlight=False, soft_wrap=True)
        for name, reason in found.problems:
            _print_unreadable(name, reason)
        predictions, unreadable = _predict(model, found.paths, args, console)
    _write(predictions, args)
    return 1 if unreadable or found.problems else 0


def _predict(
    model: Classifier, paths: Sequence[Path], args: Arguments, console: Console
) -> tuple[list[FilePrediction], int]:
    """The predictions of the readable images, and how many are unreadable. Each of those is printed."""
    from kdaug.training.progress import progress_bar

    predictions, unreadable = list[tuple[Path, "TopClasses"]](), 0
    with progress_bar(console) as bar:
        task = bar.add_task("predicting", total=len(paths), speed="", metrics="")
        for path, (_, result) in zip(paths, model.predict_each(paths, args.top, args.batch), strict=True):
            if isinstance(result, list):
                predictions.append((path, result))
            else:
                unreadable += 1
                _print_unreadable(str(path), str(result))
            bar.advance(task)
    return predictions, unreadable


def _print_unreadable(name: str, reason: str) -> None:
    print_error(f"{printable(name)} cannot be read ({reason})")


def _write(predictions: Sequence[FilePrediction], args: Arguments) -> None:
    """Writes the files, and prints the table: whole if no file gets the predictions."""
    from kdaug.inference.prediction_files import write_csv, write_json

    files = [(write, Path(file)) for write, file in ((write_csv, args.csv), (write_json, args.json)) if file]
    for write, path in files:
        write(predictions, path)
    shown = predictions[:_ROWS_BESIDE_FILE] if files else predictions
    if shown:
        _print_table(shown)
    if len(shown) < len(predictions):
        print(f"and {len(predictions) - len(shown):,} more")
    for _, path in files:
        print(f"{len(predictions):,} predictions written to {printable(str(path))}")


def _print_table(predictions: Sequence[FilePrediction]) -> None:
    """Prints a row per image: its path, the most probable class with its probability, and the other classes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("image", "class", "probability", "then"):
        table.add_column(heading, justify="right" if heading == "probability" else "left", no_wrap=True)
    for path, ((name, probability), *others) in predictions:
        then = ", ".join(f"{printable(other)} {100 * value:.1f} %" for other, value in others)
        cells = (printable(str(path)), printable(name), f"{100 * probability:.1f} %", then)
        table.add_row(*(Text(cell) for cell in cells))  # Text: a name may contain markup
    console = Console(highlight=False)
    console.width = _MAX_LINE  # the terminal wraps long lines; rich would cut paths short
    console.print(table, soft_wrap=True)
