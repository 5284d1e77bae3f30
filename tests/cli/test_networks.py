"""kdaug networks: the list and the published errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources

import pytest
import timm

from kdaug.networks import OWN_NETWORKS
from kdaug.networks.published import EFFICIENTNETS, TABLE4

PAPER = json.loads((resources.files("kdaug.recipes") / "tables" / "paper.json").read_bytes())


@pytest.mark.parametrize("published", [p for p in (*TABLE4, *EFFICIENTNETS) if p.name], ids=lambda p: p.name)
def test_published_names_have_imagenet_weights_in_timm(published: object) -> None:
    assert timm.is_model_pretrained(published.name)
    assert timm.get_pretrained_cfg(published.name).num_classes == 1000


def test_every_system_of_table_4_is_listed() -> None:
    listed = {p.system.replace("with KD (", "Ours (").replace(")", ""): (p.parameters, p.top1) for p in TABLE4}
    expected = {
        system.replace(" with KD)", "").replace(")", ""): (parameters, top1)
        for system, (parameters, _, top1) in PAPER["table4"]["rows"].items()
    }
    assert listed == expected
    for p in TABLE4:
        assert p.name or p.note, f"{p.system} has neither a name nor a note"


def test_the_list_has_sizes_and_published_errors(kdaug: Callable) -> None:
    result = kdaug("networks")
    assert (result.code, result.err) == (0, "")
    for name in OWN_NETWORKS:
        assert re.search(rf"^  {name} .* [\d,]+$", result.out, re.MULTILINE)
    assert re.search(r"pyramidnet272_a200_shakedrop .* 26,210,842$", result.out, re.MULTILINE)
    assert re.search(r"SENet +legacy_senet154.in1k +146 +82.7 %", result.out)
    assert re.search(r"GPipe +- +557 +84.3 %  not in timm", result.out)


def test_words_select(kdaug: Callable) -> None:
    result = kdaug("networks", "advprop", "b8")
    assert [line for line in result.out.splitlines() if "_b8.ap_in1k" not in line] == result.out.splitlines()[:1]
    assert len(result.out.splitlines()) == 2
    result = kdaug("networks", "xyz")
    assert (result.code, result.err) == (
        2,
        "kdaug: no line of the list contains xyz; kdaug networks prints the whole list\n",
    )
