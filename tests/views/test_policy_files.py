"""Policy files: they are checked strictly, errors name the position, and a fingerprint pins the content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kdaug import InputError, create_policy
from kdaug.views.policies import SubPolicies, pin_policy_files, read_policy_file

Write = Callable[..., str]

GOOD = """
# two sub-policies, the second with one entry
space: timm
sub_policies:
  - [[rotate, 0.5, 9], [invert, 1, 0]]
  - [[color, 2e-1, 3.5]]
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str, name: str = "my.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return f"file:{tmp_path / name}"

    return to_file


def test_a_yaml_file_gives_its_sub_policies(write: Write) -> None:
    steps = ((("rotate", 0.5, 9.0), ("invert", 1.0, 0.0)), (("color", 0.2, 3.5),))
    policy = create_policy(write(GOOD), mean=(1, 2, 3))
    assert isinstance(policy, SubPolicies)
    assert (policy.space, policy.sub_policies, policy.mean) == ("timm", steps, (1, 2, 3))
    by_hand = SubPolicies("by hand", "timm", steps).plan(0, 0, np.arange(50), (8, 8))
    assert_array_equal(policy.plan(0, 0, np.arange(50), (8, 8)).argument, by_hand.argument)


def test_a_json_file_gives_its_sub_policies(write: Write) -> None:
    spec = write('{\n\t"space": "timm",\n\t"sub_policies": [[["rotate", 0.5, 9], ["invert", 1, 0]]]\n}', "my.json")
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    assert policy.sub_policies == ((("rotate", 0.5, 9.0), ("invert", 1.0, 0.0)),)


def test_sub_policies_may_have_different_lengths(write: Write) -> None:
    spec = write("space: timm\nsub_policies: [[[invert, 1, 0]], [[invert, 1, 0], [invert, 1, 0], [invert, 1, 0]]]")
    op = create_policy(spec).plan(0, 0, np.arange(400), (8, 8)).op
    assert set((op > 0).sum(axis=1)) == {1, 3}


def body(sub_policies: str, space: str = "timm") -> str:
    return f"space: {space}\nsub_policies: {sub_policies}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be a mapping with space and sub_policies, not None"),
        ("[1, 2]", "must be a mapping"),
        ("space: timm", "sub_policies is missing"),
        ("sub_policies: [[[invert, 1, 0]]]", "space is missing"),
        (body("[[[invert, 1, 0]]]", "tim"), "there is no space 'tim'; did you mean timm?"),
        (body("[[[invert, 1, 0]]]", "[timm]"), r"space must be text, not \['timm'\]"),
        (body("[[[invert, 1, 0]]]") + "sub_polices: 3", "sub_polices is not a key .* did you mean sub_policies"),
        (body("[[[invert, 1, 0]]]") + "space: pba", "key space is repeated"),
        (body("[]"), "sub_policies is empty; write a list such as"),
        (body("[[[invert, 1, 0]], []]"), "sub-policy 2 is empty"),
        (body("[[]]"), "sub-policy 1 is empty"),
        (body("rotate"), "sub_policies must be a list such as .* not 'rotate'"),
        (body("[[invert, 1, 0]]"), r"sub-policy 1, entry 1 must be \[op, probability, level\], not 'invert'"),
        (body("[[[invert, 1]]]"), r"sub-policy 1, entry 1 must be \[op, probability, level\]"),
        (body("[[[invert, 1, 0], [rotat, 1, 0]]]"), "policy 1, entry 2: there is no op 'rotat' in space timm; did"),
        (body("[[[cutout, 1, 0]]]"), "no op 'cutout' in space timm"),
        (body("[[[3, 1, 0]]]"), "the op must be text, not 3"),
        (body("[[[invert, 1.5, 0]]]"), "the probability of invert is 1.5, but must be from 0 to 1"),
        (body("[[[invert, -0.1, 0]]]"), "the probability of invert is -0.1"),
        (body("[[[invert, .nan, 0]]]"), "the probability must be a finite number, not nan"),
        (body("[[[invert, true, 0]]]"), "the probability must be a finite number, not True"),
        (body("[[[invert, '1', 0]]]"), "the probability must be a finite number, not '1'"),
        (body("[[[rotate, 1, .inf]]]"), "the level must be a finite number, not inf"),
        (body("[[[rotate, 1, 11]]]"), "policy 1, entry 1: the level of rotate is 11, but must be from 0 to 10"),
        (body("[[[rotate, 1, -1]]]"), "the level of rotate is -1"),
        (body("[[[rotate, 1, 9.5]]]", "torchvision"), "is 9.5, but must be a whole number from 0 to 9"),
        (body("[[[rotate, 1, 2]]]", "fast-autoaugment"), "is 2, but must be from 0 to 1"),
        (body("[[[invert, 1, 0]]]").replace("timm", "!!str timm"), "tag .* is not allowed"),
        (body("!!python/object/apply:os.system [ls]"), "tag .* is not allowed"),
        ("a: [", "is not plain YAML"),
        ("[" * 700, "is not plain YAML"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_refused_with_the_position(write: Write, text: str, sentence: str) -> None:
    spec = write(text)
    with pytest.raises(InputError, match=sentence) as raised:
        create_policy(spec)
    assert str(raised.value).startswith(f"policy file {spec.removeprefix('file:')}: ")
    assert "\n" not in str(raised.value)


def test_yaml_aliases_that_expand_without_bound_are_refused(write: Write) -> None:
    entry = "&a0 [x]"
    for n in range(1, 30):
        entry = f"&a{n} [{entry}{f', *a{n - 1}' * 8}]"
    with pytest.raises(InputError, match=r"sub-policy 1, entry 1 must be \[op, probability, level\]") as raised:
        create_policy(write(body(f"[[{entry}]]")))
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"space": "timm", "space": "pba"}', "key space is repeated"),
        ('{"space": "timm", "sub_policies": [[["invert", NaN, 0]]]}', "NaN is not a number"),
        ("{", "is not plain JSON"),
    ],
)
def test_an_invalid_json_file_is_refused(write: Write, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_policy(write(text, "my.json"))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("nothing.yaml", "binary.yaml", ""):
        with pytest.raises(InputError, match="cannot be read"):
            read_policy_file(tmp_path / name)
    with pytest.raises(InputError, match=r"has no file name; write it as in file:my-policy\.yaml"):
        create_policy("file:")


def test_a_pinned_file_is_refused_after_a_change(write: Write) -> None:
    spec = write(GOOD)
    pinned = pin_policy_files(f"{spec},flip")
    assert pinned.startswith(f"{spec}#")
    assert pinned.endswith(",flip")
    assert pin_policy_files(pinned) == pinned
    assert pin_policy_files("autoaugment-cifar10,flip") == "autoaugment-cifar10,flip"
    create_policy(pinned)
    write(GOOD.replace("# two", "# still two").replace("2e-1", "0.2"))
    create_policy(pinned)
    write(GOOD.replace("0.5", "0.6"))
    for function in (create_policy, pin_policy_files):
        with pytest.raises(
            InputError,
            match=f"has changed: its fingerprint is #[0-9a-f]{{10}}, not #{pinned.split(',')[0][-10:]}; restore",
        ):
            function(pinned)
