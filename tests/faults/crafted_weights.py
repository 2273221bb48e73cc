"""Files of weights that somebody made to do harm. Each function gets an empty folder, and a folder outside in which
code that is run shows itself; it gives the file.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bagindex.registry import ARCHITECTURES

Case = Callable[[Path, Path], Path]
_WIDTH = 0.0625
_CLASSES = 3


def read(path: Path) -> None:
    """What a build does with weights."""
    from bagindex.weights import read_checkpoint

    read_checkpoint(path).build()


def _state() -> dict[str, Any]:
    """A sound state dict of a very narrow BagNet-9."""
    import torch

    from bagindex.model import BagNet

    torch.manual_seed(0)
    return dict(BagNet(ARCHITECTURES["bagnet9"], _CLASSES, _WIDTH).state_dict())


class _Runs:
    """Unpickled without care, it calls something."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def _touch(outside: Path) -> str:
    return f"open({str(outside / 'ran')!r}, 'w').close()"


def _shell(outside: Path) -> _Runs:
    return _Runs(os.system, f"touch '{outside / 'ran'}'")


def _exec(outside: Path) -> _Runs:
    return _Runs(builtins.exec, _touch(outside))


def _nested(outside: Path) -> object:
    return OrderedDict(_state(), meta=[({"deep": (1, [_Runs(builtins.eval, _touch(outside))])},)])


def _in_a_key(outside: Path) -> object:
    return {**_state(), frozenset([_Runs(os.mkdir, str(outside / "ran"))]): 1}


def _pickled(content: Callable[[Path], object], name: str, zipped: bool, folder: Path, outside: Path) -> Path:
    import torch

    torch.save(content(outside), folder / name, _use_new_zipfile_serialization=zipped)
    return folder / name


def _bare_pickle(protocol: int, folder: Path, outside: Path) -> Path:
    path = folder / "w.pth"
    path.write_bytes(pickle.dumps({"state_dict": _exec(outside)}, protocol=protocol))
    return path


def _saved(change: Callable[[dict[str, Any]], object], folder: Path, _outside: Path) -> Path:
    """A state dict with a change, as torch saves it."""
    import torch

    state = _state()
    torch.save(change(state) or state, folder / "w.pth")
    return folder / "w.pth"


def _put(key: str, make: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[key] = make(state[key])

    return change


def _filled(value: float) -> Callable[[Any], Any]:
    return lambda tensor: tensor.clone().fill_(value)


def _expanded(*shape: int) -> Callable[[Any], Any]:
    """A tensor that claims a shape and has one number."""
    return lambda tensor: tensor.flatten()[:1].clone().as_strided(shape, [0] * len(shape))


def _bytes_of(count: int) -> object:
    return {"state_dict": _Runs(bytearray, count)}


def _tensor_of(count: int) -> object:
    import torch

    return {"state_dict": _Runs(torch.FloatStorage, count)}


def _zip_bomb(folder: Path, _outside: Path) -> Path:
    """An archive whose list of tensors unpacks to four gigabytes of zeros."""
    path = folder / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
        with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(4 * 64):
                member.write(bytes(2**24))
    return path


def _torchscript(folder: Path, outside: Path) -> Path:
    """As `torch.jit.save` lays it out: an archive with code."""
    path = folder / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps(_exec(outside), protocol=2))
        archive.writestr("w/constants.pkl", pickle.dumps(_exec(outside), protocol=2))
        archive.writestr("w/code/__torch__.py", _touch(outside))
        archive.writestr("w/version", "3\n")
    return path


def _exported(name: str, folder: Path, _outside: Path) -> Path:
    import torch

    class Twice(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return 2 * x

    path = folder / "w.pt2"
    torch.export.save(torch.export.export(Twice(), (torch.ones(2),)), path)
    return path.rename(folder / name)


def _safetensors(header: bytes, data: bytes, folder: Path, _outside: Path, length: int | None = None) -> Path:
    path = folder / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def _offsets(begin: int, end: int) -> bytes:
    entry = {"dtype": "F32", "shape": [3, 128], "data_offsets": [begin, end]}
    return json.dumps({"fc.weight": entry, "fc.bias": {**entry, "shape": [3], "data_offsets": [0, 12]}}).encode()


def _metadata(folder: Path, _outside: Path, **metadata: str) -> Path:
    from safetensors.torch import save_file

    path = folder / "w.safetensors"
    save_file({key: value.contiguous() for key, value in _state().items()}, path, metadata)
    return path


def _repeated_keys(folder: Path, _outside: Path) -> Path:
    one = b'"fc.weight": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}'
    return _safetensors(b"{" + one + b", " + one + b"}", bytes(12), folder, _outside)


def _sparse_header(folder: Path, outside: Path) -> Path:
    """A header of a gigabyte, as a file with a hole."""
    path = _safetensors(b'{"__metadata__": {"classes": "', b"", folder, outside, length=2**30)
    with path.open("r+b") as file:
        file.truncate(2**30 + 8)
    return path


def _wide(state: dict[str, Any]) -> None:
    import torch

    state["conv1.weight"] = torch.zeros(10**6, 3, 1, 1)


def _meta(tensor: Any) -> Any:
    return tensor.to("meta")


def _sparse(tensor: Any) -> Any:
    return tensor.to_sparse()


def _quantized(tensor: Any) -> Any:
    import torch

    return torch._empty_affine_quantized(tensor.shape, scale=1.0, zero_point=0, dtype=torch.qint8)


def _outside_storage(folder: Path, _outside: Path) -> Path:
    """A tensor that begins beyond its storage: a list of tensors that torch does not write."""
    import torch

    sound = io.BytesIO()
    torch.save({"fc.bias": torch.arange(3.0)}, sound)
    path = folder / "w.pth"
    with zipfile.ZipFile(sound) as archive, zipfile.ZipFile(path, "w") as crafted:
        for name in archive.namelist():
            data = archive.read(name)
            # BININT1 0 (the storage's offset) before the shape (3,) becomes BININT1 200.
            crafted.writestr(name, data.replace(b"QK\x00K\x03\x85", b"QK\xc8K\x03\x85") if ".pkl" in name else data)
    return path


_DEEP = 100_000
CASES: Mapping[str, Case] = {
    "os.system in .pth": partial(_pickled, _shell, "w.pth", True),
    "os.system in .pth.tar": partial(_pickled, _shell, "w.pth.tar", True),
    "os.system in .pt": partial(_pickled, _shell, "w.pt", True),
    "os.system in a .pth of old": partial(_pickled, _shell, "w.pth", False),
    "exec in .pth": partial(_pickled, _exec, "w.pth", True),
    "exec in a .pt of old": partial(_pickled, _exec, "w.pt", False),
    "eval deep in a state dict": partial(_pickled, _nested, "w.pth", True),
    "eval deep in a state dict of old": partial(_pickled, _nested, "w.pth.tar", False),
    "mkdir in a key": partial(_pickled, _in_a_key, "w.pth", True),
    "a bare pickle": partial(_bare_pickle, 2),
    "a bare pickle of protocol 5": partial(_bare_pickle, 5),
    "TorchScript": _torchscript,
    "torch.export": partial(_exported, "w.pt2"),
    "torch.export called .pt": partial(_exported, "w.pt"),
    "ten gigabytes of bytearray": lambda folder, _: _pickled(lambda _: _bytes_of(10**10), "w.pth", True, folder, _),
    "ten gigabytes of bytearray of old": lambda f, _: _pickled(lambda _: _bytes_of(10**10), "w.pth", False, f, _),
    "a storage of a terabyte": lambda folder, _: _pickled(lambda _: _tensor_of(2**38), "w.pth", True, folder, _),
    "a zip bomb": _zip_bomb,
    "a tensor beyond its storage": _outside_storage,
    "a billion classes from one number": partial(_saved, _put("fc.weight", _expanded(10**9, 128))),
    "a terabyte from one number": partial(_saved, _put("layer4.2.conv3.weight", _expanded(2**20, 2**20, 1, 1))),
    "a million channels": partial(_saved, _wide),
    "a shape with another axis": partial(_saved, _put("fc.bias", lambda tensor: tensor[None])),
    "a shape of no numbers": partial(_saved, _put("bn1.bias", lambda tensor: tensor[:0])),
    "not a number": partial(_saved, _put("bn1.bias", _filled(float("nan")))),
    "infinite": partial(_saved, _put("layer1.0.conv2.weight", _filled(float("inf")))),
    "a tensor without numbers": partial(_saved, _put("fc.bias", _meta)),
    "a sparse tensor": partial(_saved, _put("fc.bias", _sparse)),
    "a quantized tensor": partial(_saved, _put("fc.weight", _quantized)),
    "a header of 2^62 bytes": partial(_safetensors, b"{}", b"", length=2**62),
    "a header of a gigabyte": _sparse_header,
    "a header nested deep": partial(_safetensors, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b""),
    "offsets beyond the file": partial(_safetensors, _offsets(0, 1536), bytes(12)),
    "offsets beyond all": partial(_safetensors, _offsets(2**63, 2**64 - 1), bytes(12)),
    "offsets that overlap": partial(_safetensors, _offsets(0, 1536), bytes(1536)),
    "offsets below zero": partial(_safetensors, _offsets(-1536, 0), bytes(12)),
    "offsets that go back": partial(_safetensors, _offsets(1536, 0), bytes(1536)),
    "keys twice": _repeated_keys,
    "a million classes": partial(_metadata, classes=json.dumps([f"class {i}" for i in range(10**6)])),
    "classes nested deep": partial(_metadata, classes="[" * _DEEP + "]" * _DEEP),
    "a class that is NUL": partial(_metadata, classes='["a", "b", "\\u0000"]'),
    "a class that is no Unicode": partial(_metadata, classes='["a", "b", "\\ud800"]'),
    "a crop of 10^9 pixels": partial(_metadata, resize="1000000000", crop="1000000000"),
    "a crop of 60,000 pixels": partial(_metadata, resize="60000", crop="60000"),
    "a crop of 10,000 digits": partial(_metadata, resize="9" * 10_000, crop="9" * 10_000),
    "a crop below zero": partial(_metadata, resize="-5", crop="-5"),
}


def make(name: str, folder: Path, outside: Path) -> Path:
    """The file of a case."""
    return CASES[name](folder, outside)
