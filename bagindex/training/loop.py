"""The training itself: epochs of steps, each epoch validated, logged and checkpointed.

Devices, precision and processes are Lightning Fabric's.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bagindex.errors import SourceError, TrainingError
from bagindex.model import BagNet
from bagindex.observer import TrainingObserver
from bagindex.registry import Architecture
from bagindex.text import some
from bagindex.training.files import TrainingFiles, TrainingState
from bagindex.training.pictures import Batch, Shuffle, TrainingData, training_batches
from bagindex.training.recipe import input_size, learning_rate, transform_at
from bagindex.training.validation import Means, Tally, normalise, validate
from bagindex.weights import Checkpoint, pack
from bagindex_schemas.training import EpochRecord, Recipe, TrainingRecord


@dataclass(frozen=True)
class Job:
    """A training, ready to run. `settings` is what a resumed training must share with the one that it goes on with."""

    data: TrainingData
    recipe: Recipe
    architecture: Architecture
    width: float
    initial: Checkpoint | None
    files: TrainingFiles
    state: TrainingState | None
    settings: dict[str, Any]
    workers: int
    observer: TrainingObserver


def make_model(job: Job) -> BagNet:
    """A new model, initialised as the authors do, or the checkpoint that the training begins with.

    The linear layer is new where the checkpoint has other classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(job.recipe.seed)
        model = BagNet(job.architecture, len(job.data.classes), job.width)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if job.initial is not None:
        state = job.initial.build().state_dict()
        named = job.initial.classes
        if named is None or tuple(record.name for record in named) != job.data.classes:
            state = {**state, "fc.weight": model.fc.weight, "fc.bias": model.fc.bias}
        model.load_state_dict(state)
    if job.recipe.freeze_features:
        model.requires_grad_(False)
        model.fc.requires_grad_(True)
    return model


def run(fabric: Fabric, job: Job) -> tuple[EpochRecord, ...]:
    """Train from where the state says to the last epoch; in every process of `fabric`."""
    recipe, observer = job.recipe, job.observer if fabric.is_global_zero else TrainingObserver()
    model = make_model(job)
    # On a CPU, gradients of channels-last convolutions with fewer than 16 channels write out of bounds (torch 2.15).
    if fabric.device.type != "cpu" or model.conv1.out_channels % 16 == 0:
        model = model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, recipe)
    module, optimizer = fabric.setup(model, optimizer)
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    history = list(job.state.epochs) if job.state is not None else []
    if job.state is not None:
        model.load_state_dict(job.state.tensors["model"])
        optimizer.load_state_dict(job.state.tensors["optimizer"])
        if scaler is not None:
            scaler.load_state_dict(job.state.tensors["scaler"])
    shuffle = Shuffle(len(job.data.train.entries), recipe, len(history), fabric.global_rank, fabric.world_size)
    batches = iter(training_batches(job.data, recipe, shuffle, job.workers))
    observer.begun(recipe.epochs, shuffle.steps, len(history))
    for epoch in range(len(history), recipe.epochs):
        started = time.monotonic()
        tally = _train_epoch(fabric, recipe, observer, module, optimizer, batches, shuffle.steps, epoch)
        trained = time.monotonic() - started
        _say_unreadable(observer, tally)
        stored = _as_stored(model, recipe)
        validation = validate(fabric, stored, job.data, transform_at(recipe, epoch), job.workers)
        _say_unreadable(observer, validation)
        training, found = tally.means(fabric), validation.means(fabric)
        if not found.images:
            raise SourceError("none of the validation pictures could be read")
        if not math.isfinite(found.loss):
            raise TrainingError(_not_finite(recipe, f"the validation of epoch {epoch + 1}", epoch))
        record = EpochRecord(
            epoch=epoch + 1,
            input_size=input_size(recipe, epoch),
            learning_rate=learning_rate(recipe, epoch + 1),
            train_loss=training.loss,
            train_top1=training.top1,
            train_top5=training.top5,
            validation_loss=found.loss,
            validation_top1=found.top1,
            validation_top5=found.top5,
            images_per_second=shuffle.steps * min(recipe.batch_size, len(job.data.train.entries)) / trained,
            seconds=time.monotonic() - started,
        )
        history.append(record)
        if fabric.is_global_zero:
            _keep(job, model, stored, optimizer, scaler, history, found)
        observer.epoch(record, best=best(history) is record)
        fabric.barrier()
    return tuple(history)


def best(history: list[EpochRecord]) -> EpochRecord:
    """The epoch with the best validation top-1, the earlier of equal ones, among those at the latest input size."""
    last = [record for record in history if record.input_size == history[-1].input_size]
    return max(last, key=lambda record: (record.validation_top1, -record.epoch))


def _optimizer(model: BagNet, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":  # decays everything, as the authors' script does
        return torch.optim.SGD(
            trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    # Biases and batch norms have one dimension; to decay them only costs accuracy.
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _train_epoch(
    fabric: Fabric,
    recipe: Recipe,
    observer: TrainingObserver,
    module: Any,
    optimizer: Any,
    batches: Iterator[Batch],
    steps: int,
    epoch: int,
) -> Tally:
    tally, transform = Tally(), transform_at(recipe, epoch)
    module.train()
    if recipe.freeze_features:  # their running statistics stay, too
        module.eval()
    with _arithmetic(recipe):
        for step in range(steps):
            batch = next(batches)
            tally.unreadable.update(batch.rejected)
            if not len(batch.labels):
                raise SourceError(f"none of the pictures of a step could be read, such as {batch.rejected[0]}")
            images, labels = batch.images.to(fabric.device, non_blocking=True), batch.labels.to(fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch + step / steps)
            logits = module(normalise(images, transform)).float()
            loss = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            agreed: Any = fabric.all_reduce(loss.detach())  # the same everywhere, so that all processes stop at once
            value = float(agreed)
            if not math.isfinite(value):
                raise TrainingError(_not_finite(recipe, f"epoch {epoch + 1}, step {step + 1}", epoch))
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            tally.add(logits.detach(), labels, value)
            observer.stepped(epoch + 1, step + 1, value)
    return tally


def _say_unreadable(observer: TrainingObserver, tally: Tally) -> None:
    if tally.unreadable:
        names = some(sorted(tally.unreadable))
        observer.note(f"{len(tally.unreadable):,} pictures could not be read and were left out: {names}")


def _as_stored(model: BagNet, recipe: Recipe) -> BagNet:
    """The model as it will be read from its file: its weights rounded where that holds float16."""
    if recipe.storage == "fp32":
        return model
    return copy.deepcopy(model).half().float()


def _keep(
    job: Job, model: BagNet, stored: BagNet, optimizer: Any, scaler: Any, history: list[EpochRecord], found: Means
) -> None:
    """Write the weights, if they are the best, the log, and last the state, which makes the epoch count."""
    last = history[-1]
    if best(history) is last:
        record = TrainingRecord(
            recipe=job.recipe,
            data=job.data.name,
            fingerprint=job.data.fingerprint,
            initial_sha256=None if job.initial is None else job.initial.sha256,
            train_images=len(job.data.train.entries),
            validation_images=found.images,
            epoch=last.epoch,
            validation_loss=last.validation_loss,
            validation_top1=last.validation_top1,
            validation_top5=last.validation_top5,
        )
        transform = transform_at(job.recipe, last.epoch - 1)
        state = {key: _packed(value, job.recipe) for key, value in stored.state_dict().items()}
        job.files.write_weights(pack(state, model.architecture, job.data.classes, transform, record))
    job.files.write_log(history)
    tensors = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if scaler is not None:
        tensors["scaler"] = scaler.state_dict()
    job.files.write_state(TrainingState(job.settings, tuple(history), tensors))


def _packed(value: Tensor, recipe: Recipe) -> Tensor:
    return value.half() if recipe.storage == "fp16" and value.is_floating_point() else value


@contextmanager
def _arithmetic(recipe: Recipe) -> Iterator[None]:
    """Float32 as the recipe means it: TensorFloat-32, cuDNN's default, only where it was asked for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if recipe.precision == "fp32" else "high")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=recipe.precision != "fp32"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _not_finite(recipe: Recipe, where: str, done: int) -> str:
    advice = f"train anew (--restart) with a --learning-rate below {recipe.learning_rate:g}"
    if recipe.precision != "fp32":
        advice += " or in --precision fp32"
    kept = f"the best of the {done} epochs before is kept" if done else "no epoch was finished"
    return f"the loss is not finite in {where}: {advice}; {kept}"
