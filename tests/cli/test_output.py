"""Error lines: flags for settings, and one line for all processes."""

from __future__ import annotations

import pytest

from kdaug import InputError
from kdaug.cli import output
from kdaug.cli.output import print_error, settings_as_flags
from kdaug.config import Recipe, to_dict


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("set run.resume, or choose another run.dir", {}, "set --run.resume, or choose another --run.dir"),
        ("set optimization.clean_epochs", {}, "set --optimization.clean-epochs"),
        ("set supervision.weight_schedule", {}, "set --supervision.weight-schedule"),
        ("choose another run.dir.", {"run.dir": "--dir"}, "choose another --dir."),
        ("use data.root (or data.name)", {"data.root": "--root"}, "use --root (or --data.name)"),
        ("use --run.dir", {}, "use --run.dir"),
        ("give views.magnitude=0,1", {}, "give views.magnitude=0,1"),
        ("see a/data.root, my.run.dir and run.directory", {}, "see a/data.root, my.run.dir and run.directory"),
        ("restore recipe.yaml", {}, "restore recipe.yaml"),
    ],
)
def test_settings_become_flags(text: str, flags: dict[str, str], expected: str) -> None:
    assert settings_as_flags(text, flags) == expected


def test_every_setting_becomes_a_flag() -> None:
    names = [f"{part}.{name}" for part, settings in to_dict(Recipe()).items() for name in settings]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    assert settings_as_flags(" ".join(names), {}) == " ".join(flags)


def test_only_the_way_out_has_flags(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InputError("run.dir exists", "set run.resume or run.dir"), {"run.dir": "--dir"})
    print_error(InputError("run.dir is missing"))
    print_error("run.dir")
    assert capsys.readouterr().err == (
        "kdaug: run.dir exists; set --run.resume or --dir\nkdaug: run.dir is missing\nkdaug: run.dir\n"
    )


def test_ranks_above_0_wait_and_name_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(output.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "3")
    print_error("lost")
    assert (capsys.readouterr().err, len(waited)) == ("kdaug: process 3: lost\n", 1)
