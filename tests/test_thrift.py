"""The compact protocol: what is parsed comes back byte by byte, and damage is noticed or harmless."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagindex import thrift
from bagindex.thrift import List, Struct, ThriftError, Type

LEAVES: dict[Type, st.SearchStrategy[Any]] = {
    Type.BYTE: st.integers(-(2**7), 2**7 - 1),
    Type.I16: st.integers(-(2**15), 2**15 - 1),
    Type.I32: st.integers(-(2**31), 2**31 - 1),
    Type.I64: st.integers(-(2**63), 2**63 - 1),
    Type.DOUBLE: st.floats(allow_nan=False),
    Type.BINARY: st.binary(max_size=200),
}
IDS = st.integers(-(2**15), 2**15 - 1)


def structs_of(fields: st.SearchStrategy[tuple[Type, Any]]) -> st.SearchStrategy[Struct]:
    return st.lists(st.tuples(IDS, fields), unique_by=lambda pair: pair[0], max_size=6).map(lambda x: Struct(dict(x)))


def lists_of(element: Type, items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Type, Any]]:
    return st.lists(items, max_size=20).map(lambda values: (Type.LIST, List(element, tuple(values))))


SCALARS = st.one_of(
    st.sampled_from([(Type.TRUE, True), (Type.FALSE, False)]),
    lists_of(Type.TRUE, st.booleans()),
    lists_of(Type.FALSE, st.booleans()),
    *[values.map(lambda value, type_=type_: (type_, value)) for type_, values in LEAVES.items()],
    *[lists_of(type_, values) for type_, values in LEAVES.items()],
)
TREES = structs_of(
    st.recursive(
        SCALARS,
        lambda fields: st.one_of(
            structs_of(fields).map(lambda tree: (Type.STRUCT, tree)), lists_of(Type.STRUCT, structs_of(fields))
        ),
        max_leaves=8,
    )
)


def footers() -> list[bytes]:
    table = pa.table({"a": range(40), "b": ["x", None] * 20, "c": [[1.5], []] * 20, "d": [{"e": True}] * 40})
    footers = []
    for options in ({}, {"write_page_index": True, "compression": "zstd"}, {"data_page_version": "2.0"}):
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=20, **options)
        file = sink.getvalue()
        footers.append(file[-8 - int.from_bytes(file[-8:-4], "little") : -8])
    return footers


FOOTERS = footers()


@given(TREES)
def test_trees_come_back(tree: Struct) -> None:
    data = thrift.emit(tree)
    parsed = thrift.parse(data)
    assert parsed == tree
    assert list(parsed.fields) == list(tree.fields)
    assert thrift.emit(parsed) == data


@pytest.mark.parametrize("footer", FOOTERS)
def test_footers_of_pyarrow_come_back(footer: bytes) -> None:
    tree = thrift.parse(footer)
    assert thrift.emit(tree) == footer
    assert tree[3] == 40
    assert [group[3] for group in tree[4].items] == [20] * 2


def test_known_bytes() -> None:
    """Written out by hand from the protocol's description."""
    numbers = List(Type.I64, (150,))
    tree = Struct({1: (Type.I32, -1), 2: (Type.TRUE, True), 20: (Type.BINARY, b"ab"), 21: (Type.LIST, numbers)})
    assert thrift.emit(tree) == bytes([0x15, 1, 0x11, 0x08, 40, 2, 97, 98, 0x19, 0x16, 0xAC, 0x02, 0])


def test_replaced_fields_keep_their_types() -> None:
    tree = Struct({1: (Type.I32, 1), 2: (Type.STRUCT, Struct({}))})
    assert tree.replaced({1: 5}).fields == {1: (Type.I32, 5), 2: (Type.STRUCT, Struct({}))}
    assert tree[1] == 1
    assert 3 not in tree
    with pytest.raises(KeyError):
        tree.replaced({3: 1})


def test_a_struct_may_stand_as_its_bytes() -> None:
    inner = Struct({1: (Type.I32, 1)})
    as_trees, as_bytes = (Struct({1: (Type.LIST, List(Type.STRUCT, (item,)))}) for item in (inner, thrift.emit(inner)))
    assert thrift.emit(as_trees) == thrift.emit(as_bytes)


@pytest.mark.parametrize("footer", FOOTERS)
def test_every_short_footer_is_noticed(footer: bytes) -> None:
    for end in range(len(footer)):
        with pytest.raises(ThriftError, match="not Parquet metadata"):
            thrift.parse(footer[:end])
    with pytest.raises(ThriftError, match="1 bytes too many"):
        thrift.parse(footer + b"\0")


@given(st.integers(0, len(FOOTERS[0]) - 1), st.integers(0, 255))
def test_damaged_footers_are_other_trees_or_errors(place: int, byte: int) -> None:
    damaged = FOOTERS[0][:place] + bytes([byte]) + FOOTERS[0][place + 1 :]
    with contextlib.suppress(ThriftError):
        thrift.emit(thrift.parse(damaged))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1b\x00\x00", "type 11"),
        (b"\x15\x02\x05\x02\x02\x00", "field 1 twice"),
        (b"\x15" + b"\xff" * 20, "a number without end"),
        (b"\x1c" * 1000, "nested too deep"),
        (b"\x19" * 1000, "nested too deep"),
        (b"\x19\xf5\xff\xff\xff\x0f\x00", "a list of 33554431 items"),
        (b"\x19\x11\x03\x00", "BYTE instead of a boolean"),
        (b"", "the end at byte 0 of 0"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ThriftError, match=message):
        thrift.parse(data)
