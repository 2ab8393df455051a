"""Names that a network can have in C: its files, functions and types begin with it."""

from __future__ import annotations

import re

# of C, C++ and every firmware's entry point
KEYWORDS = """
    alignas alignof asm auto bool break case catch char class const constexpr continue default delete do
    double else enum explicit export extern false float for friend goto if inline int long main mutable
    namespace new operator private protected public register restrict return short signed sizeof static
    struct switch template this throw true try typedef typename union unsigned using virtual void volatile
    while
"""
# NAME.h must not hide a header of the C library
HEADERS = """
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg
    stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
"""
RESERVED = frozenset((KEYWORDS + HEADERS).split())


def identifier(text: str) -> str:
    """``text`` as a name that neither C nor the runtime uses.

    >>> identifier("pump-v2.1"), identifier("3 pumps"), identifier("int")
    ('pump_v2_1', 'model_3_pumps', 'model_int')
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    if not name or name[0].isdigit() or name.lower() in RESERVED or name.lower().startswith("elstm"):
        return f"model_{name}".rstrip("_")
    return name
