"""Networks to compare BagNets with: torchvision's and timm's by name, and weights of one's own.

torchvision's weights are its first ones (IMAGENET1K_V1), which are those of the paper's time, and come the way in which
BagNets' do; see `bagindex.official`. Files are read by the readers that run no code; see `bagindex.weights`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bagindex import official
from bagindex.arithmetic import float32
from bagindex.download import Progress
from bagindex.errors import SettingsError, WeightsError
from bagindex.fetching import Note
from bagindex.labels import imagenet_classes, match_classes
from bagindex.model import BagNet
from bagindex.models.bags import Folded, Own
from bagindex.models.from_timm import library
from bagindex.prepare import choose_classes
from bagindex.registry import ARCHITECTURES, NETWORKS, Published, published
from bagindex.store import IndexDirectory, file_sha256
from bagindex.text import did_you_mean, first_line, near
from bagindex.weights import fill, has_stem, named_classes, read_checkpoint, read_state, state_sha256
from bagindex_schemas.records import ClassRecord, ModelRecord, Plan, Transform

RANDOM = "random:"
TIMM = "timm:"
MEAN, STD = Transform.model_fields["mean"].default, Transform.model_fields["std"].default
"""What networks for ImageNet subtract and divide by, unless they say otherwise."""
# They scale their input themselves, in one way with published weights and in another without.
_ODD_INPUT = frozenset({"googlenet", "inception_v3"})


@dataclass(frozen=True, eq=False)
class Network:
    """A network that gives each image a logit for each class of the index.

    Attributes:
        name: what figures and tables call it.
        module: for inference, on a CPU: float32 [N, 3, H, W], normalised -> logits [N, its own classes].
        places: of the index's classes among its own, [C].
        sha256: of its weights.
        origin: what it is and whose weights it has, for people.
        published: whether they are the weights that the paper's figures are about, where it has any.
        mean, std: what its input is normalised by (RGB, of values in [0, 1]).
    """

    name: str
    module: nn.Module
    places: tuple[int, ...]
    sha256: str
    origin: str
    published: bool
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def normalise(self, pixels: Tensor) -> Tensor:
        """Inputs before normalisation, [N, H, W, RGB] from 0 to 255 -> float32 [N, 3, H, W], on the same device;
        gradients of float inputs go through.
        """
        mean, std = (pixels.new_tensor(each, dtype=torch.float32).view(1, 3, 1, 1) for each in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of normalised inputs, float32 [N, 3, H, W] -> [N, C], in the order of the index's classes. The
        inputs are on the module's device.

        Raises:
            SettingsError: it does not take inputs of that size.
        """
        try:
            with float32():
                found: Tensor = self.module(inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = inputs.shape[2:]
            raise SettingsError(
                f"{self.name} cannot take inputs of {width} × {height} pixels: {first_line(error)}"
            ) from None
        return found[:, list(self.places)]


@dataclass(frozen=True)
class NetworkOptions:
    """How networks are opened.

    Attributes:
        classes: the index's.
        class_list: a class list's file, or `imagenet`, for weights that name no classes.
        progress: hears of a download: of which network, how many bytes, of how many.
        note: hears what a person should know.
    """

    classes: Sequence[ClassRecord]
    class_list: str | None = None
    progress: Callable[[str, int, int | None], None] = lambda _name, _done, _total: None
    note: Note = lambda _text: None

    def places(self, classes: Sequence[ClassRecord], whose: str) -> tuple[int, ...]:
        """Of the index's classes among a network's."""
        return match_classes(classes, self.classes, whose)

    def fetching(self, name: str) -> Progress:
        """What hears of one network's download."""
        return lambda done, total: self.progress(name, done, total)


def open_networks(asked: Sequence[str], options: NetworkOptions) -> tuple[Network, ...]:
    """Open several networks; see `open_network`.

    Raises:
        SettingsError: two have one name.
    """
    names = [network_name(each) for each in asked]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"two networks are called {twice.pop()!r}: compare with one of them at a time")
    return tuple(open_network(each, options) for each in asked)


def network_name(asked: str) -> str:
    """What figures call a network that is asked for: `vgg16` of `vgg16=FILE` and `random:vgg16`."""
    return asked.partition("=")[0].removeprefix(RANDOM).removeprefix(TIMM)


def open_network(asked: str, options: NetworkOptions) -> Network:
    """Open a network.

    Args:
        asked: `NAME`, a network of torchvision's with its published weights, or a BagNet with its authors';
            `NAME=FILE`, with weights of a file, which says what network it is of where NAME is none that is known;
            `timm:NAME` and `timm:NAME=FILE`, likewise of timm's; `random:NAME`, with random weights, the same each
            time.
        options: how.

    Raises:
        SettingsError: there is no such network, or what has it is not installed.
        WeightsError: its weights cannot be fetched, read, or are another network's. The text says what to bring.
        LabelError: its classes are not the index's, or nothing names them.
    """
    name, given, file = asked.partition("=")
    if not re.fullmatch(r"(random:|timm:)?[\w.-]+", name) or (given and not file):
        raise SettingsError(
            "--against takes NAME, NAME=FILE, timm:NAME, timm:NAME=FILE or random:NAME, with commas between, not "
            f"{asked!r}"
        )
    if name.startswith(RANDOM):
        return _random(name.removeprefix(RANDOM), options)
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), Path(file) if file else None, options)
    if file and not _is_known(name):
        return replace(_known(_stated(name, Path(file)), Path(file), options), name=name)
    return _known(name, Path(file) if file else None, options)


def _known(name: str, file: Path | None, options: NetworkOptions) -> Network:
    return (_bagnet if name in ARCHITECTURES else _torchvision)(name, file, options)


def _is_known(name: str) -> bool:
    try:
        return name in ARCHITECTURES or bool(_models(name))
    except SettingsError:
        return False


def _stated(called: str, file: Path) -> str:
    """What network a file's weights are of.

    Raises:
        SettingsError: it does not say so, and is no BagNet's.
    """
    if not file.is_file():
        raise WeightsError(f"no weights at {file}: say where they are, as in {called}=FILE")
    state, metadata = read_state(file)
    if "model" in metadata:
        return metadata["model"]
    if has_stem(state):
        return read_checkpoint(file).architecture.name
    raise SettingsError(
        f"{file.name} does not say what network it is of: give NAME=FILE with the network's name instead of {called}, "
        "or name it in the file's metadata, as `model`"
    )


def _bagnet(name: str, file: Path | None, options: NetworkOptions) -> Network:
    official_file = file is None or (file.is_file() and official.is_official(file))
    if file is None:
        options.places(imagenet_classes(), f"{name}, as its authors trained it,")
        file = official.fetch(name, progress=options.fetching(name), note=options.note)
    checkpoint = read_checkpoint(file, name)
    asked = options.class_list or ("imagenet" if official_file and checkpoint.classes is None else None)
    classes = choose_classes(asked, checkpoint.classes, checkpoint.class_count, file)
    transform = checkpoint.transform or Transform(resize=256, crop_height=224, crop_width=224)
    return Network(
        name,
        Folded(checkpoint.build()),
        options.places(classes, file.name),
        checkpoint.sha256,
        f"{name} with {'its authors’ weights' if official_file else f'the weights of {file.name}'}",
        official_file,
        transform.mean,
        transform.std,
    )


def stored_network(directory: IndexDirectory, record: ModelRecord, plan: Plan) -> Network:
    """A model of an index, from the weights that the index keeps.

    Raises:
        WeightsError: they cannot be read.
        SettingsError: what runs a model that is no BagNet is not known here.
    """
    if record.plugin is not None:
        from bagindex.models.weights import stored_model

        model, _ = stored_model(directory, record)
        return Network(
            record.name,
            Own(model),
            tuple(range(len(plan.classes))),
            record.weights_sha256,
            f"{record.name} of the index",
            False,
            plan.transform.mean,
            plan.transform.std,
        )
    checkpoint = read_checkpoint(directory.weights_path(record), record.architecture)
    return Network(
        record.name,
        Folded(checkpoint.build()),
        tuple(range(len(plan.classes))),
        checkpoint.sha256,
        f"{record.name} of the index",
        any(record.weights_sha256.startswith(each.sha256_start) for each in published().values()),
        plan.transform.mean,
        plan.transform.std,
    )


def _torchvision(name: str, file: Path | None, options: NetworkOptions) -> Network:
    found = _published(name)
    if file is None:
        if found is None:
            raise SettingsError(f"torchvision has no first weights (IMAGENET1K_V1) of {name}: give {name}=FILE")
        options.places(imagenet_classes(), f"{name} with torchvision's weights")
        file = official.fetch(found[0], progress=options.fetching(name), note=options.note)
    how = (None, MEAN, STD) if found is None else (found[0], tuple(found[1].mean), tuple(found[1].std))
    return _from_file(name, file, lambda count: network_module(name, count), options, *how)


def _from_file(
    name: str,
    file: Path,
    make: Callable[[int], nn.Module],
    options: NetworkOptions,
    known: Published | None = None,
    mean: tuple[float, float, float] = MEAN,
    std: tuple[float, float, float] = STD,
) -> Network:
    """A network with weights of a file, whose last layer says how many classes there are."""
    if not file.is_file():
        raise WeightsError(f"no weights at {file}: say where they are, as in {name}=FILE")
    state, metadata = read_state(file)
    with torch.device("meta"):
        last = _last_layer(make(2))
        linear = state.get(f"{last}.weight")
        if linear is None or not linear.ndim or not linear.shape[0]:
            raise WeightsError(f"{file.name} is no {name}: {last}.weight is missing")
        module = make(linear.shape[0])
    sha256 = file_sha256(file)
    is_published = known is not None and sha256.startswith(known.sha256_start)
    asked = options.class_list
    if asked is None and "classes" not in metadata and is_published:
        asked = "imagenet"
    classes = choose_classes(asked, named_classes(metadata, linear.shape[0], file.name), linear.shape[0], file)
    places = options.places(classes, file.name)
    fill(module, _today(state), name, linear.shape[0])
    origin = "torchvision's weights (IMAGENET1K_V1)" if is_published else f"the weights of {file.name}"
    return Network(name, module, places, sha256, f"{name} with {origin}", is_published, mean, std)


def _random(name: str, options: NetworkOptions) -> Network:
    count = len(options.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = network_module(name, count).eval()
    if isinstance(module, BagNet):
        module = Folded(module)
    digest = hashlib.sha256(f"{name} {count} {torch.__version__}".encode()).hexdigest()
    return Network(name, module, tuple(range(count)), digest, f"{name} with random weights", False)


def _timm(name: str, file: Path | None, options: NetworkOptions) -> Network:
    timm = library(name)
    if file is not None:
        with torch.device("meta"):
            settings: Any = timm.create_model(name).pretrained_cfg
        how = tuple(settings["mean"]), tuple(settings["std"])
        return _from_file(
            name, file, lambda count: _module(timm.create_model(name, num_classes=count)), options, None, *how
        )
    try:
        module = _module(timm.create_model(name, pretrained=True)).eval()
    except Exception as error:  # its hub's client raises whatever its network does
        raise WeightsError(
            f"timm cannot fetch the weights of {name}: {first_line(error)}; bring its state dict as a file, and give "
            f"timm:{name}=FILE"
        ) from None
    settings = module.pretrained_cfg
    count = int(settings["num_classes"])
    own = imagenet_classes() if count == len(imagenet_classes()) else None
    classes = choose_classes(options.class_list, own, count, Path(f"timm:{name}"))
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    places, origin = options.places(classes, f"timm's {name}"), f"{name} with timm's weights"
    return Network(name, module, places, state_sha256(module.state_dict()), origin, False, mean, std)


def network_module(name: str, classes: int) -> nn.Module:
    """A BagNet, or a classification network of torchvision's, with fresh weights.

    Raises:
        SettingsError: there is none of that name, or torchvision is not installed.
    """
    if name in ARCHITECTURES:
        return BagNet(ARCHITECTURES[name], classes)
    return _module(_models(name).get_model(name, num_classes=classes))


def _published(name: str) -> tuple[Published, Any] | None:
    """torchvision's first weights of a network, and its transform for them; None where there are none."""
    weights = getattr(_models(name).get_model_weights(name), "IMAGENET1K_V1", None)
    if weights is None:
        return None
    folder, _, file = weights.url.rpartition("/")
    return Published(name, file, folder), weights.transforms()


def _models(name: str) -> ModuleType:
    """torchvision's networks, `name` among them.

    Raises:
        SettingsError: it is not, or torchvision is not installed.
    """
    _import("torchvision")
    from torchvision import models

    known = [each for each in models.list_models(module=models) if each not in _ODD_INPUT]
    if name not in known:
        hint = did_you_mean(near(name, [*ARCHITECTURES, *known])) or (
            f"the paper's are {', '.join(NETWORKS)}; there are {', '.join(ARCHITECTURES)}, {len(known)} of "
            "torchvision's, and timm:NAME"
        )
        raise SettingsError(f"there is no network {name!r} to compare with: {hint}")
    found: ModuleType = models
    return found


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise SettingsError(f"a network of {name}'s needs {name}: pip install 'bagindex[reproduce]'") from None


def _module(made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"expected a network, not {type(made).__name__}")
    return made


def _last_layer(module: nn.Module) -> str:
    """The name of the layer that gives the logits: the last that has weights."""
    names: list[str] = [name for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    return names[-1]


def _today(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's first DenseNets are stored under the names of an old torch, `denselayer1.norm.1.weight`."""
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])")
    return {old.sub(r"\1\2", key): tensor for key, tensor in state.items()}
