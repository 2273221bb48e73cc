"""A BagNet at work: in several threads, in several precisions, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bagindex import Index
from bagindex.compute import BagNetCompute, candidates, find_device
from bagindex.errors import SettingsError
from bagindex.observer import BuildObserver
from bagindex.prepare import ModelOptions, open_models
from bagindex.stages import in_order
from test_build import contents


@pytest.fixture
def bagnet(planted_folder: Path) -> BagNetCompute:
    return open_on("cpu", planted_folder)


def open_on(device: str, folder: Path) -> BagNetCompute:
    options = ModelOptions(device=device, batch_size=2)
    (found,) = open_models([], [str(folder / "bagnet33.safetensors")], options, BuildObserver())
    assert isinstance(found, BagNetCompute)
    return found


def pixels(count: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_do_not_depend_on_how_many_cores_there_are(
    threads: int, planted_folder: Path, planted_index: Index, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        index = Index.build(
            planted_folder / "pictures", weights=planted_folder / "bagnet33.safetensors", out=tmp_path / "i"
        )
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    (model,) = index.info().models
    assert model.record.environment.threads == 1
    assert contents(index.path) == contents(planted_index.path)


def test_a_pool_gives_what_one_thread_gives(bagnet: BagNetCompute) -> None:
    with bagnet.pool() as pool:
        together = list(in_order(pool, bagnet.run, pixels(6), 6))
    with bagnet.pool() as pool:
        apart = [pool.submit(bagnet.run, each).result() for each in pixels(6)]
    for one, other in zip(together, apart, strict=True):
        assert all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


def test_a_pool_leaves_torch_as_it_was(bagnet: BagNetCompute) -> None:
    before = torch.get_num_threads()
    found: list[int] = []
    with bagnet.pool() as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == before
    import threading

    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [before]


def test_precisions(bagnet: BagNetCompute) -> None:
    assert bagnet.at("fp32") is bagnet
    lower = bagnet.at("bf16")
    assert (bagnet.environment.precision, lower.environment.precision) == ("fp32", "bf16")
    assert lower.at("bf16") is lower
    (batch,) = pixels(1)
    exact, found, again = bagnet.run(batch), lower.run(batch), lower.at("fp32").run(batch)
    error = np.linalg.norm(exact.features.astype(float) - found.features) / np.linalg.norm(exact.features.astype(float))
    assert 1e-4 < error < 0.03
    np.testing.assert_array_equal(exact.evidence, again.evidence)
    # The linear layer is in float32: with these features, on this device.
    with torch.inference_mode():
        weight, bias = bagnet._linear.weight.numpy(), bagnet._linear.bias.numpy()
    expected = found.features.astype(np.float32) @ weight.T + bias
    np.testing.assert_allclose(found.evidence, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    with pytest.raises(SettingsError, match="tf32 is for GPUs"):
        bagnet.at("tf32")


def test_candidates_are_what_the_processor_has_units_for(monkeypatch: pytest.MonkeyPatch) -> None:
    place = find_device("cpu")
    for has, expected in (({}, ()), ({"avx512_bf16": True}, ("bf16",)), ({"amx_fp16": True}, ("fp16",))):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has, raising=False)
        assert candidates(place) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert candidates(place) == ()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("tf32", 0.01), ("fp16", 0.01), ("bf16", 0.03)])
def test_a_gpu_gives_what_the_cpu_gives(
    precision: str, most: float, planted_folder: Path, bagnet: BagNetCompute
) -> None:
    there = open_on("cuda", planted_folder).at(precision)  # type: ignore[arg-type]
    with there.pool() as pool:
        found = list(in_order(pool, there.run, pixels(6), 4))
    for batch, other in zip(pixels(6), found, strict=True):
        exact = bagnet.run(batch)
        error = np.linalg.norm(exact.evidence.astype(float) - other.evidence) / np.linalg.norm(
            exact.evidence.astype(float)
        )
        assert error < most


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "auto", "bf16"])
def test_a_build_on_a_gpu_is_sound(precision: str, planted_folder: Path, tmp_path: Path) -> None:
    with Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        device="cuda",
        precision=precision,
        out=tmp_path / "i",
    ) as index:
        assert index.verify().ok
