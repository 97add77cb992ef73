"""Run the nightly flow in this process: a temporary server on loopback, errors as they are, no Prefect log."""

from __future__ import annotations

import logging

from flows.environment import prepare_environment
from flows.server import running_server
from pipeline.errors import PipelineError
from pipeline.nights.drive import Outcome
from pipeline.nights.run import Run


def run_nightly(run: Run) -> Outcome:
    """Run the flow ``nightly`` on a prepared run.

    Parameters
    ----------
    run : Run
        Of :func:`pipeline.nights.run.prepare`.

    Raises
    ------
    PipelineError
        What :func:`pipeline.nights.drive.run_direct` would raise, the very same; or Prefect's server does not start.
    """
    home = prepare_environment(quiet=True)
    if not (home / "prefect.db").exists():
        run.observer.note("Prefect makes its database, once; that takes 10 to 60 s (--direct does without)")
    with running_server(home) as url:
        import httpx
        from prefect.exceptions import PrefectException
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.nightly import run_prepared

        with temporary_settings({PREFECT_API_URL: url}):
            try:
                return run_prepared(run)
            except (httpx.HTTPError, PrefectException) as error:
                told = str(error) or type(error).__name__
                raise PipelineError(f"Prefect failed: {told}", mend="run again, or run with --direct") from error
            finally:
                for handler in logging.getLogger("prefect.flow_runs").handlers:
                    handler.flush()  # while the server is still there
