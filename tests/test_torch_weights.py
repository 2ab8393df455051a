"""PyTorch weights alone: the Graph computes what PyTorch computes; unclear and hostile files are refused."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import EdgeLstmError, ModelError, UnsupportedModel
from edge_lstm.graph import Graph
from edge_lstm.importers.safetensors_file import MAX_BYTES, read_tensors
from edge_lstm.importers.torch_weights import gru_gates, read_safetensors
from edge_lstm.reference import floating

TOLERANCE = 1e-5  # PyTorch computes in float32
LIMIT_S = 2.0  # for any bytes
torch.set_num_threads(1)  # threads would wait longer for one another than these products take
MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Net(nn.Module):
    """A recurrent module and a linear head for every row."""

    def __init__(self, kind: str, features: int, units: int, head: int = 0, **options: Any) -> None:
        super().__init__()
        self.rnn = MODULES[kind](features, units, batch_first=True, **options)
        width = (options.get("proj_size") or units) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, head, bias=options.get("bias", True)) if head else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.rnn(x)[0])
        return outputs


def saved(path: Path, module: nn.Module, **metadata: str) -> Path:
    save_file(module.state_dict(), path, metadata={"format": "pt", **metadata})
    return path


def assert_computes(graph: Graph, model: Any, x: FloatArray, where: str) -> None:
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    found, _ = floating.run(graph, x)
    assert found.shape == wanted.shape, f"{where}: shape {found.shape}, want {wanted.shape}"
    error = np.abs(found - wanted)
    at = np.unravel_index(error.argmax(), error.shape)
    assert error[at] <= TOLERANCE, f"{where}, row {at[1]}, output {at[2]}: got {found[at]}, want {wanted[at]}"


def numbers(rng: np.random.Generator, streams: int, rows: int, features: int) -> FloatArray:
    values: FloatArray = rng.normal(0, 1.5, (streams, rows, features)).astype(np.float32)
    return values


def random_options(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    units = int(rng.integers(2, 10))
    projected = kind == "LSTM" and rng.random() < 0.3
    return {
        "features": int(rng.integers(1, 7)),
        "units": units,
        "head": int(rng.integers(0, 6)),
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.integers(2)),
        "bias": bool(rng.random() < 0.7),
        **({"proj_size": int(rng.integers(1, units))} if projected else {}),
        **({"nonlinearity": str(rng.choice(["tanh", "relu"]))} if kind == "RNN" else {}),
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("kind", MODULES)
def test_the_graph_computes_what_pytorch_computes(kind: str, tmp_path: Path) -> None:
    for seed in range(100):
        rng = np.random.default_rng([seed, len(kind), ord(kind[0])])
        torch.manual_seed(seed)
        options, rows = random_options(rng, kind), int(rng.integers(1, 51))
        metadata = {"window": str(rows)} if options["bidirectional"] else {}
        if kind == "RNN":
            metadata["nonlinearity"] = options["nonlinearity"]
        model = Net(kind, **options)
        graph = read_safetensors(saved(tmp_path / "net.safetensors", model, **metadata))
        assert graph.window == (rows if options["bidirectional"] else 0)
        x = numbers(rng, 2, rows, options["features"])
        assert_computes(graph, model, x, f"{kind}, seed {seed}, {options}")


def test_large_weights_and_inputs_saturate_alike(tmp_path: Path) -> None:
    for kind in MODULES:
        torch.manual_seed(1)
        model = Net(kind, 3, 5, head=2, num_layers=2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(6.0)
        graph = read_safetensors(saved(tmp_path / "net.safetensors", model))
        assert_computes(graph, model, 10 * numbers(np.random.default_rng(0), 1, 4, 3), kind)


def test_any_prefix_and_no_prefix_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = numbers(np.random.default_rng(0), 1, 9, 3)
    bare = nn.GRU(3, 4, batch_first=True)
    graph = read_safetensors(saved(tmp_path / "3 nets.safetensors", bare))
    assert (graph.name, [layer.name for layer in graph.layers]) == ("model_3_nets", ["gru"])
    assert_computes(graph, lambda values: bare(values)[0], x, "bare")
    inner = Net("LSTM", 3, 4, head=2, num_layers=2)
    deep = nn.ModuleDict({"module": nn.ModuleDict({"net-1": inner})})
    graph = read_safetensors(saved(tmp_path / "deep.safetensors", deep))
    names = ["module_net_1_rnn_l0", "module_net_1_rnn_l1", "module_net_1_head"]
    assert [layer.name for layer in graph.layers] == names
    assert_computes(graph, inner, x, "deep")
    assert graph.made["modules"] == "module.net-1.rnn, module.net-1.head"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_float_dtype_is_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net("GRU", 3, 5, head=2)
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    found, _ = read_tensors(tmp_path / "net.safetensors")
    for name, value in state.items():
        assert (found[name] == value.to(torch.float32).numpy()).all() and found[name].dtype == np.float32
    model.load_state_dict({name: value.to(torch.float32) for name, value in state.items()})
    graph = read_safetensors(tmp_path / "net.safetensors")
    assert_computes(graph, model, numbers(np.random.default_rng(0), 1, 20, 3), str(dtype))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 4, batch_first=True)
        self.decoder = nn.LSTM(4, 5, batch_first=True)
        self.hidden, self.out = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encoder(x)[0][:, -1:].repeat(1, x.shape[1], 1)
        outputs: torch.Tensor = self.out(nn.functional.leaky_relu(self.hidden(self.decoder(code)[0])))
        return outputs


def test_the_metadata_name_the_order_and_what_stands_between(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder()
    words = "encoder, last,repeat, decoder, hidden, leaky_relu, out"
    path = saved(tmp_path / "net.safetensors", model, modules=words, window="7")
    graph = read_safetensors(path)
    assert_computes(graph, model, numbers(np.random.default_rng(0), 2, 7, 3), "autoencoder")
    assert "assumed" not in graph.made and graph.window == 7


def test_last_at_the_end_streams_and_softmax_follows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net("GRU", 3, 4, head=5)
    path = saved(tmp_path / "net.safetensors", model, modules="rnn, last, head, softmax")
    graph = read_safetensors(path)
    assert graph.window == 0 and graph.made["last_only"] is True
    x = numbers(np.random.default_rng(0), 1, 8, 3)
    assert_computes(graph, lambda values: torch.softmax(model(values), -1), x, "softmax")


def test_assumptions_are_told(tmp_path: Path) -> None:
    graph = read_safetensors(saved(tmp_path / "net.safetensors", Net("RNN", 3, 4, head=2)))
    assert graph.made["importer"] == "torch_weights"
    assert graph.made["assumed"] == [
        "no activation stands between or behind the modules (metadata 'modules' names it)",
        "nn.RNN 'rnn' has tanh: weights do not show relu (metadata 'nonlinearity' names it)",
    ]


def test_gates_are_put_in_our_order() -> None:
    assert gru_gates(np.array([1.0, 2, 3, 4, 5, 6])).tolist() == [3, 4, 1, 2, 5, 6]


def refusal(path: Path, kind: type[EdgeLstmError] = UnsupportedModel) -> str:
    with pytest.raises(kind) as caught:
        read_safetensors(path)
    assert type(caught.value) is kind and str(caught.value).startswith(str(path))
    return str(caught.value)


def test_several_modules_without_an_order_are_refused_with_the_line_to_add(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "net.safetensors", Autoencoder()))
    assert "weights do not show how 4 modules follow one another" in message
    assert 'metadata={"modules": "encoder, decoder, hidden, out"}' in message and "repeat" in message
    many = nn.ModuleDict({f"lstm{i}": nn.LSTM(2, 2) for i in range(9)})
    assert "how 9 modules follow" in refusal(saved(tmp_path / "many.safetensors", many))
    first = nn.ModuleDict({"rnn": nn.GRU(4, 5), "lift": nn.Linear(3, 4)})
    assert 'metadata={"modules": "lift, rnn"}' in refusal(saved(tmp_path / "first.safetensors", first))
    linear = refusal(saved(tmp_path / "linear.safetensors", nn.Linear(2, 3)))
    assert "it holds no weights of nn.LSTM, nn.GRU or nn.RNN" in linear


def test_a_window_that_weights_do_not_show_is_asked_for(tmp_path: Path) -> None:
    model = Net("LSTM", 3, 4, head=2, bidirectional=True)
    message = refusal(saved(tmp_path / "net.safetensors", model))
    assert "nn.LSTM 'rnn' is bidirectional, so its window must be known" in message
    assert 'metadata={"window": "64"}' in message
    plain = Net("LSTM", 3, 4, head=2)
    path = saved(tmp_path / "plain.safetensors", plain, modules="rnn, last, repeat, head")
    assert "'repeat' fills a window, so its window must be known" in refusal(path)


def test_other_modules_are_refused_by_name_together_with_everything_else(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(3, 4, bidirectional=True),
            "conv": nn.Conv1d(3, 3, 2),
            "norm": nn.LayerNorm(4),
            "attention": nn.MultiheadAttention(4, 2),
        }
    )
    message = refusal(saved(tmp_path / "net.safetensors", model))
    for words in ("'attention.in_proj_weight'", "'conv.weight'", "and 1 more of no nn.LSTM, nn.GRU",
                  "export the model as ONNX", "nn.LSTM 'lstm' is bidirectional"):  # fmt: skip
        assert words in message, message
    counting = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "norm": nn.BatchNorm1d(4)})
    message = refusal(saved(tmp_path / "counting.safetensors", counting))
    assert "tensor 'norm.num_batches_tracked' of dtype I64, expected F64, F32, F16, BF16" in message


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"window": "many"}, "metadata 'window' is 'many', expected the rows of a window"),
        ({"window": "-1"}, "metadata 'window' is '-1'"),
        (
            {"nonlinearity": "relu"},
            "metadata 'nonlinearity' is 'relu', expected tanh or relu, beside weights of",
        ),
        (
            {"modules": "rnn, gelu, head"},
            "metadata 'modules' names 'gelu', expected 'rnn', 'head' or at most",
        ),
        ({"modules": "rnn, rnn"}, "metadata 'modules' must name each of 'rnn', 'head' once"),
        ({"modules": "relu," * 1001 + "rnn, head"}, "metadata 'modules' names 1003, expected"),
        ({"modules": "head, rnn"}, "layer 'rnn' takes 3 features, but what it reads has 2"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(
    metadata: dict[str, str], words: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.safetensors", Net("LSTM", 3, 4, head=2), **metadata)
    with pytest.raises(ModelError) as caught:
        read_safetensors(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rnn.weight_ih_l0": (17, 3)}, "has 17 rows, expected 4 (LSTM), 3 (GRU) or 1 (RNN) times its 4"),
        ({"rnn.weight_ih_l0": (16,)}, "weight_ih_l0 and weight_hh_l0 are not both there as matrices"),
        ({"rnn.weight_hh_l0": None}, "weight_ih_l0 and weight_hh_l0 are not both there as matrices"),
        ({"rnn.weight_hr_l0": (2, 3)}, "weight_ih_l0 has 16 rows"),
        ({"rnn.weight_hr_l0": (4, 4)}, "tensor 'weight_hr_l1' missing, expected for 2 layers"),
        ({"rnn.bias_hh_l1": None}, "nn.LSTM 'rnn': tensor 'bias_hh_l1' missing, expected for 2 layers"),
        ({"rnn.bias_ih_l0": (4,)}, "nn.LSTM 'rnn': bias_ih_l0 is (4,), expected (16,)"),
        ({"rnn.weight_ih_l1": (16, 5)}, "weight_ih_l1 is (16, 5), expected (16, 4)"),
        ({"rnn.weight_ih_l7": (16, 4)}, "weight_ih_l2', 'weight_hh_l2'"),
        ({"rnn.weight_ih_l01": (16, 4)}, "tensor 'weight_ih_l01' not expected beside weight_ih_l0"),
        ({"rnn.bias_ih_l0_reverse": (16,)}, "'weight_ih_l0_reverse'"),
        ({"head.bias": (3,)}, "nn.Linear 'head': bias is (3,), expected (2,), the rows of weight"),
        ({"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "lstm.weight_ih_l0": (4, 3),
          "lstm.weight_hh_l0": (4, 4)}, "2 modules are called 'lstm'"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_belong_together_are_refused(
    changes: dict[str, tuple[int, ...] | None], words: str, tmp_path: Path
) -> None:
    state = dict(Net("LSTM", 3, 4, head=2, num_layers=2).state_dict())
    for name, shape in changes.items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    save_file(state, tmp_path / "net.safetensors")
    assert words in refusal(tmp_path / "net.safetensors", ModelError)


def packed(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, *shape: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HUGE, MANY = 10**14, 1 << 25
DAMAGED = [
    (b"", "does not begin with a length and a JSON header"),
    (b"\x08\x00\x00\x00\x00\x00\x00\x00[]      ", "does not begin with a length and a JSON header"),
    ((1 << 31).to_bytes(8, "little") + b"{}", "its header claims 2147483648 bytes, the file has 2 behind"),
    (packed(b"{" + b" " * (1 << 20) + b"}"), "at most 1048576 are read"),
    (packed(b'{"a":1,"a":1}'), "its header is damaged (a key stands twice)"),
    (packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "its header is nested too deeply"),
    (packed(b'{"a":' + b"9" * 900_000 + b"}"), "the number 999999999999999... is too large"),
    (packed(b'{"a":1.5}'), "1.5 is no size"),
    (packed(b'{"a":NaN}'), "NaN is no size"),
    (packed(b'{"a\xff":{}}'), "its header is damaged ('utf-8' codec"),
    (packed(b"{} 1"), "its header is damaged (Extra data"),
    (packed({"__metadata__": [1]}), "its __metadata__ is not a table of texts"),
    (packed({"__metadata__": {"window": 3}}), "its __metadata__ is not a table of texts"),
    (packed({"a": 3}), "tensor 'a' is not described by dtype, shape and data_offsets"),
    (packed({"a": {"dtype": "F32"}}), "tensor 'a' is not described by"),
    (packed({"a" * 201: entry(0, 0)}), "has a name that is no text of 200 letters"),
    (packed({"\ud800": entry(0, 0)}), "has a name that is no text of 200 letters"),
    (packed({"a": entry(0, 4, 1, dtype="C64")}, b"1234"), "has dtype 'C64', which the format does not know"),
    (packed({"a": entry(0, 4, 1, dtype=["F32"])}, b"1234"), "has dtype \"['F32']\", which the format"),
    (packed({"a": entry(0, 4, -1)}, b"1234"), "a shape that is no list of at most 8 sizes above 0"),
    (packed({"a": entry(0, 4, True)}, b"1234"), "a shape that is no list"),
    (packed({"a": entry(0, 0, 0, HUGE)}), "a shape that is no list"),
    (packed({"a": entry(0, 4, *[1] * 9)}, b"1234"), "a shape that is no list"),
    (packed({"a": {**entry(0, 4, 1), "data_offsets": [0, 4, 4]}}, b"1234"), "data_offsets that are not two"),
    (packed({"a": entry(0, 4, HUGE, HUGE)}, b"1234"), "needs 40000000000000000000000000000 bytes"),
    (packed({"a": entry(0, HUGE, HUGE // 4)}, b"1234"), f"its tensors need {HUGE} bytes, the file has 4"),
    (packed({"a": entry(4, 0, 1)}, b"1234"), "needs 4 bytes, its data_offsets are 4 .. 0"),
    (packed({"a": entry(0, 4, 1), "b": entry(0, 4, 1)}, b"1234"), "tensor 'b' starts at byte 0, expected 4"),
    (packed({"a": entry(0, 4, 1), "b": entry(8, 12, 1)}, b"1" * 12), "tensors overlap or leave a hole"),
    (packed({"a": entry(0, 4, 1)}, b"12345"), "its tensors need 4 bytes, the file has 5"),
    (packed({f"t{i}": entry(0, 0) for i in range(2001)}), "it lists 2001 tensors, at most 2000 are read"),
    (packed({"a": entry(0, MANY, MANY // 2, dtype="F16"), "b": entry(MANY, MANY + 2, 1, dtype="F16")},
            bytes(MANY + 2)), "it holds 16777217 weights, at most 16777216 are read"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_refused_in_time(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    start = time.monotonic()
    message = refusal(path, ModelError)
    assert time.monotonic() - start < LIMIT_S
    assert words in message and "no sound .safetensors file" in message and len(message) < 500


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for value, dtype in ((float("nan"), torch.float32), (1e300, torch.float64)):
        save_file({"a": torch.tensor([1.0, value], dtype=dtype)}, path)
        assert "tensor 'a' with NaN, infinity or more than a float32 holds" in refusal(path, ModelError)
    big = torch.full((4,), 3e38)
    zeros = {"weight_ih_l0": torch.zeros(4, 2), "weight_hh_l0": torch.zeros(4, 1)}
    save_file({**zeros, "bias_ih_l0": big, "bias_hh_l0": big.clone()}, path)
    with pytest.raises(ModelError, match="lstm 'lstm': bias holds NaN or infinity"):
        read_safetensors(path)


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    assert "it cannot be read (No such file or directory)" in refusal(tmp_path / "absent", ModelError)
    assert "not a file, expected a .safetensors file" in refusal(tmp_path, ModelError)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger than 64 MiB, expected a small network" in refusal(tmp_path / "large", ModelError)


def test_no_truncation_and_no_flipped_bit_gives_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    model = Net("GRU", 2, 2, head=1, num_layers=2, bidirectional=True)
    content = saved(path, model, window="5", modules="rnn, relu, head").read_bytes()
    generator = random.Random(0)
    cases = [content[:size] for size in range(0, len(content), 7)]
    for _ in range(1500):
        broken = bytearray(content)
        for _ in range(generator.choice([1, 1, 4])):
            broken[generator.randrange(len(content) // 2)] ^= 1 << generator.randrange(8)
        cases.append(bytes(broken))
    refused = 0
    start = time.monotonic()
    for case in cases:
        path.write_bytes(case)
        try:
            read_safetensors(path)
        except EdgeLstmError:
            refused += 1
    assert refused > len(cases) // 2 and time.monotonic() - start < LIMIT_S * len(cases)
