"""Fetch catalogs from services: the cells that hold some alerts, kept with their answers, built into a catalog."""

from pipeline.catalogs.fetch.fetching import Fetched, fetch
from pipeline.catalogs.fetch.politeness import Politeness
from pipeline.catalogs.fetch.service import Service, check_service

__all__ = ["Fetched", "Politeness", "Service", "check_service", "fetch"]
