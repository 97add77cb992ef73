"""Numbers measured on light curves, on ragged arrays cut by band."""
