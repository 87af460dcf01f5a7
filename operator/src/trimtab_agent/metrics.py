"""The agent's metrics. Labels are of few values: never a name or a digest."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

STEP_SECONDS = Histogram(
    "trimtab_agent_step_duration_seconds",
    "Duration of one step of bringing a revision in: Fetch, Load or Probe.",
    ["step"],
    buckets=BUCKETS,
)
FAILURES = Counter("trimtab_agent_failures_total", "Revisions that could not go on, by reason.", ["reason"])
REVISIONS = Gauge("trimtab_agent_revisions", "Revisions that this pod should have, by state.", ["state"])
ALIASES = Gauge("trimtab_agent_aliases", "Aliases of this pod, by state.", ["state"])
ENGINE_UP = Gauge("trimtab_agent_engine_up", "1 while the engine answers.")
ENGINE_STARTS = Counter("trimtab_agent_engine_starts_total", "Starts of the engine that were noticed.")
ENGINE_HARMED = Counter("trimtab_agent_engine_harmed_total", "Engines given up because an adapter had harmed them.")
TABLES = Counter("trimtab_agent_alias_tables_total", "Tables of aliases that were written.")
REMOVED = Counter("trimtab_agent_adapters_removed_total", "Adapters removed from the volume.")
DOCUMENTS = Counter("trimtab_agent_documents_total", "Documents received, by what became of them.", ["result"])
ERRORS = Counter("trimtab_agent_errors_total", "Rounds that ended with an error that is a bug.")
"""Each is logged with its traceback, and the next round comes all the same."""
