"""Builds, boards and the executors that need a toolchain."""
