"""Packing: values as MessagePack, whose texts are UTF-8.

Text that is not UTF-8, such as a name, is an extension that holds its bytes.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec.msgpack import Ext

from .text import external, internal

__all__ = ["Packer"]

_T = TypeVar("_T")
_TEXT: Final = 1
"""The code of the extension."""
_encode: Final = msgspec.msgpack.Encoder().encode


class Packer(Generic[_T]):
    """Packs values of a type, and unpacks them.

    Args:
        kind: The type.
    """

    def __init__(self, kind: type[_T]) -> None:
        self._kind = kind
        # Not strict: a row that was read from the ledger has 0 and 1 for its booleans.
        self._decode = msgspec.msgpack.Decoder(kind, strict=False).decode

    def pack(self, value: _T) -> bytes:
        """Packs a value."""
        try:
            return _encode(value)
        except UnicodeEncodeError:
            return _encode(_extended(msgspec.to_builtins(value, builtin_types=(bytes,))))

    def unpack(self, packed: bytes) -> _T:
        """Unpacks a value.

        Raises:
            msgspec.DecodeError: It is damaged, or of another type.
            TypeError: It is no bytes.
        """
        try:
            return self._decode(packed)
        except msgspec.ValidationError:
            parts = msgspec.msgpack.decode(packed, ext_hook=_read)
            return msgspec.convert(parts, self._kind, strict=False)


def _extended(part: Any) -> Any:
    """Returns a part of a value with extensions for text that is not UTF-8."""
    if isinstance(part, (list, tuple)):
        return [_extended(each) for each in part]
    known = external(part)
    return Ext(_TEXT, known) if isinstance(part, str) and isinstance(known, bytes) else part


def _read(code: int, data: memoryview) -> str:
    """Reads an extension."""
    if code != _TEXT:
        raise msgspec.ValidationError(f"has an extension {code}")
    return internal(bytes(data))
