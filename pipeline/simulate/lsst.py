"""Rubin alert packets of a planned night."""
