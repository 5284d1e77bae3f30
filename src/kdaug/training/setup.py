"""What stays the same throughout a run, made from its recipe before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from kdaug.config import Network, Recipe
from kdaug.data import Dataset, EncodedImages, load_dataset
from kdaug.data.frames import CentreCrop
from kdaug.data.loader import Batch, UnreadableImages, evaluation_keys, load, prefetch
from kdaug.errors import InputError
from kdaug.networks import NetworkCard, create_network, published_input, set_batch_norm_momentum, try_out
from kdaug.supervision import Teacher, load_teacher
from kdaug.training.distributed import World
from kdaug.training.evaluation import Scores, evaluate
from kdaug.training.optimization import autocast, available_cores, compute_repeatably, find_device, find_precision
from kdaug.training.parallel import check_parallel, parts_of_a_share, prepare_network
from kdaug.training.progress import counted, say, show_progress
from kdaug.training.resolving import teacher_recipe
from kdaug.views import Policy
from kdaug.views.policies import of_recipe

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Setup:
    """A resolved recipe with its data, its views, and the device and the world it runs in.

    policy: whole views, in the epochs under the recipe's policy; clean_policy: crop and flip, in the clean ones.
    """

    recipe: Recipe
    dataset: Dataset
    policy: Policy
    clean_policy: Policy
    device: torch.device
    precision: torch.dtype
    world: World
    console: Console
    unreadable_train: UnreadableImages
    unreadable_val: UnreadableImages

    @property
    def card(self) -> NetworkCard:
        """What the student's weight files say of themselves; a pretrained one is fed as it was before."""
        d, student = self.dataset, self.recipe.student
        published = published_input(student.name) if student.pretrained else None
        mean, std = published if published and len(published[0]) == d.channels else (d.mean, d.std)
        return NetworkCard(student.name, d.classes, mean, std, d.size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // self.recipe.optimization.global_batch

    @property
    def epochs(self) -> int:
        return self.recipe.optimization.all_epochs

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def parts(self) -> int:
        """In how many parts this process takes its share of a batch."""
        return parts_of_a_share(self.recipe, self.world)

    def unreadable(self) -> int:
        """How many images turned out unreadable, on any rank."""
        seen = (*self.unreadable_train.seen, *self.unreadable_val.seen)
        return len({name for names in self.world.gather(seen) for name in names})

    def is_clean(self, epoch: int) -> bool:
        """Whether `epoch` (from 0) is one of the clean ones at the end."""
        return epoch >= self.recipe.optimization.epochs

    def watches(self, epoch: int) -> bool:
        """Whether a teacher looks on in `epoch`."""
        return self.recipe.supervision.when in ("all", "clean" if self.is_clean(epoch) else "policy")

    def mixes(self, epoch: int) -> bool:
        """Whether views of `epoch` are made of two images."""
        return bool(self.recipe.views.mixup or self.recipe.views.cutmix) and not self.is_clean(epoch)


def prepare(
    recipe: Recipe,
    console: Console,
    world: World = World(),  # noqa: B008 - frozen
    dataset: Dataset | None = None,
) -> Setup:
    """Reads the data (unless given) and finds the device of a resolved recipe; InputError if they cannot be had."""
    device = find_device(recipe.run.device, world.local_rank)
    compute_repeatably(device)
    torch.set_num_threads(recipe.run.threads or max(1, available_cores() // world.local_size - 1))
    if recipe.data.download:
        world.told_by_first(lambda: load_dataset(recipe.data).name)  # fetched once, then there for all
    dataset = dataset or load_dataset(recipe.data)
    views, encoded = recipe.views, isinstance(dataset.train, EncodedImages)

    def unreadable(images: int) -> UnreadableImages:
        return UnreadableImages(images, recipe.data.max_unreadable, partial(say, console))

    return Setup(
        recipe,
        dataset,
        of_recipe(views, dataset.fill, encoded, epochs=recipe.optimization.epochs),
        of_recipe(replace(views, policy="none", cutout=0), dataset.fill, encoded, epochs=1),
        device,
        find_precision(recipe.optimization, device),
        world,
        console,
        unreadable(len(dataset.train)),
        unreadable(len(dataset.val)),
    )


def check_training(setup: Setup) -> None:
    """InputError if there is no batch to train on, or the student, or its teacher to be trained, cannot take one."""
    recipe, dataset = setup.recipe, setup.dataset
    batch = recipe.optimization.global_batch
    if len(dataset.train) < batch:
        raise InputError(f"optimization.global_batch is {batch}, but there are {len(dataset.train)} training images")
    wanted = {recipe.student}
    if recipe.teacher.source == "train" and recipe.teacher.labels is None:
        wanted.add(teacher_recipe(recipe).student)
    check_parallel(recipe, setup.world, setup.device, setup.precision)
    dropped, part = recipe.supervision.drop_worst, batch // setup.world.size // setup.parts
    if dropped and not 1 <= round(dropped * part) < part:
        raise InputError(
            f"supervision.drop_worst is {dropped:g}, but of {part} image(s) at once that is none or all; take larger "
            "batches (optimization.global_batch, run.device_batch) or another share"
        )
    for student in wanted:
        network = prepare_network(_network(student, dataset), recipe)
        try_out(network.train(), student.name, len(example_input(setup)), dataset.channels, dataset.size)
        if recipe.run.evaluate_size is not None and student == recipe.student:
            side = recipe.run.evaluate_size
            try_out(network.eval(), student.name, 1, dataset.channels, (side, side))


def example_input(setup: Setup) -> Tensor:
    """Two black images as a network gets them, float32 [2,C,H,W] (or one, if it never gets more), on the device.

    With an adversary, as many again.
    """
    at_once = setup.recipe.optimization.global_batch // setup.world.size // setup.parts
    count = min(at_once, 2) * (2 if setup.recipe.adversary.steps else 1)
    return torch.zeros(count, setup.dataset.channels, *setup.dataset.size, device=setup.device)


def create_student(setup: Setup) -> nn.Module:
    """The network of the recipe with fresh weights drawn by run.seed (or timm's published ones), in main memory."""
    torch.manual_seed(setup.recipe.run.seed)
    network = prepare_network(_network(setup.recipe.student, setup.dataset), setup.recipe)
    if not setup.world.first:  # the same weights everywhere, but noise (dropout, say) of its own on every rank
        torch.manual_seed((setup.recipe.run.seed + (setup.world.rank << 40)) % (1 << 63))
    return network


def _network(student: Network, dataset: Dataset) -> nn.Module:
    network = create_network(
        student.name, len(dataset.classes), dataset.channels, student.pretrained, student.drop_path, student.dropout
    )
    if student.batch_norm_momentum is not None:
        set_batch_norm_momentum(network, student.name, student.batch_norm_momentum)
    return network


def validation_batches(setup: Setup, side: int | None = None) -> Iterable[Batch]:
    """This rank's share of the validation images, unaugmented; those of a folder with `side` pixels (None: as trained).

    What cannot be read is left out.
    """
    val, world = setup.dataset.val, setup.world
    frame = CentreCrop(side or setup.dataset.size[0])
    keys = evaluation_keys(len(val), EVALUATION_BATCH, world.rank, world.size)
    # in a thread, as in training: torch makes workers begun by the main thread interrupt it when they die
    return prefetch(load(val, keys, frame, setup.recipe.data.workers, setup.unreadable_val))


def evaluate_network(
    setup: Setup,
    network: nn.Module,
    bar: Progress,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = lambda batches: batches,
) -> Scores:
    """Scores of a network trained on this data, in evaluation mode, on the validation images; shown on `bar`.

    Their side is run.evaluate_size, if that is given. `watch` hands on the batches as they are taken.
    """
    side, own = setup.recipe.run.evaluate_size, setup.card.input_format
    to_input = (own if side is None else replace(own, size=(side, side))).prepare
    images = len(setup.dataset.val) // setup.world.size
    batches = counted(bar, "evaluating", validation_batches(setup, side), images)
    setup.world.follow_first(network)
    network.eval()
    with torch.no_grad(), autocast(setup.device, setup.precision):
        return evaluate(lambda views: network(to_input(views)), watch(batches), setup.device, setup.world)


def prepare_teacher(setup: Setup, source: str) -> Teacher:
    """The teacher at `source` (run:DIR, file:PATH or timm:NAME), its error on the validation images printed.

    One that is close to guessing is pointed out, for its classes or its normalisation are then probably wrong.
    """
    dataset = setup.dataset
    teacher = load_teacher(setup.recipe.teacher, source, dataset, setup.recipe.student.name)
    try_out(teacher.network, f"of the teacher {source}", 1, dataset.channels, teacher.input_format.size or dataset.size)
    teacher.to(setup.device)
    if setup.recipe.run.compile:
        teacher.network.compile()
    with show_progress(setup.console) as bar, autocast(setup.device, setup.precision):
        images = counted(bar, "teacher", validation_batches(setup), len(dataset.val) // setup.world.size)
        scores = evaluate(teacher, images, setup.device, setup.world)
    if not math.isfinite(scores.val_loss):
        raise InputError(f"the teacher {source} answers with numbers that are not finite; its weights are of no use")
    say(setup.console, f"teacher {source}: error {scores.top1_error:.2f} % on the validation images")
    guessing = 100 - 100 / len(setup.dataset.classes)
    if scores.top1_error > 0.9 * guessing:
        say(
            setup.console,
            "warning: the teacher does little better than guess; are its classes in the data's order, and is its "
            "normalisation (teacher.mean, teacher.std) right?",
        )
    return teacher
