"""One training step: soft labels, loss, gradients, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from kdaug.device import autocast
from kdaug.supervision import LossOutput, SoftLabelSource, concat_losses, distillation_loss, divergence_weight
from kdaug.supervision.adaptive import visible_label_prob
from kdaug.training.adversarial import pgd_attack
from kdaug.training.batches import ViewBatch
from kdaug.training.context import TrainContext
from kdaug.training.parallel import gradient_sync
from kdaug.training.state import TrainState


@dataclass(frozen=True)
class TrainStep:
    """The step that training repeats; also what the smoke test of recipes and the benchmarks run.

    soft_labels: a teacher or a label store; None: no distillation, only cross-entropy with the labels.
    """

    context: TrainContext
    state: TrainState
    soft_labels: SoftLabelSource | None

    def __call__(self, batch: ViewBatch) -> LossOutput:
        """Takes one step on this rank's share of a batch; returns the losses of each image. Never waits for a GPU.

        The share is split into context.accumulation_steps parts whose gradients are accumulated.
        """
        context, state = self.context, self.state
        state.train_model.train()
        state.learning_rate.set(state.step)
        outputs: list[LossOutput] = []
        for index, part in enumerate(batch.chunk(context.accumulation_steps)):
            with gradient_sync(state.train_model, index + 1 == context.accumulation_steps):
                with autocast(context.device, context.precision):
                    outputs.append(self._losses(part.to(context.device)))
                state.scaler.scale(outputs[-1].loss.sum() / len(batch.labels)).backward()  # type: ignore[no-untyped-call]
        optimizer_step(state, context.recipe.optimization.clip_norm)
        return concat_losses(outputs)

    def _losses(self, batch: ViewBatch) -> LossOutput:
        """The losses of the views and, with an adversary, of their adversarial versions.

        Views and adversarial images go through the network in one forward pass, so that each half uses its own batch
        norms. The adversarial ones have the cross-entropy alone (AdvProp, arXiv 1911.09665, Equation 3: sum of both).
        """
        context, state, labels = self.context, self.state, batch.labels
        settings, adversary = context.recipe.supervision, context.recipe.adversary
        input_format = context.network_info.input_format
        soft_labels = None
        if self.soft_labels is not None and context.uses_teacher(batch.key.epoch):
            soft_labels = self.soft_labels.soft_labels(batch.pixels, labels, batch.key.view_epoch, batch.key.indices)
        images = input_format.normalize(batch.pixels)
        class_weight = context.class_weight
        weight = divergence_weight(settings, state.step / context.steps, batch.magnitude)
        if not adversary.steps:
            logits, label_prob = state.train_model(images), None
            if settings.visible_power is not None:
                label_prob = visible_label_prob(batch.visible, settings.visible_power, logits.shape[1])
            return distillation_loss(
                settings, logits, soft_labels, labels, weight, batch.mixed_labels, class_weight, label_prob
            )
        attacked = pgd_attack(state.network, images, labels, adversary, input_format)
        logits, logits_attacked = state.train_model(torch.cat([images, attacked])).chunk(2)
        output = distillation_loss(settings, logits, soft_labels, labels, weight, class_weight=class_weight)
        adversarial = distillation_loss(settings, logits_attacked, None, labels, class_weight=class_weight).loss
        return replace(output, loss=output.loss + adversarial, adversarial=adversarial)


def optimizer_step(state: TrainState, clip_norm: float | None) -> None:
    """Clips the accumulated gradients, updates the weights and their moving average, and clears the gradients."""
    if clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.network, state.step + 1)
