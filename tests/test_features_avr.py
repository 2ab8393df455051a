"""The feature stage where int has 16 bits: every feature on a simulated ATmega2560."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edge_lstm.detection.fixed import MISSING
from edge_lstm.emit.c_features import emit_features
from edge_lstm.extraction.config import HISTORY, MOMENTS, FeatureConfig
from edge_lstm.extraction.fixed import extract, quantize_features
from test_c_code import need, run

SAMPLES = 160
MAIN = """
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include "avr_features.h"
typedef char int_has_16_bits[sizeof(int) == 2 ? 1 : -1];
static const int16_t samples[] = {{{samples}}};
static const int32_t slow[] = {{{slow}}};
static avr_features_state_t state;
static int32_t row[AVR_FEATURES_COLUMNS];
static void put(char c) {{ while (!(UCSR0A & (1 << UDRE0))) {{}} UDR0 = (uint8_t)c; }}
int main(void)
{{
    UCSR0B = 1 << TXEN0;
    avr_features_reset(&state);
    for (uint16_t k = 0; k < {count}u; k++) {{
        if (avr_features_push(&state, samples + k, slow + k, row) == 0u) continue;
        for (uint8_t column = 0; column < AVR_FEATURES_COLUMNS; column++) {{
            for (uint8_t digit = 8; digit > 0u; digit--) {{
                put("0123456789abcdef"[(uint8_t)((uint32_t)row[column] >> (4u * (digit - 1u))) & 15u]);
            }}
        }}
        put('\\n');
    }}
    put('!'); put('\\n');
    cli(); sleep_enable(); sleep_cpu();
    return 0;
}}
"""


def test_the_rows_are_the_same_where_int_has_16_bits(tmp_path: Path) -> None:
    need("avr-gcc")
    need("simavr")
    content = {
        "name": "avr", "rate_hz": 3200, "hop": 16,
        "fast": {"a": {"features": [*MOMENTS, "band(50, 200)", "band(200, 1500)"]}},
        "slow": {"t": {"features": ["value", *(f"{kind}(3)" for kind in HISTORY)]}},
    }  # fmt: skip
    stage = quantize_features(FeatureConfig.from_mapping(content))
    rng = np.random.default_rng(4)
    x = rng.integers(-32768, 32768, (SAMPLES, 1))
    x[32:48], x[48:64], x[64:80] = -32768, rng.choice([-32768, 32767], (16, 1)), 7
    slow = np.where(rng.random((SAMPLES, 1)) < 0.1, rng.integers(-(2**31), 2**31, (SAMPLES, 1)), MISSING)
    for file, text in emit_features(stage).items():
        (tmp_path / file).write_text(text)
    shown = ("INT32_MIN" if value == MISSING else str(value) for value in slow.ravel().tolist())
    text = MAIN.format(samples=", ".join(map(str, x.ravel())), slow=", ".join(shown), count=SAMPLES)
    (tmp_path / "main.c").write_text(text)
    sources = sorted(tmp_path.glob("*.c"))
    run("avr-gcc", "-mmcu=atmega2560", "-std=c99", "-Os", *sources, "-o", tmp_path / "main.elf")
    done = run("simavr", "-m", "atmega2560", "-f", "16000000", tmp_path / "main.elf", timeout=60)
    written = re.sub(r"\x1b\[\d*m", "", (done.stdout + done.stderr).decode(errors="replace"))
    lines = re.findall(r"^([0-9a-f]+)\.", written, re.MULTILINE)
    found = np.array([np.frombuffer(bytes.fromhex(line), ">i4") for line in lines])
    expected = extract(stage, x, slow)[0]
    assert found.shape == expected.shape and (found == expected).all(), np.argwhere(found != expected)
