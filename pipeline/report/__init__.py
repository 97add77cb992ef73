"""The report of a night: one self-contained page, and its figures beside it."""

from __future__ import annotations

from pipeline.report.page import write_report

__all__ = ["write_report"]
