"""Thrift's compact protocol, in which Parquet writes its footers and page headers, without a schema.

pyarrow cannot write a footer of row groups that it has not encoded itself, so `bagindex.array_file` takes a footer of
pyarrow's apart and puts it together for its own row groups. Field ids say what a field is, as in `parquet.thrift`;
what is not touched stays as it was, so that emitting what was parsed gives the same bytes.

Sets, maps and UUIDs do not occur in Parquet's metadata.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_DEEPEST = 32
"""Nesting beyond which bytes must be damaged; a footer has six levels."""
_LONGEST_VARINT = 10


class ThriftError(ValueError):
    """Bytes that are no struct in the compact protocol."""


class Type(IntEnum):
    """Types on the wire. A boolean field is its type; in a list each boolean is a byte, 1 or 2."""

    TRUE = 1
    FALSE = 2
    BYTE = 3
    I16 = 4
    I32 = 5
    I64 = 6
    DOUBLE = 7
    BINARY = 8
    LIST = 9
    STRUCT = 12


_BOOLEANS = {Type.TRUE: True, Type.FALSE: False}


@dataclass(frozen=True)
class List:
    """A list, all items of one type; as a struct may stand its bytes, already emitted."""

    element: Type
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Struct:
    """Fields by id, in the order of the bytes: the type, and a bool, int, float, bytes, `List` or `Struct`."""

    fields: Mapping[int, tuple[Type, Any]]

    def __contains__(self, field: int) -> bool:
        return field in self.fields

    def __getitem__(self, field: int) -> Any:
        return self.fields[field][1]

    def replaced(self, values: Mapping[int, Any]) -> Struct:
        """With other values, of the same types, in some of the fields that there are (not booleans).

        Raises:
            KeyError: there is no such field.
        """
        return Struct({**self.fields, **{field: (self.fields[field][0], value) for field, value in values.items()}})


class Reader:
    """Reads structs one after the other; `position` is where the next one begins."""

    def __init__(self, data: bytes) -> None:
        self.position = 0
        self._data = data
        self._depth = 0

    def struct(self) -> Struct:
        """The next struct.

        Raises:
            ThriftError: the bytes end within it, or are none.
        """
        fields: dict[int, tuple[Type, Any]] = {}
        field = 0
        while header := self._take(1)[0]:
            type_ = self._type(header & 15)
            field = field + (header >> 4) if header >> 4 else self._integer()
            if field in fields:
                raise self._error(f"field {field} twice")
            fields[field] = (type_, _BOOLEANS[type_] if type_ in _BOOLEANS else self._value(type_))
        return Struct(fields)

    def _value(self, type_: Type) -> Any:
        match type_:
            case Type.TRUE | Type.FALSE:
                return self._boolean()
            case Type.BYTE:
                return int.from_bytes(self._take(1), signed=True)
            case Type.DOUBLE:
                return struct.unpack("<d", self._take(8))[0]
            case Type.BINARY:
                return self._take(self._varint())
            case Type.LIST | Type.STRUCT:
                self._depth += 1
                if self._depth > _DEEPEST:
                    raise self._error("structs nested too deep")
                nested = self.struct() if type_ is Type.STRUCT else self._list()
                self._depth -= 1
                return nested
        return self._integer()

    def _list(self) -> List:
        header = self._take(1)[0]
        element = self._type(header & 15)
        count = header >> 4 if header >> 4 < 15 else self._varint()
        if count > len(self._data) - self.position:
            raise self._error(f"a list of {count} items that are not there")
        return List(element, tuple(self._value(element) for _ in range(count)))

    def _boolean(self) -> bool:
        type_ = self._type(self._take(1)[0])
        if type_ not in _BOOLEANS:
            raise self._error(f"{type_.name} instead of a boolean")
        return _BOOLEANS[type_]

    def _type(self, code: int) -> Type:
        try:
            return Type(code)
        except ValueError:
            raise self._error(f"type {code}, which Parquet does not use") from None

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for place in range(_LONGEST_VARINT):
            byte = self._take(1)[0]
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                return value
        raise self._error("a number without end")

    def _take(self, count: int) -> bytes:
        taken = self._data[self.position : self.position + count]
        if len(taken) < count:
            raise self._error("the end")
        self.position += count
        return taken

    def _error(self, found: str) -> ThriftError:
        return ThriftError(f"not Parquet metadata: {found} at byte {self.position} of {len(self._data)}")


def parse(data: bytes) -> Struct:
    """The struct that `data` holds.

    Raises:
        ThriftError: it holds none, or something follows.
    """
    reader = Reader(data)
    parsed = reader.struct()
    if reader.position != len(data):
        raise ThriftError(f"not Parquet metadata: {len(data) - reader.position} bytes too many")
    return parsed


def emit(tree: Struct) -> bytes:
    """The bytes of a struct: those that it was parsed from, where numbers and ids had their shortest form."""
    out = bytearray()
    _emit_struct(out, tree)
    return bytes(out)


def _emit_struct(out: bytearray, tree: Struct | bytes) -> None:
    if isinstance(tree, bytes):
        out += tree
        return
    last = 0
    for field, (type_, value) in tree.fields.items():
        if 0 < field - last < 16:
            out.append((field - last) << 4 | type_)
        else:
            out.append(type_)
            _emit_varint(out, _zigzag(field))
        last = field
        if type_ not in _BOOLEANS:
            _emit_value(out, type_, value)
    out.append(0)


def _emit_value(out: bytearray, type_: Type, value: Any) -> None:
    match type_:
        case Type.TRUE | Type.FALSE:
            out.append(Type.TRUE if value else Type.FALSE)
        case Type.BYTE:
            out += value.to_bytes(1, signed=True)
        case Type.DOUBLE:
            out += struct.pack("<d", value)
        case Type.BINARY:
            _emit_varint(out, len(value))
            out += value
        case Type.LIST:
            _emit_list(out, value)
        case Type.STRUCT:
            _emit_struct(out, value)
        case _:
            _emit_varint(out, _zigzag(value))


def _emit_list(out: bytearray, values: List) -> None:
    count = len(values.items)
    out.append(min(count, 15) << 4 | values.element)
    if count >= 15:
        _emit_varint(out, count)
    for item in values.items:
        _emit_value(out, values.element, item)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _emit_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
