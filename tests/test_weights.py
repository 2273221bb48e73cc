"""Checkpoints: what is read, what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bagindex.errors import WeightsError
from bagindex.model import BagNet
from bagindex.registry import ARCHITECTURES
from bagindex.store import file_sha256
from bagindex.weights import read_checkpoint, to_safetensors
from bagindex_schemas.records import ClassRecord, Transform

CLASSES = ("tench", "eel", "caf\u00e9")
RECORDS = tuple(ClassRecord(class_id=i, name=name) for i, name in enumerate(CLASSES))
WIDTH = 0.0625
State = dict[str, Tensor]


def narrow(name: str = "bagnet9") -> BagNet:
    torch.manual_seed(0)
    return BagNet(ARCHITECTURES[name], len(CLASSES), WIDTH).eval()


def save(state: State, path: Path, **metadata: str) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata or None)
    return path


def assert_same_function(found: BagNet, expected: BagNet, atol: float = 0) -> None:
    x = torch.rand((1, 3, 40, 48), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(found(x), expected(x), rtol=0, atol=atol)


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_safetensors(tmp_path: Path, name: str) -> None:
    model = narrow(name)
    path = save(model.state_dict(), tmp_path / "w.safetensors")
    checkpoint = read_checkpoint(path, name)
    assert (checkpoint.architecture, checkpoint.class_count, checkpoint.width) == (ARCHITECTURES[name], 3, WIDTH)
    assert (checkpoint.classes, checkpoint.transform) == (None, None)
    assert checkpoint.sha256 == file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_same_function(checkpoint.build(), model)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".pth.tar"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="plain"),
        pytest.param(lambda state: {"epoch": 3, "arch": "bagnet9", "state_dict": state}, id="in a training state"),
        pytest.param(
            lambda state: {"state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items())},
            id="DataParallel",
        ),
        pytest.param(without_counters, id="of an old torch"),
        pytest.param(
            lambda state: {k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in state.items()},
            id="parameters",
        ),
    ],
)
def test_torch_files(tmp_path: Path, ending: str, zipped: bool, wrap: Callable[[State], object]) -> None:
    model = narrow()
    path = tmp_path / f"w{ending}"
    torch.save(wrap(model.state_dict()), path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert_same_function(checkpoint.build(), model)
    stored = tmp_path / "stored.safetensors"
    stored.write_bytes(to_safetensors(checkpoint, RECORDS, Transform(resize=9, crop_height=9, crop_width=9)))
    assert_same_function(read_checkpoint(stored).build(), model)


def test_float16_weights(tmp_path: Path) -> None:
    model = narrow()
    halved = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    checkpoint = read_checkpoint(save(halved, tmp_path / "w.safetensors"))
    assert checkpoint.state["fc.weight"].dtype is torch.float16
    built = checkpoint.build()
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    assert_same_function(built, model, atol=1e-2)
    torch.testing.assert_close(built.fc.weight, model.fc.weight.half().float(), rtol=0, atol=0)


@pytest.mark.parametrize(("crop", "height", "width"), [("224", 224, 224), ("160x224", 160, 224)])
def test_metadata(tmp_path: Path, crop: str, height: int, width: int) -> None:
    path = save(
        narrow().state_dict(),
        tmp_path / "w.safetensors",
        model="bagnet9",
        classes=json.dumps(CLASSES),
        resize="256",
        crop=crop,
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.transform == Transform(resize=256, crop_height=height, crop_width=width)
    assert checkpoint.classes == RECORDS


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"classes": '["a", "b"]'}, "has 3 logits, but its metadata names 2 classes"),
        ({"classes": '["a", "b", "a"]'}, "names a class twice: 'a'"),
        ({"classes": '["a", "b", ""]'}, "a class without a name"),
        ({"classes": '["a", "b", 3]'}, "is no list of names"),
        ({"classes": '{"a": 0, "b": 1, "c": 2}'}, "is no list of names"),
        ({"classes": '"abc"'}, "is no list of names"),
        ({"classes": "a,b,c"}, "is no list of names"),
        ({"resize": "256"}, "`resize` and `crop` metadata are not both numbers of pixels"),
        ({"crop": "224"}, "`resize` and `crop` metadata are not both numbers of pixels"),
        ({"resize": "256", "crop": "3x224x224"}, "`resize` and `crop` metadata are not both numbers of pixels"),
        ({"resize": "256", "crop": "0"}, "`resize` and `crop` metadata are not both numbers of pixels"),
        ({"resize": "1.5", "crop": "224"}, "`resize` and `crop` metadata are not both numbers of pixels"),
        ({"model": "bagnet33"}, "the file's metadata says bagnet33, but the weights are those of a bagnet9"),
    ],
)
def test_bad_metadata(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(save(narrow().state_dict(), tmp_path / "w.safetensors", **metadata))


def test_another_model_is_asked_for(tmp_path: Path) -> None:
    path = save(narrow("bagnet17").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="--model says bagnet33, but the weights are those of a bagnet17"):
        read_checkpoint(path, "bagnet33")


def bad(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(tensor: Tensor) -> Tensor:
        spoiled = tensor.clone()
        spoiled.view(-1)[-1] = value
        return spoiled

    return spoil


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("fc.bias", None, "no bagnet9: fc.bias is missing"),
        ("layer3.5.bn3.running_var", None, "no bagnet9: layer3.5.bn3.running_var is missing"),
        ("fc.weight", None, "holds no BagNet: fc.weight or conv1.weight is missing"),
        ("layer2.0.conv2.weight", None, r"no BagNet that bagindex knows \(bagnet9, bagnet17, "),
        ("fc.weight", lambda t: t[None], "holds no BagNet"),
        ("fc.weight", lambda t: t[:0], "holds no BagNet"),
        ("layer1.0.conv2.weight", lambda t: t.sum(), "no BagNet that bagindex knows"),
        (
            "layer4.2.conv3.weight",
            lambda t: t[:, :, 0],
            r"layer4.2.conv3.weight has shape \[128, 32, 1\], but a bagnet9",
        ),
        ("fc.bias", lambda t: t[:2], r"fc.bias has shape \[2\], but a bagnet9 with 3 classes has \[3\] there"),
        ("conv1.weight", lambda t: torch.cat([t, t]), r"has shape \[4.*\], but a bagnet9 .* has \[8.*\] there"),
        ("bn1.running_mean", bad(float("nan")), "bn1.running_mean holds values that are not finite"),
        ("fc.weight", bad(float("-inf")), "fc.weight holds values that are not finite"),
        ("fc.bias", lambda t: bad(1e39)(t.double()), "fc.bias holds values that are not finite"),
        ("fc.bias", lambda t: t.to(torch.int8), r"fc.bias holds torch.int8 values: give the weights in floating point"),
        ("fc.bias", lambda t: t.to(torch.complex64), r"fc.bias holds torch.complex64 values"),
        ("scale", lambda _: torch.ones(3), "no bagnet9: scale has no place in it"),
    ],
)
def test_bad_tensors(tmp_path: Path, key: str, change: Callable[[Tensor], Tensor] | None, message: str) -> None:
    state = dict(narrow().state_dict())
    if change is None:
        del state[key]
    else:
        state[key] = change(state.get(key, torch.zeros(1)))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(save(state, tmp_path / "w.safetensors")).build()


class MakesFolder:
    """Unpickled without care, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    folder, path = tmp_path / "made", tmp_path / "w.pth.tar"
    pickle.loads(pickle.dumps(MakesFolder(folder)))
    folder.rmdir()  # it is dangerous indeed
    harmful = {"state_dict": narrow().state_dict(), "optimizer": MakesFolder(folder)}
    torch.save(harmful, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="loading it could run any code: it is refused"):
        read_checkpoint(path)
    assert not folder.exists()
    path.write_bytes(pickle.dumps(MakesFolder(folder), protocol=2))
    with pytest.raises(WeightsError, match="loading it could run any code"):
        read_checkpoint(path)
    assert not folder.exists()


@pytest.mark.parametrize("content", [{}, [torch.zeros(3)], {"a": 3}, torch.zeros(3), {"state_dict": {}}])
def test_torch_files_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "w.pth")


def test_another_kind_of_model(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 4), "conv1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no BagNet that bagindex knows"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"<!DOCTYPE html><html>", "is no torch checkpoint: download or save it again"),
        ("w.pth", b"garbage" * 100, "is no torch checkpoint: download or save it again"),
        ("w.pth", b"", "is no torch checkpoint: download or save it again"),
        ("w.pth", b"PK\x03\x04" + bytes(100), "is not a readable checkpoint, or cut short"),
        ("w.safetensors", b"", "is not a readable safetensors file"),
        ("w.safetensors", b"garbage" * 100, "is not a readable safetensors file"),
        ("w.safetensors", b"\x02" + bytes(7) + b"{}", "no BagNet"),
        ("w.bin", b"", "w.bin: weights end in .safetensors, .pth, .pt, .pth.tar or .h5"),
        ("w.tar", b"", "w.tar: weights end in .safetensors, .pth, .pt, .pth.tar or .h5"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_cut_short(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "w.pth":
        torch.save(narrow().state_dict(), path)
    else:
        save(narrow().state_dict(), path)
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 12):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"w\.\w+ is "):
            read_checkpoint(path)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    for name in ("nowhere.pth", "folder.pth"):
        with pytest.raises(WeightsError, match=rf"no weights at .*{name}: give --weights FILE"):
            read_checkpoint(tmp_path / name)


def test_stored_weights_are_the_same_in_every_process(tmp_path: Path) -> None:
    model = narrow()
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path)
    program = (
        "import sys; from pathlib import Path; from bagindex.weights import read_checkpoint, to_safetensors; "
        "from bagindex_schemas.records import ClassRecord, Transform; "
        f"classes = tuple(ClassRecord(class_id=i, name=name) for i, name in enumerate({CLASSES!r})); "
        "transform = Transform(resize=256, crop_height=160, crop_width=224); "
        "sys.stdout.buffer.write(to_safetensors(read_checkpoint(Path(sys.argv[1])), classes, transform))"
    )
    stored = [
        subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True, env=env).stdout
        for env in ({**os.environ, "PYTHONHASHSEED": "1"}, {**os.environ, "PYTHONHASHSEED": "2"})
    ]
    assert stored[0] == stored[1]

    (tmp_path / "stored.safetensors").write_bytes(stored[0])
    again = read_checkpoint(tmp_path / "stored.safetensors", "bagnet9")
    assert again.classes == RECORDS
    assert again.transform == Transform(resize=256, crop_height=160, crop_width=224)
    assert_same_function(again.build(), model)
