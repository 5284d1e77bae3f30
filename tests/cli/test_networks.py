"""kdaug networks: names that there are, and what is published about them."""

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
def test_timm_has_weights_under_every_name_given_and_they_know_imagenets_classes(published: object) -> None:
    assert timm.is_model_pretrained(published.name)
    assert timm.get_pretrained_cfg(published.name).num_classes == 1000


def test_every_system_of_table_4_is_listed_with_its_figures() -> None:
    listed = {p.system.replace("with KD (", "Ours (").replace(")", ""): (p.parameters, p.top1) for p in TABLE4}
    wanted = {
        system.replace(" with KD)", "").replace(")", ""): (parameters, top1)
        for system, (parameters, _, top1) in PAPER["table4"]["rows"].items()
    }
    assert listed == wanted
    for p in TABLE4:
        assert p.name or p.note, f"{p.system}: where it is, or that it is not"


def test_the_list_names_ours_with_their_size_and_the_published_with_their_error(kdaug: Callable) -> None:
    said = kdaug("networks")
    assert (said.code, said.err) == (0, "")
    for name in OWN_NETWORKS:
        assert re.search(rf"^  {name} .* [\d,]+$", said.out, re.MULTILINE)
    assert re.search(r"pyramidnet272_a200_shakedrop .* 26,210,842$", said.out, re.MULTILINE)
    assert re.search(r"SENet +legacy_senet154.in1k +146 +82.7 %", said.out)
    assert re.search(r"GPipe +- +557 +84.3 %  not in timm", said.out)


def test_words_choose(kdaug: Callable) -> None:
    said = kdaug("networks", "advprop", "b8")
    assert [line for line in said.out.splitlines() if "_b8.ap_in1k" not in line] == said.out.splitlines()[:1]
    assert len(said.out.splitlines()) == 2
    said = kdaug("networks", "xyz")
    assert (said.code, said.err) == (2, "kdaug: no network listed has xyz in its line; kdaug networks has all\n")
