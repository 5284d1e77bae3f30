"""One optimisation step: what the student is told of a batch, and how its weights follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from kdaug import config
from kdaug.supervision import Answer, LabelStore, Teacher, Told, answer_of, divergence_weight, supervise
from kdaug.training.adversary import mislead
from kdaug.training.checkpoints import TrainingState
from kdaug.training.optimization import autocast
from kdaug.training.parallel import gradients_meet
from kdaug.training.setup import Setup
from kdaug.training.viewing import Viewed


def learn(setup: Setup, state: TrainingState, teacher: Teacher | LabelStore | None, viewed: Viewed) -> Told:
    """One step on this rank's share of a batch, taken in setup.parts; what the student was told, image by image.

    Nothing here waits for the device.
    """
    state.forward.train()
    state.rate.set(state.step)
    told: list[Told] = []
    for number, part in enumerate(viewed.chunk(setup.parts)):
        seen = part.to(setup.device)
        with gradients_meet(state.forward, number + 1 == setup.parts):
            with autocast(setup.device, setup.precision):
                told.append(_tell(setup, state, seen, _asked(teacher, seen, setup.recipe.supervision)))
            state.scaler.scale(told[-1].loss.sum() / len(viewed.labels)).backward()  # type: ignore[no-untyped-call]
    descend(state, setup.recipe.optimization.clip_norm)
    return together(told)


def _asked(teacher: Teacher | LabelStore | None, seen: Viewed, settings: config.Supervision) -> Answer | None:
    """What the teacher says of these views, or said when its answers were stored."""
    if teacher is None:
        return None
    if isinstance(teacher, LabelStore):
        return teacher.answer(settings, seen.key.view_epoch, seen.key.indices).to(seen.pixels.device)
    answer = answer_of(teacher(seen.pixels), settings, seen.labels)
    if teacher.clean is None:
        return answer
    clean = teacher.clean[torch.from_numpy(seen.key.indices)]
    return replace(answer, clean=clean.to(seen.pixels.device, non_blocking=True))


def _tell(setup: Setup, state: TrainingState, seen: Viewed, answer: Answer | None) -> Told:
    """What the student is told of these views and, with an adversary, of what that makes of them.

    Both go through the network at once, so that each half meets its own batch norms. What is moved is learned by its
    label alone (paper of AdvProp, Equation 3: the sum of both losses).
    """
    settings, adversary = setup.recipe.supervision, setup.recipe.adversary
    images, labels = setup.card.input_format.prepare(seen.pixels), seen.labels
    weight = divergence_weight(settings, state.step / setup.steps, seen.magnitude)
    if not adversary.steps:
        return supervise(settings, state.forward(images), answer, labels, weight, seen.mixture)
    moved = mislead(state.network, images, labels, adversary, setup.card.input_format)
    logits, logits_of_moved = state.forward(torch.cat([images, moved])).chunk(2)
    told, of_moved = (
        supervise(settings, logits, answer, labels, weight),
        supervise(settings, logits_of_moved, None, labels),
    )
    return replace(told, loss=told.loss + of_moved.loss, adversarial=of_moved.loss)


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
