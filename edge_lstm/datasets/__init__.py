"""Recordings: CSV files, their policies, splits, scaling and windows, and a synthetic pump."""

from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.dataset import Dataset, Splits, split
from edge_lstm.datasets.policies import Policy
from edge_lstm.datasets.pump import Fault, Pump, make_pump, write_pump
from edge_lstm.datasets.scaling import fit_scaler
from edge_lstm.datasets.windows import Windows, make_windows

__all__ = [
    "Dataset",
    "Fault",
    "Policy",
    "Pump",
    "Splits",
    "Windows",
    "fit_scaler",
    "make_pump",
    "make_windows",
    "read_csv",
    "split",
    "write_pump",
]
