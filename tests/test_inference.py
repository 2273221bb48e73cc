"""The folded BagNet is the BagNet, in whichever way it is run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bagindex import inference
from bagindex.geometry import make_grid, patch_box
from bagindex.inference import CuDNN, FoldedBagNet, OneDNN, Plain, fastest
from bagindex.registry import ARCHITECTURES, STRIDE
from test_model import NAMES, SOME, procedural, procedural_model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [OneDNN, Plain])
def test_folding_changes_nothing(name: str, how: type[Plain]) -> None:
    model = procedural_model(name, 5, 0.25)
    x = procedural("input", (2, 3, 96, 120)) - 0.5
    with torch.inference_mode():
        expected = model.features(x)
        folded = FoldedBagNet(model).to(memory_format=torch.channels_last)
        found = folded(x.contiguous(memory_format=torch.channels_last), how)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With one, torch takes another convolution than oneDNN's for a model that is not fused."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", SOME)
def test_fused_functions_give_the_same_bits(name: str) -> None:
    model = FoldedBagNet(procedural_model(name, 5)).to(memory_format=torch.channels_last)
    x = (procedural("input", (2, 3, 96, 96)) - 0.5).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        results = [model(x, how) for how in (Plain, OneDNN)]
    assert torch.equal(*results)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [224, 101])
def test_what_no_patch_sees_changes_no_bit(name: str, size: int) -> None:
    model = FoldedBagNet(procedural_model(name, 5, width=0.5)).to(memory_format=torch.channels_last)
    x = (procedural("input", (1, 3, size, size)) - 0.5).contiguous(memory_format=torch.channels_last)
    grid = make_grid(ARCHITECTURES[name].receptive_field, STRIDE, size, size, ARCHITECTURES[name].offset)
    _, _, right, bottom = patch_box(grid, grid.rows - 1, grid.cols - 1)
    assert right < size or size == 101 or name in ("bagnet17v2", "bagnet33v2")
    with torch.inference_mode():
        whole, seen = model(x), model(x[:, :, :bottom, :right].contiguous(memory_format=torch.channels_last))
    assert torch.equal(whole, seen)


def test_the_model_itself_stays_as_it_is() -> None:
    model = procedural_model("bagnet9", 5, 0.25)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    FoldedBagNet(model).bfloat16()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.bn1 = nn.Identity()
    with pytest.raises(TypeError, match="batch norm"):
        FoldedBagNet(model)


class Wrong(Plain):
    """Is there, but gives something else."""

    @staticmethod
    def add_relu(conv: nn.Conv2d, x: Tensor, residual: Tensor) -> Tensor:
        return torch.relu_(conv(x))


class Failing(Plain):
    """Takes other arguments than it did."""

    @staticmethod
    def relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
        raise RuntimeError("expected at most 3 arguments")


@pytest.mark.parametrize("fused", [Wrong, Failing, CuDNN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_functions_that_do_not_work_are_not_taken(
    fused: type[Plain], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(inference._FUSED, "cpu", fused)
    assert fastest.__wrapped__("cpu", dtype) is Plain


def test_fused_functions_work_here() -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("torch without oneDNN")
    assert fastest("cpu", torch.float32) is OneDNN


def test_float32_is_shared_by_threads_that_ask_for_the_same() -> None:
    from threading import Thread

    from bagindex.arithmetic import float32

    seen: list[tuple[bool, bool]] = []

    def look(tf32: bool) -> None:
        for _ in range(200):
            with float32(tf32):
                seen.append((tf32, bool(torch.backends.cudnn.allow_tf32)))

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    threads = [Thread(target=look, args=(tf32,)) for tf32 in (False, True, False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 800
    assert all(asked == found for asked, found in seen)
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before
