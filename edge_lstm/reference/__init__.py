"""The definition of correct: the LSTM in real numbers and in integers."""
