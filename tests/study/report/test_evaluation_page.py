"""The page about an evaluation: its numbers, its pictures, names of any characters, 2 to more than 1,000 classes."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.images import write_noise

from kdaug.data import ArrayImages, EncodedImages
from kdaug.data.folder_index import FilePaths
from kdaug.inference import Evaluation
from kdaug.inference.predictions import Predictions
from kdaug.study.report.evaluation_page import classes_table, confusions_table, write_evaluation_page
from kdaug.training.evaluation import Scores

HOSTILE = (
    "<script>alert(1)</script>", "a$b$c", "two\nlines", "nul\x00", "b\udcff", "\u202eright to left", "猫 👩‍🔬",
    "x" * 255, "\"quoted' & more", "$\\frac{1}{0}$",
)  # fmt: skip


def evaluation(
    labels: list[int], predicted: list[int], confidence: list[float], names: tuple[str, ...], size: int = 6
) -> Evaluation:
    """Of images whose color says which one each is, in memory."""
    count = len(labels)
    pixels = np.zeros((count, size, size, 3), np.uint8)
    pixels[:] = (np.arange(count) % 256).astype(np.uint8)[:, None, None, None]
    made = Predictions(np.arange(count), np.array(labels), np.array(predicted), np.array(confidence))
    scores = Scores(made.error, 0.0, 0.5, count, made.error)
    return Evaluation(scores, made, names, ArrayImages(pixels, made.labels), "from val/", size)


EXAMPLE = ([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2, 2], [0.9, 0.6, 0.8, 0.7, 0.99, 0.4], ("cat", "dog", "fox", "none"))


class Page(HTMLParser):
    """The visible text, the names of all elements, the pictures, and the text in the confusion matrix of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.pictures = "", list[str](), list[tuple[str, bytes]]()
        self.matrix = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        source = dict(attrs).get("src")
        if source is not None:
            media, _, content = source.removeprefix("data:").partition(";base64,")
            self.pictures.append((media, base64.b64decode(content, validate=True)))
            if str(dict(attrs)["alt"]).startswith("Confusion matrix"):
                self.matrix = " ".join(" ".join(ElementTree.fromstring(self.pictures[-1][1]).itertext()).split())

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def write(tmp_path: Path) -> object:
    def write(made: Evaluation, title: str = "runs/a") -> Page:
        write_evaluation_page(made, title, tmp_path / "page.html")
        return Page(tmp_path / "page.html")

    return write


def test_the_numbers_are_those_of_the_predictions(write) -> None:
    page = write(evaluation(*EXAMPLE))
    assert "runs/a: error 50.00 % [18.76, 81.24]" in page.text
    assert "6 validation images (from val/). Top-5 error 0.00 %, loss 0.5000 nats" in page.text
    # Each image is alone in its bin: |0 - 0.6|, |0 - 0.8|, |0 - 0.99|, |1 - 0.9|, |1 - 0.7|, |1 - 0.4|, divided by 6.
    assert page.text.count("56.50 %") == 2


def test_classes_are_sorted_by_error() -> None:
    table = classes_table(evaluation(*EXAMPLE), EXAMPLE[3])
    assert table.header == ("class", "most often predicted instead", "error, %", "wrong", "images")
    assert table.rows == (
        ("cat", "dog (2)", "66.7", "2", "3"),
        ("dog", "fox (1)", "50.0", "1", "2"),
        ("fox", "", "0.0", "0", "1"),
        ("none", "", "", "0", "0"),
    )


def test_confusions_are_sorted_by_frequency() -> None:
    table = confusions_table(evaluation(*EXAMPLE), EXAMPLE[3])
    assert table.rows == (("cat", "dog", "2", "66.7"), ("dog", "fox", "1", "50.0"))


def test_the_most_confident_mistakes_are_shown(write) -> None:
    page = write(evaluation(*EXAMPLE))
    pictures = [np.asarray(Image.open(io.BytesIO(content))) for media, content in page.pictures if media == "image/png"]
    assert [int(picture[0, 0, 0]) for picture in pictures] == [4, 2, 1]
    shown = re.findall(r"label (\w+)predicted (\w+),\s([\d.]+)\s%\s+(#\d)", page.text)
    assert shown == [("dog", "fox", "99.0", "#4"), ("cat", "dog", "80.0", "#2"), ("cat", "dog", "60.0", "#1")]


def test_photos_are_shown_as_the_network_gets_them(write, tmp_path: Path) -> None:
    """Cropped, at most 224 pixels large; one that has gone since the evaluation is named without a picture."""
    root = write_noise(tmp_path / "photos", {"a": 2, "b": 1}, (640, 480))
    names = b"\0".join([b"a/000.png", b"a/001.png", b"b/000.png"])
    files = EncodedImages(FilePaths.from_bytes(root, names, 3), np.array([0, 0, 1]))
    made = Predictions(np.array([2, 0, 1]), np.array([1, 0, 0]), np.array([0, 1, 1]), np.array([0.5, 0.9, 0.7]))
    (root / "a" / "001.png").unlink()
    page = write(Evaluation(Scores(100.0, 0.0, 1.0, 3, 100.0), made, ("a", "b"), files, "from val/", 320))
    sizes = [Image.open(io.BytesIO(content)).size for media, content in page.pictures if media == "image/jpeg"]
    assert sizes == [(224, 224)] * 2
    shown = [page.text.index(str(root / name)) for name in ("a/000.png", "a/001.png", "b/000.png")]
    assert shown == sorted(shown)
    side = 480 * 320 / 352  # the crop of evaluation at 320 pixels, not that at 224
    box = ((640 - side) / 2, (480 - side) / 2, (640 + side) / 2, (480 + side) / 2)
    expected = Image.open(root / "a" / "000.png").resize((224, 224), Image.Resampling.BICUBIC, box)
    found = Image.open(io.BytesIO(next(content for media, content in page.pictures if media == "image/jpeg")))
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() < 12


def test_unreadable_images_are_counted(write, tmp_path: Path) -> None:
    made = evaluation(*EXAMPLE)
    images = ArrayImages(np.zeros((9, 6, 6, 3), np.uint8), np.zeros(9, np.int64))
    page = write(Evaluation(made.scores, made.predictions, made.classes, images, "from val/", 6))
    assert "6 validation images (from val/); 3 more cannot be read" in " ".join(page.text.split())


def test_names_cannot_change_the_page(write) -> None:
    count = len(HOSTILE)
    labels = list(range(count)) * 2
    made = evaluation(labels, labels[1:] + labels[:1], [0.5] * len(labels), HOSTILE)
    page, plain = write(made, "<b>run\n</b>"), None
    plain = write(evaluation(labels, labels[1:] + labels[:1], [0.5] * len(labels), tuple("abcdefghij")))
    assert page.tags == plain.tags
    assert "<script>alert(1)</script>" in page.text
    assert "<b>run\\n</b> " in page.text.replace(":", " ")
    assert r"two\nlines" in page.text
    shown = (
        "<script>alert(1)</script>"[:23],
        "a$b$c",
        "猫 👩‍🔬",
        r"two\nlines",
        r"nul\x00",
        r"b\udcff",
        r"\u202eright",
    )
    assert all(name in page.matrix for name in shown)
    assert "x" * 23 in page.matrix
    assert "x" * 24 not in page.matrix


@pytest.mark.parametrize("classes", [2, 12, 13, 41, 1000, 1001])
def test_any_number_of_classes_has_a_page(write, classes: int) -> None:
    labels = [number % classes for number in range(2 * classes)]
    predicted = [(label + number // classes) % classes for number, label in enumerate(labels)]
    names = tuple(f"class {number}" for number in range(classes))
    page = write(evaluation(labels, predicted, [0.5] * len(labels), names, size=2))
    if classes > 1000:
        assert "There are too many classes for a picture of the confusion matrix." in page.text
        assert page.matrix == ""
    else:
        assert ("class 1" in page.matrix) == (classes <= 40)
        assert ("number of the class" in page.matrix) == (classes > 40)
    assert page.tags.count("tr") == 1 + min(classes, 20) + 1 + classes
    assert page.tags.count("figure") == min(classes, 24)


def test_a_perfect_network_has_a_page(write) -> None:
    page = write(evaluation([0, 1], [0, 1], [1.0, 0.9], ("a", "b")))
    assert "error 0.00 %" in page.text
    assert "No image is predicted wrong." in page.text
    assert "Most confident mistakes" not in page.text


def test_the_cells_of_a_small_matrix_show_counts(write) -> None:
    page = write(evaluation([0] * 1234 + [1] * 2, [1] * 1234 + [1, 0], [0.5] * 1236, ("a", "b"), size=1))
    assert " 1,234 " in page.matrix
