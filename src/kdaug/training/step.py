"""One optimisation step: what the student is told of a batch, and how its weights follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdaug.data.loader import Batch
from kdaug.supervision import Answer, LabelStore, Teacher, Told, answer_of, supervise
from kdaug.training.adversary import mislead
from kdaug.training.checkpoints import TrainingState
from kdaug.training.optimization import autocast
from kdaug.training.parallel import gradients_meet
from kdaug.training.setup import Setup


def learn(
    setup: Setup, state: TrainingState, teacher: Teacher | LabelStore | None, batch: Batch, views: Tensor
) -> Told:
    """One step on this rank's share of a batch, taken in setup.parts; what the student was told, image by image.

    `views` uint8 [N,H,W,C] are batch.images as augmented. Nothing here waits for the device.
    """
    state.forward.train()
    state.rate.set(state.step)
    labels, told, settings = torch.from_numpy(batch.labels), list[Told](), setup.recipe.supervision
    stored = None
    if isinstance(teacher, LabelStore):
        stored = teacher.answer(settings, batch.key.view_epoch, batch.key.indices).to(setup.device).chunk(setup.parts)
    for number, (some_views, some_labels) in enumerate(_parts(setup.parts, views, labels)):
        seen = some_views.to(setup.device, non_blocking=True)
        said = some_labels.to(setup.device, non_blocking=True)
        with gradients_meet(state.forward, number + 1 == setup.parts):
            with autocast(setup.device, setup.precision):
                answer = stored[number] if stored else None
                if isinstance(teacher, Teacher):
                    answer = answer_of(teacher(seen), settings.k, settings.temperature)
                told.append(_tell(setup, state, setup.card.input_format.prepare(seen), said, answer))
            state.scaler.scale(told[-1].loss.sum() / len(labels)).backward()  # type: ignore[no-untyped-call]
    descend(state, setup.recipe.optimization.clip_norm)
    return together(told)


def _tell(setup: Setup, state: TrainingState, images: Tensor, labels: Tensor, answer: Answer | None) -> Told:
    """What the student is told of `images` [N,C,H,W] and, with an adversary, of what that makes of them.

    Both go through the network at once, so that each half meets its own batch norms. What is moved is learned by its
    label alone (paper of AdvProp, Equation 3: the sum of both losses).
    """
    settings, adversary = setup.recipe.supervision, setup.recipe.adversary
    if not adversary.steps:
        return supervise(settings, state.forward(images), answer, labels)
    moved = mislead(state.network, images, labels, adversary, setup.card.input_format)
    logits, logits_of_moved = state.forward(torch.cat([images, moved])).chunk(2)
    told, of_moved = (
        supervise(settings, logits, answer, labels),
        supervise(settings, logits_of_moved, None, labels),
    )
    return replace(told, loss=told.loss + of_moved.loss, adversarial=of_moved.loss)


def _parts(count: int, views: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(views.chunk(count), labels.chunk(count), strict=True)


def descend(state: TrainingState, clip_norm: float | None) -> None:
    """One step downhill along the gradients gathered, which are used up; the averaged weights follow."""
    if clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.average is not None:
        state.average.update(state.network, state.step + 1)


def together(told: Sequence[Told]) -> Told:
    """What was told of the parts of a batch, as if of the whole."""
    if len(told) == 1:
        return told[0]
    whole = {name: torch.cat([parts[name] for parts in (t.values() for t in told)]) for name in told[0].values()}
    return Told(**whole)
