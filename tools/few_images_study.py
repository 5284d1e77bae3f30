"""Fine-tunes EfficientNet-Lite0 on few photos of each CIFAR class: plainly, with timm's train.py, and with kdaug.

    python tools/few_images_study.py FOLDER --weights lite0.safetensors --timm-train train.py [--data data]
        [--images 10 50] [--seeds 0 1 2] [--dataset cifar-10] [--only METHOD ...] [--holdout]
    python tools/few_images_study.py FOLDER --table results/NAME    # writes the table of finished runs, trains nothing

train.py is that of the timm release that is installed (github.com/huggingface/pytorch-image-models); lite0.safetensors
is made by tools/lite0_weights.py. The images are written as PNG files, one folder per class, for each number of images
and each seed another choice from the training images; errors are measured on the test images, with --holdout (to choose
settings) on other training images. All methods start from the same ImageNet weights and have the same images, network,
epochs, batches and optimizer. The teacher of both packages is the plainly fine-tuned network of the same seed. Finished
runs are skipped. Methods:

    plain               kdaug, crop and flip only; it is the teacher
    timm                timm's train.py, crop and flip only
    timm-randaugment    timm's train.py with its RandAugment
    timm-distillation   the same, with --kd-model-name
    timm-distillation-zero  the same, but the new classifier starts from zero, as kdaug's does
    kdaug-randaugment   kdaug with the same RandAugment, without teacher
    kdaug-teacher       the same, with the teacher
    kdaug-robust        the same, with supervision.method robust
    kdaug-unlabelled    kdaug-teacher, and three quarters of every batch are other training images, without their labels
    kdaug-unlabelled-2  the same once more, with the network of kdaug-unlabelled as teacher
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from study_tables import gain, mean

from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Teacher, Views, with_method
from kdaug.config.datasets import DatasetName
from kdaug.data import ArrayImages, load_dataset
from kdaug.training import train

NETWORK = "tf_efficientnet_lite0"
MEAN, STD = (0.498039,) * 3, (0.501961,) * 3
SIDE, MIN_AREA = 96, 0.35
POLICY, TIMM_POLICY = "randaugment-n2-m5@timm-increasing", "rand-m5-n2-inc1"  # the same ops and levels
STEPS = {10: 300, 50: 400}  # by the number of images of each class
BATCH, LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 16, 5e-4, 0.05, 60
SUPERVISION = Supervision(weight=3.0, k=10, temperature=2.0)  # k: all classes of CIFAR-10, as in timm
METHODS = ("plain", "timm", "timm-randaugment", "timm-distillation", "timm-distillation-zero", "kdaug-randaugment",
           "kdaug-teacher", "kdaug-robust", "kdaug-unlabelled", "kdaug-unlabelled-2")  # fmt: skip
TEACHERS = {"kdaug-teacher": "plain", "kdaug-robust": "plain", "kdaug-unlabelled": "plain",
            "kdaug-unlabelled-2": "kdaug-unlabelled"}  # fmt: skip
TEST_IMAGES = 200  # of each class, or all that there are
UNLABELLED_IMAGES = 400  # of each class
UNLABELLED_SHARE = 0.75  # of each batch


@dataclass(frozen=True)
class Case:
    """One choice of training images, and where the files of its runs are."""

    folder: Path
    data: str
    dataset: DatasetName
    images: int
    seed: int
    holdout: bool

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.images}-s{self.seed}{'-holdout' if self.holdout else ''}"

    @property
    def photos(self) -> Path:
        return self.folder / "photos" / self.name

    @property
    def unlabelled(self) -> Path:
        return self.folder / "unlabelled" / self.name

    def run(self, method: str) -> Path:
        return self.folder / f"{self.name}-{method}"

    def steps_per_epoch(self, labelled: int = BATCH) -> int:
        """labelled: images of a batch that have labels."""
        return len(list(self.photos.glob("train/*/*.png"))) // labelled

    @property
    def epochs(self) -> int:
        return -(-STEPS[self.images] // self.steps_per_epoch())


def write_photos(case: Case) -> None:
    """Writes the images of `case` as PNG files, unless they are there; those without labels for all classes alike."""
    if (case.photos / "written").exists():
        return
    dataset = load_dataset(Data(name=case.dataset, root=case.data))
    train_images, test = dataset.train, dataset.val
    assert isinstance(train_images, ArrayImages)
    assert isinstance(test, ArrayImages)
    order = np.random.default_rng(case.seed).permutation(len(train_images))
    rows = [order[train_images.labels[order] == label] for label in range(len(dataset.classes))]
    chosen = np.concatenate([of_class[: case.images] for of_class in rows])
    write_split(case.photos / "train", train_images, chosen, dataset.classes)
    if case.holdout:
        others = np.concatenate([of_class[case.images :][:TEST_IMAGES] for of_class in rows])
        write_split(case.photos / "val", train_images, others, dataset.classes)
    else:
        labels = range(len(dataset.classes))
        measured = np.concatenate([np.flatnonzero(test.labels == label)[:TEST_IMAGES] for label in labels])
        write_split(case.photos / "val", test, measured, dataset.classes)
    unlabelled = np.concatenate([of_class[case.images + TEST_IMAGES :][:UNLABELLED_IMAGES] for of_class in rows])
    write_split(case.unlabelled, train_images, unlabelled, dataset.classes)
    (case.photos / "written").touch()


def write_split(folder: Path, images: ArrayImages, rows: NDArray[np.int64], classes: Iterable[str]) -> None:
    """Writes the images at `rows` below `folder`, one sub-folder per class."""
    names = list(classes)
    for row in rows.tolist():
        path = folder / names[images.labels[row]] / f"{row:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.images[row]).save(path)


def kdaug_recipe(case: Case, method: str, weights: Path) -> Recipe:
    """The recipe of one of kdaug's methods."""
    data = Data(name="folder", root=str(case.photos), image_size=SIDE, workers=0)
    labelled, epochs = BATCH, case.epochs
    if method.startswith("kdaug-unlabelled"):
        data = replace(data, unlabelled=str(case.unlabelled), unlabelled_share=UNLABELLED_SHARE)
        labelled = round(BATCH * (1 - UNLABELLED_SHARE))
        epochs = -(-STEPS[case.images] // case.steps_per_epoch(labelled))
    return Recipe(
        data=data,
        views=Views(
            policy="none" if method == "plain" else POLICY, crop="random-resized", min_area=MIN_AREA, seed=case.seed
        ),
        student=Network(NETWORK, weights=f"file:{weights}", mean=MEAN, std=STD),
        teacher=Teacher(source=f"run:{case.run(TEACHERS[method])}") if method in TEACHERS else Teacher(),
        supervision=with_method(SUPERVISION, "robust") if method == "kdaug-robust" else SUPERVISION,
        optimization=Optimization(
            epochs=epochs,
            global_batch=BATCH,
            optimizer="adamw",
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            warmup_epochs=WARMUP_STEPS / case.steps_per_epoch(labelled),
            precision="float32",  # faster than bfloat16 for depthwise convolutions on a CPU
        ),
        run=Run(str(case.run(method)), case.seed, resume=True, threads=1, evaluate_every=epochs, device="cpu"),
    )


def run_timm(case: Case, method: str, weights: Path, script: Path) -> None:
    """Runs timm's train.py; its folder has the same name as a run of kdaug."""
    classes = len(list((case.photos / "train").iterdir()))
    arguments = {
        "--data-dir": case.photos, "--val-split": "val", "--model": NETWORK, "--num-classes": classes,
        "--pretrained-path": weights, "--img-size": SIDE, "--scale": (MIN_AREA, 1.0), "--mean": MEAN, "--std": STD,
        "--epochs": case.epochs, "--batch-size": BATCH, "--opt": "adamw", "--lr": LEARNING_RATE,
        "--weight-decay": WEIGHT_DECAY, "--warmup-epochs": round(WARMUP_STEPS * case.epochs / STEPS[case.images]),
        "--clip-grad": 5.0, "--seed": case.seed, "--device": "cpu", "--workers": 1,
        "--output": case.folder, "--experiment": case.run(method).name, "--checkpoint-hist": 1, "--smoothing": 0.0,
        "--val-interval": case.epochs,
    }  # fmt: skip
    if method.endswith("-zero"):
        initial = case.folder / "zero-classifier.safetensors"
        write_zero_classifier(weights, classes, initial)
        del arguments["--pretrained-path"]
        arguments["--initial-checkpoint"] = initial
    if method != "timm":
        arguments["--aa"] = TIMM_POLICY
    if method.startswith("timm-distillation"):
        teacher = case.run("plain") / "timm"
        if not teacher.exists():
            export = ("export", str(case.run("plain")), "--to", "timm", "--out", str(teacher))
            subprocess.run([sys.executable, "-m", "kdaug", *export], check=True)
        arguments |= {"--kd-model-name": f"local-dir:{teacher.absolute()}", "--kd-temperature": SUPERVISION.temperature,
                      "--task-loss-weight": 1.0, "--distill-loss-weight": SUPERVISION.weight}  # fmt: skip
    flags = ["--channels-last", "--no-prefetcher", *(["--pretrained"] if "--pretrained-path" in arguments else [])]
    for name, value in arguments.items():
        flags += [name, *map(str, value)] if isinstance(value, tuple) else [name, str(value)]
    with (case.folder / f"{case.run(method).name}.log").open("w") as log:
        subprocess.run([sys.executable, str(script), *flags], check=True, stdout=log, stderr=subprocess.STDOUT)


def write_zero_classifier(weights: Path, classes: int, path: Path) -> None:
    """Writes `weights` with a classifier of zeros for `classes`."""
    tensors = safetensors.torch.load_file(weights)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = torch.zeros(classes, *tensors[name].shape[1:])
    safetensors.torch.save_file(tensors, path)


def error_of(run: Path) -> float | None:
    """The top-1 error after the last epoch in percent, of a run of kdaug or timm; None if it is not finished."""
    if (run / "summary.csv").exists():
        with (run / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        epochs = next(line for line in (run / "args.yaml").read_text().splitlines() if line.startswith("epochs:"))
        return 100 - float(rows[-1]["eval_top1"]) if int(rows[-1]["epoch"]) + 1 == int(epochs.split(":")[1]) else None
    if not (run / "metrics.jsonl").exists():
        return None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next((line["top1_error"] for line in lines if line["kind"] == "end"), None)


BASELINES = ("plain", "timm-randaugment", "timm-distillation-zero")


def table(errors: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean error and standard deviation over seeds by method, and paired gains with their 95 % intervals."""
    lines = []
    for size, of_size in errors.items():
        lines += [
            f"{size} images of each class:",
            "",
            f"| method | error, % | seeds | gain over {' | over '.join(BASELINES)} |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for method, by_seed in of_size.items():
            gains = [gain(of_size.get(baseline, {}), by_seed) for baseline in BASELINES]
            lines.append(f"| {method} | {mean(by_seed.values())} | {len(by_seed)} | {' | '.join(gains)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--timm-train", type=Path)
    parser.add_argument("--data", default="data", help="directory of CIFAR; default: %(default)s")
    parser.add_argument("--dataset", choices=("cifar-10", "cifar-100"), default="cifar-10")
    parser.add_argument("--images", type=int, nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--holdout", action="store_true")
    parser.add_argument("--table", type=Path, metavar="DIR", help="write table.md and errors.json to DIR")
    args = parser.parse_args()
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for images in args.images:
        for seed in args.seeds:
            case = Case(args.folder, args.data, args.dataset, images, seed, args.holdout)
            for method in args.only:
                if args.table is None and error_of(case.run(method)) is None:
                    if args.weights is None or (method.startswith("timm") and args.timm_train is None):
                        parser.error("--weights is required for training, and --timm-train for timm's methods")
                    write_photos(case)
                    if method.startswith("timm"):
                        run_timm(case, method, args.weights, args.timm_train)
                    else:
                        train(kdaug_recipe(case, method, args.weights))
                error = error_of(case.run(method))
                if error is not None:
                    errors.setdefault(str(images), {}).setdefault(method, {})[str(seed)] = error
    if args.table is not None:
        args.table.mkdir(parents=True, exist_ok=True)
        (args.table / "table.md").write_text(table(errors))
        (args.table / "errors.json").write_text(json.dumps(errors, indent=1) + "\n")
    print(table(errors), end="")


if __name__ == "__main__":
    main()
