"""WebDataset shards: what the webdataset library writes and reads, the same however it is cut; bad ones named."""

from __future__ import annotations

import gzip
import io
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
from kdaug.data import Dataset, EncodedImages, load_dataset, shards
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
                about = tarfile.TarInfo(member)
                about.size = len(value)
                tar.addfile(about, io.BytesIO(value))
    return root


def numbered(number: int) -> list[tuple[str, bytes]]:
    """A sample of one of three classes."""
    return sample(f"s{number:03}", number % 3, number)


def many(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """The members of `count` samples of three classes, by turns."""
    return [member for number in range(first, first + count) for member in numbered(number)]


def read(root: Path, **settings: object) -> Dataset:
    return load_dataset(config.check(config.Recipe(data=config.Data(name="shards", root=str(root), **settings))).data)


def contents(images: EncodedImages) -> dict[str, tuple[bytes, int]]:
    """Image bytes and label by key."""
    found = {}
    for row, label in enumerate(images.labels.tolist()):
        found[images.files[row].key] = (images.files[row].read_bytes(), label)
    return found


def views_by_key(dataset: Dataset) -> dict[str, tuple[bytes, int, bytes]]:
    """Decoded crop, label and plan of every image, over an epoch in batches of five."""
    images, policy = dataset.train, create_policy("randaugment-n2-m9@tf-efficientnet")
    unreadable = UnreadableImages(len(images), 0.0, print)
    found = {}
    for batch in load(images, training_keys(len(images), 5, 1, seed=2), RandomResizedCrop(8, 2, 0.1), 0, unreadable):
        plan = policy.plan(2, batch.key.epoch, images.view_keys(batch.key.indices), (8, 8))
        for place, row in enumerate(batch.key.indices.tolist()):
            drawn = plan.op[place].tobytes() + plan.argument[place].tobytes()
            label = int(batch.labels[place])
            found[images.files[row].key] = (batch.images[place].tobytes(), label, drawn)
    return found


def test_what_the_webdataset_library_writes_and_reads_is_what_is_read(tmp_path: Path) -> None:
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


@settings(max_examples=20)
@given(st.permutations(range(30)), st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_how_samples_are_spread_over_shards_changes_no_view(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], places: list[int]
) -> None:
    plain = write(tmp_path_factory.mktemp("plain"), {"all.tar": many(30)})
    cut: dict[str, list[tuple[str, bytes]]] = {}
    for number, place in zip(order, places, strict=True):
        cut.setdefault(f"{place}.tar", []).extend(reversed(numbered(number)))
    first, second = read(plain), read(write(tmp_path_factory.mktemp("cut"), cut))
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
def test_the_words_of_a_shards_path_say_what_it_is_for(train: str, val: str, tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {train: many(6), val: many(3, 6)}))
    assert sorted(contents(dataset.train)) == [f"s{number:03}" for number in range(6)]
    assert sorted(contents(dataset.val)) == [f"s{number:03}" for number in range(6, 9)]


def test_of_two_kinds_of_validation_shards_one_is_taken(tmp_path: Path) -> None:
    parts = {"train-0.tar": many(6), "test-0.tar": many(3, 6), "val-0.tar": many(3, 9)}
    dataset = read(write(tmp_path, parts))
    assert (len(dataset.train), sorted(contents(dataset.val))) == (6, ["s009", "s010", "s011"])


def test_classes_may_be_named_or_be_the_folders_of_the_keys(tmp_path: Path) -> None:
    write(tmp_path / "named", {"0.tar": many(6)})
    (tmp_path / "named" / "classes.txt").write_text("ant\nbee, wild\ncat\n")
    assert read(tmp_path / "named").classes == ("ant", "bee, wild", "cat")
    keys = [f"photos/{name}/{number}" for name in ("dog", "cat") for number in range(3)]
    dataset = read(write(tmp_path / "folders", {"0.tar": [sample(key, None)[0] for key in keys]}))
    assert dataset.classes == ("cat", "dog")
    for key, (_, label) in contents(dataset.train).items():
        assert key.split("/")[1] == dataset.classes[label]


def test_without_labels_beside_them_names_may_have_dots(tmp_path: Path) -> None:
    names = [f"./{name}/IMG.{number}.png" for name in ("cats", "dogs") for number in range(4)]
    dataset = read(write(tmp_path, {"0.tar": [(name, png(number)) for number, name in enumerate(names)]}))
    assert dataset.classes == ("cats", "dogs")
    found = contents(dataset.train) | contents(dataset.val)
    assert sorted(found) == [f"{name}/IMG.{number}" for name in ("cats", "dogs") for number in range(4)]


def test_samples_that_share_a_key_get_views_of_their_own(tmp_path: Path) -> None:
    members = [m for number in range(8) for m in sample(f"{number}", number % 2, number)]
    others = [m for number in range(8) for m in sample(f"{number}", number % 2, number + 50)]
    shared = {"train-0.tar": members, "train-1.tar": others, "val-0.tar": members}
    train = read(write(tmp_path / "shared", shared)).train
    assert len(set(train.view_keys(np.arange(16)).tolist())) == 16
    alone = read(write(tmp_path / "alone", {"train-9.tar": members, "val-0.tar": members})).train
    assert set(alone.view_keys(np.arange(8)).tolist()).isdisjoint(train.view_keys(np.arange(16)).tolist())


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"0.tar": many(6)})
    write(tmp_path / "shards", {"val/0.tar": many(3, 6)})
    (tmp_path / "shards" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "shards")
    assert len(read(tmp_path / "shards").train) == 6


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    odd = [("s000.json", b"{}"), ("README", b"?"), ("._s000.png", b"?"), ("alone.cls", b"77"), ("s000.seg.png", b"?")]
    dataset = read(write(tmp_path, {"0.tar": [*odd, *many(6)]}))
    found = contents(dataset.train) | contents(dataset.val)
    assert found == {f"s{number:03}": (png(number), number % 3) for number in range(6)}


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards that are worth a note, read once; the user's cache is cache/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = png(0)
    members = [m for i in range(1200) for m in ((f"s{i}.png", image), (f"s{i}.cls", b"%d" % (i % 2)))]
    root = write(tmp_path / "shards", {"0.tar": members[:1000], "1.tar": members[1000:]})
    read(root)
    return root


def test_shards_are_looked_through_once(noted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(noted)

    def opened(*_: object) -> None:
        raise AssertionError("a shard is looked through again")

    monkeypatch.setattr(shards, "_look_through", opened)
    after = read(noted)
    assert (after.content, contents(after.val)) == (before.content, contents(before.val))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root, {"2.tar": sample("new", 1)}),
        lambda root: write(root, {"1.tar": sample("new", 1)}),
        lambda root: (root / "1.tar").unlink(),
    ],
)
def test_shards_that_changed_are_looked_through_again(change: Callable[[Path], object], noted: Path) -> None:
    before = read(noted)
    change(noted)
    after = read(noted)
    assert after.content != before.content
    expected = {path: len(tarfile.open(path).getnames()) // 2 for path in noted.glob("*.tar")}
    assert len(after.train) + len(after.val) == sum(expected.values())


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 but nothing", None])
def test_a_damaged_note_is_made_anew(damage: bytes | None, noted: Path, tmp_path: Path) -> None:
    (note,) = (tmp_path / "cache" / "kdaug" / "shards").iterdir()
    whole = note.read_bytes()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    note.write_bytes(bytes(flipped) if damage is None else damage)
    dataset = read(noted)
    assert len(dataset.train) + len(dataset.val) == 1200
    assert {label for _, label in contents(dataset.val).values()} == {0, 1}
    assert note.read_bytes() == whole


def cut_short(root: Path) -> None:
    path = root / "0.tar"
    path.write_bytes(path.read_bytes()[:1800])


def cut_between_members(root: Path) -> None:
    path = root / "0.tar"
    with tarfile.open(path) as tar:
        path.write_bytes(path.read_bytes()[: tar.getmembers()[4].offset])


def a_header_is_damaged(root: Path) -> None:
    path = root / "0.tar"
    with tarfile.open(path) as tar:
        content, offset = bytearray(path.read_bytes()), tar.getmembers()[4].offset
    content[offset : offset + 512] = b"\x07" * 512
    path.write_bytes(content)


def another_follows(root: Path) -> None:
    path = root / "0.tar"
    path.write_bytes(path.read_bytes() * 2)


def it_is_a_dead_link(root: Path) -> None:
    (root / "0.tar").unlink()
    (root / "0.tar").symlink_to(root / "gone.tar")
    write(root, {"1.tar": many(3)})


def names_in_latin1(root: Path) -> None:
    (root / "classes.txt").write_bytes("caf\xe9\nb\nc\n".encode("latin-1"))


def names_twice(root: Path) -> None:
    (root / "classes.txt").write_text("ant\nbee\nant\n")


def packed(root: Path) -> None:
    path = root / "0.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("content", "spoil", "says"),
    [
        ({}, None, "holds no shards; it needs"),
        ({"0.tar.gz": many(3)}, None, r"holds no shards; unpack 0\.tar\.gz"),
        ({"0.tar": many(3)}, cut_short, r"shard .*0\.tar cannot be read"),
        ({"0.tar": many(6)}, cut_between_members, r"0\.tar cannot be read \(it is cut short"),
        ({"0.tar": many(6)}, a_header_is_damaged, r"0\.tar cannot be read \(it is damaged at byte \d+"),
        ({"0.tar": many(6)}, another_follows, r"0\.tar cannot be read \(it is damaged at byte \d+, or another"),
        ({"0.tar": many(6)}, it_is_a_dead_link, r"shard .*0\.tar cannot be read"),
        ({"0.tar": many(6)}, names_in_latin1, r"classes\.txt is not UTF-8"),
        ({"0.tar": many(6)}, names_twice, r"classes\.txt names a class 'ant' twice"),
        ({"0.tar": [*many(6), *sample("x", 30_000_000)]}, None, r"0\.tar:x is of class 30000000, but .* 4 classes"),
        ({"0.tar": [("a.b.png", png(0)), ("a.b.cls", b"0")]}, None, r"0\.tar:a\.b\.cls: a label's name has one dot"),
        ({"0.tar": many(3)}, packed, r"shard .*0\.tar cannot be read .*not packed"),
        ({"0.tar": [("a.txt", b"?")]}, None, "hold no images"),
        ({"0.tar": [*sample("a", 0), ("b.png", png(1)), ("b.cls", b"cat")]}, None, r"0\.tar:b\.cls is b'cat'"),
        ({"0.tar": [*sample("a", 0), ("b.png", png(1)), ("b.cls", b"-1")]}, None, r"0\.tar:b\.cls is b'-1'"),
        ({"0.tar": [*sample("a", 0), *sample("b", 1), *sample("c", None)]}, None, r"0\.tar:c has no \.cls"),
        ({"0.tar": [*sample("a", None), *sample("b", None)]}, None, r"0\.tar:a has no label"),
        ({"0.tar": [*sample("a", 0), ("a.jpg", png(1))]}, None, r"0\.tar:a has two images"),
        ({"0.tar": [*sample("a", 0), *sample("b", 0)]}, None, "have one class only"),
        (
            {"train-0.tar": many(3), "val-0.tar": sample("x", 9)},
            None,
            r"val-0\.tar:x is of a class .* 3 known",
        ),
        ({"val-0.tar": many(3)}, None, "those for training are missing"),
        ({"0.tar": [*sample("a", 0), *sample("b", 1), *sample("c", 1)]}, None, "class 0 has 1 image"),
    ],
)
def test_shards_that_will_not_do_are_named(
    content: Shards, spoil: Callable[[Path], None] | None, says: str, tmp_path: Path
) -> None:
    write(tmp_path, content)
    if spoil:
        spoil(tmp_path)
    with pytest.raises(InputError, match=says):
        read(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere of shards does not exist"):
        read(tmp_path / "nowhere")
