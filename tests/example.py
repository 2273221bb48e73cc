"""Make pictures and a small BagNet that knows them, so that bagindex can be tried without a data set.

    python tests/example.py FOLDER

writes FOLDER/pictures (three classes of drawings, in folders by class) and FOLDER/bagnet9.safetensors, a narrow
BagNet-9 with random convolutions, whose linear layer is fitted by ridge regression. No training, a few seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("ring", "cross", "stripes")
SIDE = 96
PER_CLASS = 16
WIDTH = 0.125


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """A drawing of the class on a noisy ground."""
    ground = rng.normal(128, 12, (SIDE, SIDE, 3)) + rng.uniform(-40, 40, 3)
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    x, y = (int(value) for value in rng.integers(28, SIDE - 28, 2))
    radius = int(rng.integers(14, 24))
    if name == "ring":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=4)
    elif name == "cross":
        pen.line((x - radius, y, x + radius, y), fill=colour, width=5)
        pen.line((x, y - radius, x, y + radius), fill=colour, width=5)
    else:
        for offset in range(-radius, radius + 1, 6):
            pen.line((x - radius, y + offset, x + radius, y + offset), fill=colour, width=2)
    return picture


def make_pictures(folder: Path, per_class: int = PER_CLASS, seed: int = 0) -> None:
    """Write `per_class` pictures of each class."""
    for number, name in enumerate(CLASSES):
        rng = np.random.default_rng([seed, number])
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            draw(name, rng).save(folder / name / f"{i:03d}.png")


def make_weights(path: Path, pictures: Path, architecture: str = "bagnet9", width: float = WIDTH) -> None:
    """Write a BagNet with random convolutions and a linear layer that fits `pictures`."""
    import torch
    from safetensors.torch import save_file

    from bagindex.images import read_picture
    from bagindex.model import BagNet
    from bagindex.registry import ARCHITECTURES
    from bagindex_schemas.records import Transform

    torch.manual_seed(0)
    transform = Transform(resize=SIDE, crop_height=SIDE, crop_width=SIDE)
    model = BagNet(ARCHITECTURES[architecture], len(CLASSES), width).eval()
    files = sorted(pictures.glob("*/*.png"))
    images = np.stack([read_picture(file.read_bytes(), transform).pixels for file in files])
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
        x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        features = model.features(x).mean(dim=(1, 2))
        centred = features - features.mean(0)
        targets = torch.nn.functional.one_hot(labels, len(CLASSES)).float() - 1 / len(CLASSES)
        gram = centred.T @ centred
        ridge = 1e-2 * gram.trace() / len(gram) * torch.eye(len(gram))
        weight = 10 * torch.linalg.solve(gram + ridge, centred.T @ targets).T
        model.fc.weight.copy_(weight)
        model.fc.bias.copy_(-(weight @ features.mean(0)))
    metadata = {"model": architecture, "classes": json.dumps(CLASSES), "resize": str(SIDE), "crop": str(SIDE)}
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path, metadata)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/example.py FOLDER")
    target = Path(sys.argv[1])
    make_pictures(target / "pictures")
    make_weights(target / "bagnet9.safetensors", target / "pictures")
    print(f"wrote {target}/pictures and {target}/bagnet9.safetensors")
