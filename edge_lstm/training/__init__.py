"""Keras lives here: the forecaster, its training and its pruning."""
