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
from kdaug.data.crops import CenterCrop
from kdaug.data.loader import Batch, UnreadableImages, evaluation_keys, load, prefetch
from kdaug.device import autocast, available_cores, find_device, find_precision, make_deterministic
from kdaug.errors import InputError
from kdaug.networks import NetworkCard, check_forward, create_network, published_mean_std, set_batch_norm_momentum
from kdaug.supervision import Teacher, load_teacher
from kdaug.training.distributed import DistContext
from kdaug.training.evaluation import Scores, evaluate
from kdaug.training.parallel import accumulation_steps, check_parallel, prepare_network
from kdaug.training.progress import print_line, progress_bar, track
from kdaug.training.resolve import teacher_run_recipe
from kdaug.views import Policy
from kdaug.views.policies import policy_from_views

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class TrainContext:
    """A resolved recipe with its data, its views, and the device and the world it runs in.

    policy: whole views, in the epochs under the recipe's policy; clean_policy: crop and flip, in the clean ones.
    """

    recipe: Recipe
    dataset: Dataset
    policy: Policy
    clean_policy: Policy
    device: torch.device
    precision: torch.dtype
    dist: DistContext
    console: Console
    unreadable_train: UnreadableImages
    unreadable_val: UnreadableImages

    @property
    def card(self) -> NetworkCard:
        """What the student's weight files say of themselves; a pretrained one is fed as it was before."""
        d, student = self.dataset, self.recipe.student
        published = published_mean_std(student.name) if student.pretrained else None
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
        return accumulation_steps(self.recipe, self.dist)

    def count_unreadable(self) -> int:
        """How many images turned out unreadable, on any rank."""
        seen = (*self.unreadable_train.seen, *self.unreadable_val.seen)
        return len({name for names in self.dist.gather(seen) for name in names})

    def is_clean_epoch(self, epoch: int) -> bool:
        """Whether `epoch` (from 0) is one of the clean ones at the end."""
        return epoch >= self.recipe.optimization.epochs

    def uses_teacher(self, epoch: int) -> bool:
        """Whether a teacher looks on in `epoch`."""
        return self.recipe.supervision.when in ("all", "clean" if self.is_clean_epoch(epoch) else "policy")

    def mixes_images(self, epoch: int) -> bool:
        """Whether views of `epoch` are made of two images."""
        return bool(self.recipe.views.mixup or self.recipe.views.cutmix) and not self.is_clean_epoch(epoch)


def build_context(
    recipe: Recipe,
    console: Console,
    dist: DistContext = DistContext(),  # noqa: B008 - frozen
    dataset: Dataset | None = None,
) -> TrainContext:
    """Reads the data (unless given) and finds the device of a resolved recipe; InputError if they cannot be had."""
    device = find_device(recipe.run.device, dist.local_rank)
    make_deterministic(device)
    torch.set_num_threads(recipe.run.threads or max(1, available_cores() // dist.local_size - 1))
    if recipe.data.download:
        dist.run_on_rank0(lambda: load_dataset(recipe.data).name)  # fetched once, then there for all
    dataset = dataset or load_dataset(recipe.data)
    views, encoded = recipe.views, isinstance(dataset.train, EncodedImages)

    def unreadable(images: int) -> UnreadableImages:
        return UnreadableImages(images, recipe.data.max_unreadable, partial(print_line, console))

    return TrainContext(
        recipe,
        dataset,
        policy_from_views(views, dataset.fill, encoded, epochs=recipe.optimization.epochs),
        policy_from_views(replace(views, policy="none", cutout=0), dataset.fill, encoded, epochs=1),
        device,
        find_precision(recipe.optimization, device),
        dist,
        console,
        unreadable(len(dataset.train)),
        unreadable(len(dataset.val)),
    )


def check_trainable(context: TrainContext) -> None:
    """InputError if there is no batch to train on, or the student, or its teacher to be trained, cannot take one."""
    recipe, dataset = context.recipe, context.dataset
    batch = recipe.optimization.global_batch
    if len(dataset.train) < batch:
        raise InputError(f"optimization.global_batch is {batch}, but there are {len(dataset.train)} training images")
    wanted = {recipe.student}
    if recipe.teacher.source == "train" and recipe.teacher.labels is None:
        wanted.add(teacher_run_recipe(recipe).student)
    check_parallel(recipe, context.dist, context.device, context.precision)
    dropped, part = recipe.supervision.drop_worst, batch // context.dist.size // context.parts
    if dropped and not 1 <= round(dropped * part) < part:
        raise InputError(
            f"supervision.drop_worst is {dropped:g}, but of {part} image(s) at once that is none or all; take larger "
            "batches (optimization.global_batch, run.device_batch) or another share"
        )
    for student in wanted:
        network = prepare_network(_network(student, dataset), recipe)
        check_forward(network.train(), student.name, len(example_input(context)), dataset.channels, dataset.size)
        if recipe.run.evaluate_size is not None and student == recipe.student:
            side = recipe.run.evaluate_size
            check_forward(network.eval(), student.name, 1, dataset.channels, (side, side))


def example_input(context: TrainContext) -> Tensor:
    """Two black images as a network gets them, float32 [2,C,H,W] (or one, if it never gets more), on the device.

    With an adversary, as many again.
    """
    at_once = context.recipe.optimization.global_batch // context.dist.size // context.parts
    count = min(at_once, 2) * (2 if context.recipe.adversary.steps else 1)
    return torch.zeros(count, context.dataset.channels, *context.dataset.size, device=context.device)


def create_student(context: TrainContext) -> nn.Module:
    """The network of the recipe with fresh weights drawn by run.seed (or timm's published ones), in main memory."""
    torch.manual_seed(context.recipe.run.seed)
    network = prepare_network(_network(context.recipe.student, context.dataset), context.recipe)
    if not context.dist.is_rank0:  # the same weights everywhere, but noise (dropout, say) of its own on every rank
        torch.manual_seed((context.recipe.run.seed + (context.dist.rank << 40)) % (1 << 63))
    return network


def _network(student: Network, dataset: Dataset) -> nn.Module:
    network = create_network(
        student.name, len(dataset.classes), dataset.channels, student.pretrained, student.drop_path, student.dropout
    )
    if student.batch_norm_momentum is not None:
        set_batch_norm_momentum(network, student.name, student.batch_norm_momentum)
    return network


def validation_batches(context: TrainContext, side: int | None = None) -> Iterable[Batch]:
    """This rank's share of the validation images, unaugmented; those of a folder with `side` pixels (None: as trained).

    What cannot be read is left out.
    """
    val, dist = context.dataset.val, context.dist
    crop = CenterCrop(side or context.dataset.size[0])
    keys = evaluation_keys(len(val), EVALUATION_BATCH, dist.rank, dist.size)
    # in a thread, as in training: torch makes workers begun by the main thread interrupt it when they die
    return prefetch(load(val, keys, crop, context.recipe.data.workers, context.unreadable_val))


def evaluate_on_validation(
    context: TrainContext,
    network: nn.Module,
    bar: Progress,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = lambda batches: batches,
) -> Scores:
    """Scores of a network trained on this data, in evaluation mode, on the validation images; shown on `bar`.

    Their side is run.evaluate_size, if that is given. `watch` hands on the batches as they are taken.
    """
    side, own = context.recipe.run.evaluate_size, context.card.input_format
    to_input = (own if side is None else replace(own, size=(side, side))).prepare
    images = len(context.dataset.val) // context.dist.size
    batches = track(bar, "evaluating", validation_batches(context, side), images)
    context.dist.broadcast_buffers(network)
    network.eval()
    with torch.no_grad(), autocast(context.device, context.precision):
        return evaluate(lambda views: network(to_input(views)), watch(batches), context.device, context.dist)


def load_checked_teacher(context: TrainContext, source: str) -> Teacher:
    """The teacher at `source` (run:DIR, file:PATH or timm:NAME), its error on the validation images printed.

    One that is close to guessing is pointed out, for its classes or its normalisation are then probably wrong.
    """
    dataset = context.dataset
    teacher = load_teacher(context.recipe.teacher, source, dataset, context.recipe.student.name)
    check_forward(
        teacher.network, f"of the teacher {source}", 1, dataset.channels, teacher.input_format.size or dataset.size
    )
    teacher.to(context.device)
    if context.recipe.run.compile:
        teacher.network.compile()
    with progress_bar(context.console) as bar, autocast(context.device, context.precision):
        images = track(bar, "teacher", validation_batches(context), len(dataset.val) // context.dist.size)
        scores = evaluate(teacher, images, context.device, context.dist)
    if not math.isfinite(scores.val_loss):
        raise InputError(f"the teacher {source} answers with numbers that are not finite; its weights are of no use")
    print_line(context.console, f"teacher {source}: error {scores.top1_error:.2f} % on the validation images")
    guessing = 100 - 100 / len(context.dataset.classes)
    if scores.top1_error > 0.9 * guessing:
        print_line(
            context.console,
            "warning: the teacher does little better than guess; are its classes in the data's order, and is its "
            "normalisation (teacher.mean, teacher.std) right?",
        )
    return teacher
