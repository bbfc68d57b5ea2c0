"""The values of Arrow's columns as Python's, whatever bytes stand where texts should."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

#: What Arrow raises for a value that Python cannot hold; ArrowInvalid and UnicodeDecodeError are ValueErrors.
_NOT_HELD = (OverflowError, ValueError, NotImplementedError)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts. **Pure.**"""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists. **Pure.**"""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_many(kind: pa.DataType) -> bool:
    """Return whether a value of this type is several, or bytes: lists, structs, maps, tensors. **Pure.**"""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    types = pa.types
    is_binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    is_bytes = is_binary or types.is_fixed_size_binary(kind)
    return bool(is_bytes or (types.is_nested(kind) and not types.is_union(kind)))


def texts(column: pa.Array) -> list[str | None]:
    """Return a column's texts; bytes that are not UTF-8, which Arrow does not check, become surrogates (PEP 383)."""
    values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [None if each is None else each.decode("utf-8", "surrogateescape") for each in values]


def values(column: pa.Array) -> list[Any]:
    """Return a column's values as `to_pylist` does, with texts as `texts` gives them, also within lists and structs."""
    if is_text(column.type):
        return list(texts(column))
    if is_list(column.type):
        inner = values(column.flatten())  # of the lists that are not null, one behind the other
        ends = column.value_lengths().to_pylist()
        result, start = [], 0
        for length in ends:
            result.append(None if length is None else inner[start : start + length])
            start += length or 0
        return result
    if pa.types.is_struct(column.type):
        names = [column.type.field(number).name for number in range(column.type.num_fields)]
        fields = [values(each) for each in column.flatten()]
        several = zip(*fields, strict=True) if fields else [()] * len(column)
        rows = [dict(zip(names, row, strict=True)) for row in several]
        return [row if there else None for row, there in zip(rows, column.is_valid().to_pylist(), strict=True)]
    return held(column)


def held(column: pa.Array) -> list[Any]:
    """Return what `to_pylist` does; a date, time or duration that Python cannot hold as Arrow writes it, as a text.

    A time in a zone that this machine does not know is written in UTC.
    """
    try:
        return list(column.to_pylist())
    except _NOT_HELD:
        return list(map(_held, column))


def _held(scalar: pa.Scalar) -> Any:
    """Return one value of `held`, within lists, structs and what else has values in it, too."""
    try:
        return scalar.as_py()
    except _NOT_HELD:
        pass
    if isinstance(scalar, (pa.UnionScalar, pa.ExtensionScalar, pa.DictionaryScalar, pa.RunEndEncodedScalar)):
        return _held(scalar.value)
    if isinstance(scalar, pa.StructScalar):
        return {name: _held(each) for name, each in scalar.items()}
    if isinstance(scalar, pa.MapScalar):
        return [tuple(map(_held, pair.values())) for pair in scalar.values]
    if isinstance(scalar, pa.ListScalar):
        return list(map(_held, scalar.values))
    if is_text(scalar.type):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    if pa.types.is_timestamp(scalar.type) and scalar.type.tz is not None:
        scalar = scalar.cast(pa.timestamp(scalar.type.unit, "UTC"))
    return scalar.cast(pa.string()).as_py()


def plain(column: pa.Array) -> pa.Array:
    """Return a column as one that Arrow can take rows of, if it is one that it cannot; any other as it is.

    Of run ends the values; of views of texts within lists and structs, texts.
    """
    column = pc.run_end_decode(column) if pa.types.is_run_end_encoded(column.type) else column
    kind = plain_type(column.type)
    return column if kind == column.type else column.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of what `plain` returns. **Pure.**"""
    kind = kind.value_type if pa.types.is_run_end_encoded(kind) else kind
    return kind if pa.types.is_string_view(kind) else _without_views(kind)


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_without_views(each.type)) for each in kind])
    if not is_list(kind):
        return kind
    inner = kind.value_field.with_type(_without_views(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)


def cleaned(column: pa.Array) -> pa.Array:
    """Return a column of lists or structs with a question mark for what is not UTF-8 in their texts, any other as it
    is."""
    if not (is_list(column.type) or pa.types.is_struct(column.type)):
        return column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array(_cleaned(values(column)), column.type)
    return column


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    return {name: _cleaned(each) for name, each in value.items()} if isinstance(value, dict) else value
