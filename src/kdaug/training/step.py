"""One optimisation step: what the student is told of a batch, and how its weights follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kdaug.data.loader import Batch
from kdaug.supervision import Teacher, Told, supervise
from kdaug.training.checkpoints import TrainingState
from kdaug.training.optimization import autocast
from kdaug.training.parallel import gradients_meet
from kdaug.training.setup import Setup


def learn(setup: Setup, state: TrainingState, teacher: Teacher | None, batch: Batch, views: Tensor) -> Told:
    """One step on this rank's share of a batch, taken in setup.parts; what the student was told, image by image.

    `views` uint8 [N,H,W,C] are batch.images as augmented. Nothing here waits for the device.
    """
    state.forward.train()
    state.rate.set(state.step)
    to_input, labels, told = setup.card.input_format.prepare, torch.from_numpy(batch.labels), []
    for number, (some_views, some_labels) in enumerate(_parts(setup.parts, views, labels), 1):
        seen = some_views.to(setup.device, non_blocking=True)
        said = some_labels.to(setup.device, non_blocking=True)
        with gradients_meet(state.forward, number == setup.parts):
            with autocast(setup.device, setup.precision):
                teacher_logits = teacher(seen) if teacher else None
                logits = state.forward(to_input(seen))
            told.append(supervise(setup.recipe.supervision, logits, teacher_logits, said))
            state.scaler.scale(told[-1].loss.sum() / len(labels)).backward()  # type: ignore[no-untyped-call]
    descend(state, setup.recipe.optimization.clip_norm)
    return together(told)


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
