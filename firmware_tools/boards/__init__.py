"""The boards that firmware is built for: records, start-up code, serial drivers, linker scripts."""
