"""What a recipe means at each moment of a training. Pure functions."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from bagindex.errors import SettingsError
from bagindex_schemas.records import Transform
from bagindex_schemas.training import Recipe

_DECADE_EPOCHS = 30
_PAPER = Recipe(
    name="paper",
    epochs=90,
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.01,
    schedule="step",
    warmup_epochs=0,
    weight_decay=1e-4,
    momentum=0.9,
    label_smoothing=0,
    crop_size=224,
    first_size=224,
    first_epochs=0,
    min_scale=0.08,
)
RECIPES = {"default": Recipe(), "paper": _PAPER}
"""`paper` is how the authors trained on ImageNet (appendix A.1: torchvision's script with a learning rate of 0.01)."""


def make_recipe(name: str, changes: dict[str, Any]) -> Recipe:
    """The recipe called `name`, some of its fields changed (None leaves a field as it is).

    The first phase takes three quarters of the epochs, unless that is said.

    Raises:
        SettingsError: no such recipe, or a value out of its range.
    """
    if name not in RECIPES:
        raise SettingsError(f"--recipe is one of {', '.join(RECIPES)}, not {name!r}")
    given = {field: value for field, value in changes.items() if value is not None}
    recipe = {**RECIPES[name].model_dump(), **given}
    if "first_epochs" not in given and recipe["first_epochs"]:
        recipe["first_epochs"] = recipe["epochs"] * 3 // 4
    if recipe["first_size"] >= recipe["crop_size"]:
        if "first_size" in given and recipe["first_size"] > recipe["crop_size"]:
            raise SettingsError("--first-size is for a smaller input than --crop-size")
        if given.get("first_epochs"):
            raise SettingsError("--first-epochs needs a --first-size that is smaller than --crop-size")
        recipe |= {"first_size": recipe["crop_size"], "first_epochs": 0}
    try:
        made = Recipe.model_validate(recipe)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{option} {first['input']}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    if made.first_epochs >= made.epochs and made.first_epochs:
        raise SettingsError(f"--first-epochs {made.first_epochs} leaves none of the {made.epochs} for the full input")
    return made


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate after `epoch` epochs, a fraction within one."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** (int(epoch) // _DECADE_EPOCHS)
    done = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def input_size(recipe: Recipe, epoch: int) -> int:
    """Side of the input in pixels in the epoch, counted from 0."""
    return recipe.first_size if epoch < recipe.first_epochs else recipe.crop_size


def transform_at(recipe: Recipe, epoch: int) -> Transform:
    """How validation pictures become inputs in the epoch, counted from 0; after the last, what the model is for."""
    size = input_size(recipe, epoch)
    return Transform(resize=round(size * 256 / 224), crop_height=size, crop_width=size)
