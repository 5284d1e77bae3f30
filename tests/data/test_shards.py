"""WebDataset shards: read as the webdataset library does, however samples are distributed; errors for bad ones."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdaug import config, create_policy
from kdaug.data import Dataset, EncodedImages, load_dataset, shard_index
from kdaug.data.crops import RandomResizedCrop
from kdaug.data.loader import UnreadableImages, load, training_keys
from kdaug.errors import InputError

Shards = Mapping[str, list[tuple[str, bytes]]]


def png(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 11, 3), np.uint8)).save(content, "png")
    return content.getvalue()


def sample(key: str, label: int | None, number: int = 0) -> list[tuple[str, bytes]]:
    """The members of one sample: its image, its label."""
    return [(f"{key}.png", png(number)), *([] if label is None else [(f"{key}.cls", b"%d\n" % label)])]


def write(root: Path, content: Shards) -> Path:
    for name, members in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / name, "w") as tar:
            for member, value in members:
                info = tarfile.TarInfo(member)
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return root


def numbered(number: int) -> list[tuple[str, bytes]]:
    """The members of sample `number`, of one of three classes."""
    return sample(f"s{number:03}", number % 3, number)


def many(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """The members of `count` samples of three classes in turn."""
    return [member for number in range(first, first + count) for member in numbered(number)]


def read(root: Path, **options: object) -> Dataset:
    return load_dataset(config.check(config.Recipe(data=config.Data(name="shards", root=str(root), **options))).data)


def contents(images: EncodedImages) -> dict[str, tuple[bytes, int]]:
    """Image bytes and label by key."""
    return {
        images.files[row].key: (images.files[row].read_bytes(), label)
        for row, label in enumerate(images.labels.tolist())
    }


def views_by_key(dataset: Dataset) -> dict[str, tuple[bytes, int, bytes]]:
    """Decoded crop, label and view plan of every training image, by key, over one epoch in batches of five."""
    images, policy = dataset.train, create_policy("randaugment-n2-m9@tf-efficientnet")
    unreadable = UnreadableImages(len(images), 0.0)
    views = {}
    for batch in load(images, training_keys(len(images), 5, 1, seed=2), RandomResizedCrop(8, 2, 0.1), 0, unreadable):
        plan = policy.plan(2, batch.key.epoch, images.sample_ids(batch.key.indices), (8, 8))
        for i, row in enumerate(batch.key.indices.tolist()):
            view = plan.op[i].tobytes() + plan.argument[i].tobytes()
            views[images.files[row].key] = (batch.images[i].tobytes(), int(batch.labels[i]), view)
    return views


def test_samples_are_those_of_the_webdataset_library(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "photos-%03d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(40):
            key = f"{'ab'[number % 2]}/photo{number}"
            image = png(number)
            writer.write({"__key__": key, "png": image, "cls": number % 4, "json": {"any": "thing"}})
    files = sorted(str(path) for path in tmp_path.glob("*.tar"))
    assert len(files) == 6
    expected = {
        item["__key__"]: (item["png"], int(item["cls"])) for item in webdataset.WebDataset(files, shardshuffle=False)
    }
    dataset = read(tmp_path, val_fraction=0.25)
    assert dataset.classes == ("0", "1", "2", "3")
    train, val = contents(dataset.train), contents(dataset.val)
    assert not train.keys() & val.keys()
    assert train | val == expected
    assert np.bincount(dataset.val.labels).tolist() == [2, 2, 2, 2]


@settings(max_examples=10)
@given(st.permutations(range(30)), st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_the_distribution_over_shards_changes_no_view(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], shards: list[int]
) -> None:
    one_shard = write(tmp_path_factory.mktemp("one"), {"all.tar": many(30)})
    members: dict[str, list[tuple[str, bytes]]] = {}
    for number, shard in zip(order, shards, strict=True):
        members.setdefault(f"{shard}.tar", []).extend(reversed(numbered(number)))
    first, second = read(one_shard), read(write(tmp_path_factory.mktemp("several"), members))
    assert first.content == second.content
    for one, other in ((first.train, second.train), (first.val, second.val)):
        assert [one.files[row].key for row in range(len(one))] == [other.files[row].key for row in range(len(other))]
    assert views_by_key(first) == views_by_key(second)


def test_a_sample_keeps_its_views_when_others_are_added(tmp_path: Path) -> None:
    few = read(write(tmp_path / "few", {"train-0.tar": many(25, 5), "val-0.tar": many(3, 90)}))
    more = read(write(tmp_path / "more", {"train-0.tar": many(40), "val-0.tar": many(3, 90)}))
    before, after = views_by_key(few), views_by_key(more)
    assert len(before) == 25
    assert all(after[key] == view for key, view in before.items())
    assert few.content != more.content


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("train/0.tar", "val/0.tar"),
        ("Training_0.tar", "Test_0.tar"),
        ("0.tar", "valid-0.tar"),
        ("latest/test-train-0.tar", "test-1.tar"),
    ],
)
def test_words_of_the_path_determine_the_split(train: str, val: str, tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {train: many(6), val: many(3, 6)}))
    assert sorted(contents(dataset.train)) == [f"s{number:03}" for number in range(6)]
    assert sorted(contents(dataset.val)) == [f"s{number:03}" for number in range(6, 9)]


def test_of_two_validation_splits_one_is_used(tmp_path: Path) -> None:
    parts = {"train-0.tar": many(6), "test-0.tar": many(3, 6), "val-0.tar": many(3, 9)}
    dataset = read(write(tmp_path, parts))
    assert (len(dataset.train), sorted(contents(dataset.val))) == (6, ["s009", "s010", "s011"])


def test_class_names_are_from_a_file_or_from_the_keys(tmp_path: Path) -> None:
    write(tmp_path / "named", {"0.tar": many(6)})
    (tmp_path / "named" / "classes.txt").write_text("ant\nbee, wild\ncat\n")
    assert read(tmp_path / "named").classes == ("ant", "bee, wild", "cat")
    keys = [f"photos/{name}/{number}" for name in ("dog", "cat") for number in range(3)]
    dataset = read(write(tmp_path / "folders", {"0.tar": [sample(key, None)[0] for key in keys]}))
    assert dataset.classes == ("cat", "dog")
    for key, (_, label) in contents(dataset.train).items():
        assert key.split("/")[1] == dataset.classes[label]


def test_without_labels_keys_may_have_dots(tmp_path: Path) -> None:
    names = [f"./{name}/IMG.{number}.png" for name in ("cats", "dogs") for number in range(4)]
    dataset = read(write(tmp_path, {"0.tar": [(name, png(number)) for number, name in enumerate(names)]}))
    assert dataset.classes == ("cats", "dogs")
    assert sorted(contents(dataset.train) | contents(dataset.val)) == [
        f"{name}/IMG.{number}" for name in ("cats", "dogs") for number in range(4)
    ]


def test_samples_with_the_same_key_get_different_views(tmp_path: Path) -> None:
    members = [m for number in range(8) for m in sample(f"{number}", number % 2, number)]
    others = [m for number in range(8) for m in sample(f"{number}", number % 2, number + 50)]
    shared = {"train-0.tar": members, "train-1.tar": others, "val-0.tar": members}
    train = read(write(tmp_path / "shared", shared)).train
    assert len(set(train.sample_ids(np.arange(16)).tolist())) == 16
    alone = read(write(tmp_path / "alone", {"train-9.tar": members, "val-0.tar": members})).train
    assert set(alone.sample_ids(np.arange(8)).tolist()).isdisjoint(train.sample_ids(np.arange(16)).tolist())


def test_linked_folders_are_scanned(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"0.tar": many(6)})
    write(tmp_path / "shards", {"val/0.tar": many(3, 6)})
    (tmp_path / "shards" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "shards")
    assert len(read(tmp_path / "shards").train) == 6


def test_other_members_are_ignored(tmp_path: Path) -> None:
    odd = [("s000.json", b"{}"), ("README", b"?"), ("._s000.png", b"?"), ("alone.cls", b"77"), ("s000.seg.png", b"?")]
    dataset = read(write(tmp_path, {"0.tar": [*odd, *many(6)]}))
    assert contents(dataset.train) | contents(dataset.val) == {
        f"s{number:03}": (png(number), number % 3) for number in range(6)
    }


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards with enough samples to be cached, read once; the cache directory is cache/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = png(0)
    members = [m for i in range(1200) for m in ((f"s{i}.png", image), (f"s{i}.cls", b"%d" % (i % 2)))]
    root = write(tmp_path / "shards", {"0.tar": members[:1000], "1.tar": members[1000:]})
    read(root)
    return root


def test_shards_are_scanned_once(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(cached)

    monkeypatch.setattr(shard_index, "_scan_shard", lambda _: pytest.fail("a shard is scanned again"))
    after = read(cached)
    assert (after.content, contents(after.val)) == (before.content, contents(before.val))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root, {"2.tar": sample("new", 1)}),
        lambda root: write(root, {"1.tar": sample("new", 1)}),
        lambda root: (root / "1.tar").unlink(),
    ],
)
def test_changed_shards_are_scanned_again(change: Callable[[Path], object], cached: Path) -> None:
    before = read(cached)
    change(cached)
    after = read(cached)
    assert after.content != before.content
    expected = {path: len(tarfile.open(path).getnames()) // 2 for path in cached.glob("*.tar")}
    assert len(after.train) + len(after.val) == sum(expected.values())


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 but nothing", None])
def test_a_damaged_cache_file_is_replaced(damage: bytes | None, cached: Path, tmp_path: Path) -> None:
    (cache_file,) = (tmp_path / "cache" / "kdaug" / "shards").iterdir()
    original = cache_file.read_bytes()
    flipped = bytearray(original)
    flipped[len(flipped) // 2] ^= 1
    cache_file.write_bytes(bytes(flipped) if damage is None else damage)
    dataset = read(cached)
    assert len(dataset.train) + len(dataset.val) == 1200
    assert {label for _, label in contents(dataset.val).values()} == {0, 1}
    assert cache_file.read_bytes() == original


def truncate(root: Path) -> None:
    os.truncate(root / "0.tar", 1800)


def truncate_between_members(root: Path) -> None:
    with tarfile.open(root / "0.tar") as tar:
        os.truncate(root / "0.tar", tar.getmembers()[4].offset)


def damage_a_header(root: Path) -> None:
    path = root / "0.tar"
    with tarfile.open(path) as tar:
        content, offset = bytearray(path.read_bytes()), tar.getmembers()[4].offset
    content[offset : offset + 512] = b"\x07" * 512
    path.write_bytes(content)


def append_another_archive(root: Path) -> None:
    path = root / "0.tar"
    path.write_bytes(path.read_bytes() * 2)


def make_a_broken_link(root: Path) -> None:
    (root / "0.tar").unlink()
    (root / "0.tar").symlink_to(root / "gone.tar")
    write(root, {"1.tar": many(3)})


def add_class_names(content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "classes.txt").write_bytes(content)


def compress(root: Path) -> None:
    path = root / "0.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("content", "damage", "message"),
    [
        ({}, None, r"has no shards \(\*\.tar\)"),
        ({"0.tar.gz": many(3)}, None, r"has compressed shards only, such as 0\.tar\.gz; decompress"),
        ({"0.tar": many(3)}, truncate, r"shard .*0\.tar cannot be read"),
        ({"0.tar": many(6)}, truncate_between_members, r"0\.tar cannot be read \(it is truncated"),
        ({"0.tar": many(6)}, damage_a_header, r"0\.tar cannot be read \(it is damaged at byte \d+"),
        ({"0.tar": many(6)}, append_another_archive, r"0\.tar cannot be read \(it is damaged at byte \d+, or another"),
        ({"0.tar": many(6)}, make_a_broken_link, r"shard .*0\.tar cannot be read"),
        ({"0.tar": many(6)}, add_class_names(b"caf\xe9\nb\nc\n"), r"classes\.txt is not UTF-8"),
        ({"0.tar": many(6)}, add_class_names(b"ant\nbee\nant\n"), r"classes\.txt has the class 'ant' twice"),
        ({"0.tar": many(6)}, add_class_names(b"ant\n\nbee\n"), r"classes\.txt has an empty line"),
        ({"0.tar": [*many(6), *sample("x", 30_000_000)]}, None, r"0\.tar:x is of class 30000000, but .* 4 classes"),
        (
            {"0.tar": [("a.b.png", png(0)), ("a.b.cls", b"0")]},
            None,
            r"0\.tar:a\.b\.cls: the name of a label must have one dot",
        ),
        ({"0.tar": many(3)}, compress, r"shard .*0\.tar cannot be read .*uncompressed"),
        ({"0.tar": [("a.txt", b"?")]}, None, "have no images"),
        ({"0.tar": [*sample("a", 0), ("b.png", png(1)), ("b.cls", b"cat")]}, None, r"0\.tar:b\.cls is b'cat'"),
        ({"0.tar": [*sample("a", 0), ("b.png", png(1)), ("b.cls", b"-1")]}, None, r"0\.tar:b\.cls is b'-1'"),
        ({"0.tar": [*sample("a", 0), *sample("b", 1), *sample("c", None)]}, None, r"0\.tar:c has no \.cls"),
        ({"0.tar": [*sample("a", None), *sample("b", None)]}, None, r"0\.tar:a has no label"),
        ({"0.tar": [*sample("a", 0), ("a.jpg", png(1))]}, None, r"0\.tar:a has two images"),
        ({"0.tar": [*sample("a", 0), *sample("b", 0)]}, None, "have one class only"),
        ({"train-0.tar": many(3), "val-0.tar": sample("x", 9)}, None, r"val-0\.tar:x has a class .* 3 known"),
        ({"val-0.tar": many(3)}, None, "training shards are missing"),
        ({"0.tar": [*sample("a", 0), *sample("b", 1)]}, None, "every class has only one image"),
    ],
)
def test_invalid_shards_are_an_error(
    content: Shards, damage: Callable[[Path], object] | None, message: str, tmp_path: Path
) -> None:
    write(tmp_path, content)
    if damage:
        damage(tmp_path)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere of shards does not exist"):
        read(tmp_path / "nowhere")
