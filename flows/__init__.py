"""Prefect flows over the pipeline; the only place that imports Prefect."""
