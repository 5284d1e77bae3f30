"""One optimisation step: what the student is told of a batch, and how its weights follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from kdaug import config
from kdaug.device import autocast
from kdaug.supervision import (
    LabelStore,
    LossOutput,
    SoftLabels,
    Teacher,
    distillation_loss,
    divergence_weight,
    soft_labels_from_logits,
)
from kdaug.training.adversarial import pgd_attack
from kdaug.training.batches import ViewBatch
from kdaug.training.context import TrainContext
from kdaug.training.parallel import gradient_sync
from kdaug.training.state import TrainState


def train_step(
    context: TrainContext, state: TrainState, teacher: Teacher | LabelStore | None, view_batch: ViewBatch
) -> LossOutput:
    """One step on this rank's share of a batch, taken in setup.parts; what the student was told, image by image.

    Nothing here waits for the device.
    """
    state.forward.train()
    state.rate.set(state.step)
    told: list[LossOutput] = []
    for number, part in enumerate(view_batch.chunk(context.parts)):
        seen = part.to(context.device)
        with gradient_sync(state.forward, number + 1 == context.parts):
            with autocast(context.device, context.precision):
                told.append(_tell(context, state, seen, _asked(teacher, seen, context.recipe.supervision)))
            state.scaler.scale(told[-1].loss.sum() / len(view_batch.labels)).backward()  # type: ignore[no-untyped-call]
    optimizer_step(state, context.recipe.optimization.clip_norm)
    return concat(told)


def _asked(teacher: Teacher | LabelStore | None, seen: ViewBatch, settings: config.Supervision) -> SoftLabels | None:
    """What the teacher says of these views, or said when its answers were stored."""
    if teacher is None:
        return None
    if isinstance(teacher, LabelStore):
        return teacher.answer(settings, seen.key.view_epoch, seen.key.indices).to(seen.pixels.device)
    answer = soft_labels_from_logits(teacher(seen.pixels), settings, seen.labels)
    if teacher.clean is None:
        return answer
    clean = teacher.clean[torch.from_numpy(seen.key.indices)]
    return replace(answer, clean=clean.to(seen.pixels.device, non_blocking=True))


def _tell(context: TrainContext, state: TrainState, seen: ViewBatch, answer: SoftLabels | None) -> LossOutput:
    """What the student is told of these views and, with an adversary, of what that makes of them.

    Both go through the network at once, so that each half meets its own batch norms. What is moved is learned by its
    label alone (paper of AdvProp, Equation 3: the sum of both losses).
    """
    settings, adversary = context.recipe.supervision, context.recipe.adversary
    images, labels = context.card.input_format.prepare(seen.pixels), seen.labels
    weight = divergence_weight(settings, state.step / context.steps, seen.magnitude)
    if not adversary.steps:
        return distillation_loss(settings, state.forward(images), answer, labels, weight, seen.mixture)
    moved = pgd_attack(state.network, images, labels, adversary, context.card.input_format)
    logits, logits_of_moved = state.forward(torch.cat([images, moved])).chunk(2)
    told, of_moved = (
        distillation_loss(settings, logits, answer, labels, weight),
        distillation_loss(settings, logits_of_moved, None, labels),
    )
    return replace(told, loss=told.loss + of_moved.loss, adversarial=of_moved.loss)


def optimizer_step(state: TrainState, clip_norm: float | None) -> None:
    """One step downhill along the gradients gathered, which are used up; the averaged weights follow."""
    if clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.network, state.step + 1)


def concat(told: Sequence[LossOutput]) -> LossOutput:
    """What was told of the parts of a batch, as if of the whole."""
    if len(told) == 1:
        return told[0]
    whole = {name: torch.cat([parts[name] for parts in (t.values() for t in told)]) for name in told[0].values()}
    return LossOutput(**whole)
