"""Everything that can run a quantized network: int8 codes in, int8 codes out."""
