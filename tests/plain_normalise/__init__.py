"""Normalisation as it was before it was made fast, column by column with numpy alone: the oracle of the kernels."""
