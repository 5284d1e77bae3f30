"""kdaug networks [WORD ...]"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import tyro

from kdaug.cli.parsing import parse
from kdaug.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """List the networks of the paper: those of kdaug for small images, and the published ImageNet networks of Table 4.

    Every other name in timm.list_models() can be trained too and, if timm has weights for it, evaluated or used as
    teacher.
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """List only networks whose line contains all these words."""


_OWN = f"{'Networks of kdaug, registered in timm (kdaug train RECIPE --student.name NAME)':<92}parameters, 10 classes"
_PUBLISHED = f"{'Published on ImageNet':<36}{'timm:NAME for kdaug eval and --teacher.source':<48}     M   top-1"


def run(arguments: list[str]) -> int:
    """Lists the networks; returns the exit code."""
    words = parse(Arguments, arguments, "kdaug networks").words
    sections = {_OWN: _own_networks(), _PUBLISHED: _published_networks()}
    selected = {
        title: [line for line in lines if all(word.lower() in line.lower() for word in words)]
        for title, lines in sections.items()
    }
    if not any(selected.values()):
        raise InputError(f"no line of the list contains {' and '.join(words)}", "kdaug networks prints the whole list")
    print("\n\n".join("\n".join([title, *lines]) for title, lines in selected.items() if lines))
    return 0


def _own_networks() -> list[str]:
    import timm
    import torch

    from kdaug.networks import OWN_NETWORKS, count_parameters, create_network

    lines = []
    for name in OWN_NETWORKS:
        with torch.device("meta"):
            count = count_parameters(create_network(name, 10, 3))
        summary = textwrap.shorten(timm.model_entrypoint(name).__doc__ or "", 72, placeholder=" ...")
        lines.append(f"  {name:<34}{summary:<74}{count:>12,}")
    return lines


def _published_networks() -> list[str]:
    from kdaug.networks.published import EFFICIENTNETS, TABLE4

    return [
        f"  {p.system:<34}{p.name or '-':<48}{p.parameters:>6g}{'-' if p.top1 is None else f'{p.top1:.1f} %':>8}"
        + "".join(f"  {note}" for note in (p.extra_data, p.note) if note)
        for p in (*TABLE4, *EFFICIENTNETS)
    ]
