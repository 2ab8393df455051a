"""The reader of HDF5 against the HDF5 library: the same values, and a sentence for what it does not read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edge_lstm.importers import keras_hdf5
from edge_lstm.importers.keras_hdf5 import Hdf5, Hdf5Error, Node, texts_of


def written(fill: Callable[[Any], object], **options: Any) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        fill(file)
    return memory.getvalue()


def assert_same(theirs: Any, node: Node) -> None:
    """Every group, array and text of a file that the library opened."""
    for name, value in theirs.attrs.items():
        expected = [value] if isinstance(value, (str, bytes)) else list(value)
        texts = [text.decode() if isinstance(text, bytes) else text for text in expected]
        assert node.attributes[name].texts() == texts
    for name, member in theirs.items():
        if isinstance(member, h5py.Group):
            assert_same(member, node.open(name))
        else:
            array = node.open(name).array()
            assert array.dtype == member.dtype and array.shape == member.shape == node.open(name).array_shape
            assert (array == member[()]).all()


def compact(file: Any, name: str, values: Any) -> None:
    """Store an array in its header."""
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
    h5py.h5d.create(file.id, name.encode(), kind, space, options)
    file[name][...] = values


def test_groups_arrays_and_texts_are_those_of_the_library() -> None:
    rng = np.random.default_rng(1)

    def fill(file: Any) -> None:
        file.attrs["text"] = "größer"
        file.attrs["bytes"] = b"x" * 5000
        file.attrs["long"] = "y" * 200_000  # in a heap of its own
        file.attrs["names"] = [f"layer_{number}" for number in range(40)]
        file.attrs.create("fixed", np.array([b"ab", b"abcd"]))
        file.attrs["none"] = np.array([])
        for number in range(300):  # more than one node of a tree
            file[f"layers/group_{number}/vars/0"] = rng.normal(size=(number % 4 + 1, 3)).astype("<f4")
        for kind in ("f2", "f4", "f8", ">f4", "i1", "u4", "i8"):
            file[f"kinds/{kind}"] = rng.integers(0, 100, (2, 3)).astype(kind)
        file["scalar"] = np.float32(2.5)
        file.create_dataset("deep", data=rng.normal(size=(2, 1, 3, 2)))
        compact(file, "compact", rng.normal(size=(2, 3)))
        for number in range(30):  # its header goes on elsewhere
            file["scalar"].attrs[f"a{number}"] = "z" * 300

    content = written(fill)
    with h5py.File(io.BytesIO(content)) as theirs:
        root = Hdf5(content).root
        assert sorted(root.open("layers").members) == sorted(theirs["layers"])
        assert_same(theirs, root)


def test_a_list_of_names_that_keras_cuts_into_pieces_is_joined() -> None:
    names = [f"weights_of_layer_{number}" for number in range(9)]

    def fill(file: Any) -> None:
        for piece in range(3):
            file.attrs[f"weight_names{piece}"] = names[3 * piece : 3 * piece + 3]

    assert texts_of(Hdf5(written(fill)).root, "weight_names") == names
    assert texts_of(Hdf5(written(fill)).root, "layer_names") == []


def link(file: Any) -> None:
    file["a"] = h5py.SoftLink("/b")


def elsewhere(file: Any) -> None:
    file["a"] = h5py.ExternalLink("secret.h5", "/b")


def outside(file: Any) -> None:
    file.create_dataset("a", (2, 12), "f4", external=[("secret", 0, 96)])


def pieces(file: Any) -> None:
    file.create_dataset("a", (20, 12), "f4", chunks=(4, 4), compression="gzip")


def committed(file: Any) -> None:
    file["kind"] = np.dtype("f4")
    file.create_dataset("a", (2,), file["kind"])


UNREAD: dict[str, tuple[Callable[[Any], object], dict[str, Any], str]] = {
    "link": (link, {}, "/a is a link"),
    "external link": (elsewhere, {}, "its root stores links in HDF5's newer format"),
    "external array": (outside, {}, "a lies in another file"),
    "pieces": (pieces, {}, "a is stored in pieces or compressed, expected one plain block"),
    "not written": (lambda f: f.create_dataset("a", (2,), "f4"), {}, r"a has \d+ bytes, expected 8"),
    "text": (lambda f: f.create_dataset("a", data="text"), {}, "a holds values of type 9 with 16 bytes"),
    "structure": (lambda f: f.create_dataset("a", data=np.zeros(2, "f4,i4")), {}, "a holds values of type 6"),
    "group": (lambda f: f.create_group("a"), {}, "a is no array"),
    "committed type": (committed, {}, "a is no array"),
    "missing": (lambda f: f.create_group("b"), {}, "it has no a"),
    "newer file": (lambda f: f, {"libver": "latest"}, "it is of HDF5's newer format 3; open it"),
    "newer group": (lambda f: f, {"track_order": True}, "its root is damaged or of HDF5's newer format"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREAD)
def test_what_keras_does_not_write_is_named(tmp_path: Path, case: str) -> None:
    fill, options, message = UNREAD[case]
    content = written(fill, **options)
    with pytest.raises(Hdf5Error, match=message):
        Hdf5(content).root.open("a").array()


def test_an_attribute_without_a_value_has_no_text() -> None:
    root = Hdf5(written(lambda file: file.attrs.update(a=h5py.Empty("f4")))).root
    assert root.attributes["a"].texts() == []


def test_a_number_as_text_and_an_array_as_group_are_named() -> None:
    root = Hdf5(written(lambda file: file.attrs.update(a=3.0) or file.create_dataset("d", data=[1.0]))).root
    with pytest.raises(Hdf5Error, match="its attribute a holds no text"):
        root.attributes["a"].texts()
    with pytest.raises(Hdf5Error, match="d is no group"):
        root.open("d/e")


def sound(file: Any) -> None:
    file.attrs["t"] = "text"
    file["g/d"] = np.ones((2, 3), "<f4")


SOUND = written(sound)


def patched(where: bytes, offset: int, layout: str, value: Any, which: int = 0) -> bytes:
    """The sound file with a number changed at ``offset`` behind the ``which``-th signature ``where``."""
    at = -1
    for _ in range(which + 1):
        at = SOUND.index(where, at + 1)
    content = bytearray(SOUND)
    struct.pack_into("<" + layout, content, at + offset, value)
    return bytes(content)


PATCHED: dict[str, tuple[bytes, str]] = {
    "signature": (b"\x89HDF\r\n\x1a!" + SOUND[8:], "at byte 0 it has .*expected .*HDF"),
    "sizes": (patched(b"\x89HDF", 13, "B", 4), "its addresses have 4 and 8 bytes from 0, expected 8"),
    "root": (patched(b"\x89HDF", 64, "Q", 1 << 40), r"it needs bytes 1099511627776 \.\. 1099511627788 of"),
    "tree": (patched(b"TREE", 0, "B", 0), "at byte .*expected b'TREE'"),
    "circle": (patched(b"TREE", 5, "B", 1), "at byte .* expected b'TREE'"),
    "symbols": (patched(b"SNOD", 0, "B", 0), "expected b'SNOD'"),
    "symbols, many": (patched(b"SNOD", 6, "H", 65535), "it needs bytes"),
    "names": (patched(b"HEAP", 8, "Q", 1 << 50), "it needs bytes"),
    "heap": (patched(b"GCOL", 8, "Q", 1 << 62), "it needs bytes"),
    "object": (patched(b"GCOL", 16, "H", 9), r"its heap at byte \d+ has no object 1"),
    "cut": (SOUND[: len(SOUND) // 2], "it is cut or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", PATCHED)
def test_a_damaged_structure_is_named(case: str) -> None:
    content, message = PATCHED[case]
    with pytest.raises(Hdf5Error, match=message):
        file = Hdf5(content)
        assert [attribute.texts() for attribute in file.root.attributes.values()] == [["text"]]
        assert (file.root.open("g/d").array() == 1).all()


def test_a_tree_that_leads_to_itself_is_a_circle() -> None:
    content = bytearray(SOUND)
    at = SOUND.index(b"TREE")
    content[at + 5] = 1  # its child is a tree, and that is itself
    struct.pack_into("<Q", content, at + 32, at)
    with pytest.raises(Hdf5Error, match="the tree of its root is a circle"):
        assert Hdf5(bytes(content)).root.members


def test_structures_without_end_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_hdf5, "MAX_STEPS", 20)
    with pytest.raises(Hdf5Error, match="its structures never end"):
        Hdf5(SOUND).root.open("g/d").array()


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "B", 9, "a dataspace of version 9 has rank 2"),
        (8, "Q", 1 << 40, "expected an array of a small network"),
    ],
)
def test_a_damaged_shape_is_named(offset: int, layout: str, value: int, message: str) -> None:
    at = SOUND.index(struct.pack("<BBBBIQQ", 1, 2, 1, 0, 0, 2, 3))
    content = bytearray(SOUND)
    struct.pack_into("<" + layout, content, at + offset, value)
    with pytest.raises(Hdf5Error, match=message):
        Hdf5(bytes(content)).root.open("g/d").array()


def test_an_attribute_of_an_unknown_version_is_named() -> None:
    at = SOUND.index(b"t\0\0\0\0\0\0\0")  # the name of the attribute, eight bytes behind its version
    content = bytearray(SOUND)
    content[at - 8] = 7
    with pytest.raises(Hdf5Error, match="an attribute of its root is of an unknown version"):
        assert Hdf5(bytes(content)).root.attributes
