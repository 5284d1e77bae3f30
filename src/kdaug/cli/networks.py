"""kdaug networks [WORD ...]"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import tyro

from kdaug.cli.parsing import parse
from kdaug.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """List the networks of the paper: ours for small images, and the published ImageNet systems of its Table 4.

    Any other name in timm.list_models() can be trained and, where timm has weights, evaluated and used as teacher too.
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only those with all these words in their line."""


_OURS = f"{'Ours, registered in timm (kdaug train RECIPE --student.name NAME)':<92}parameters, 10 classes"
_PUBLISHED = f"{'Published on ImageNet':<36}{'timm:NAME for kdaug eval and --teacher.source':<48}     M   top-1"


def run(arguments: list[str]) -> int:
    """Lists; returns the exit code."""
    words = parse(Arguments, arguments, "kdaug networks").words
    sections = {
        _OURS: _ours(),
        _PUBLISHED: _published(),
    }
    found = {title: [line for line in lines if _has(line, words)] for title, lines in sections.items()}
    if not any(found.values()):
        raise InputError(f"no network listed has {' and '.join(words)} in its line; kdaug networks has all")
    print("\n\n".join("\n".join([title, *lines]) for title, lines in found.items() if lines))
    return 0


def _has(line: str, words: tuple[str, ...]) -> bool:
    return all(word.lower() in line.lower() for word in words)


def _ours() -> list[str]:
    import timm
    import torch

    from kdaug.networks import OWN_NETWORKS, count_parameters, create_network

    lines = []
    for name in OWN_NETWORKS:
        with torch.device("meta"):
            count = count_parameters(create_network(name, 10, 3))
        what = textwrap.shorten(timm.model_entrypoint(name).__doc__ or "", 72, placeholder=" ...")
        lines.append(f"  {name:<34}{what:<74}{count:>12,}")
    return lines


def _published() -> list[str]:
    from kdaug.networks.published import EFFICIENTNETS, TABLE4

    return [
        f"  {p.system:<34}{p.name or '-':<48}{p.parameters:>6g}{'-' if p.top1 is None else f'{p.top1:.1f} %':>8}"
        + "".join(f"  {said}" for said in (p.extra_data, p.note) if said)
        for p in (*TABLE4, *EFFICIENTNETS)
    ]
