"""MLflow's REST API 2.0, as far as a run needs it: MLflow's own client brings a database and a web server along.

A run is found again by its uid, so whoever tells it twice tells the same run: parameters that are there stay, points
have the run's own time, and so the same point is the same row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..contract import Credentials, Reason
from ..contract.tracking import StoredMlflow, TrackingRecord
from ..errors import SettingsInvalid, StorageFailed
from ..keyfiles import source_of
from . import server as servers
from .figures import Told
from .server import Server, batched, keys_of

TOKEN, USERNAME, PASSWORD = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
API = "api/2.0/mlflow"
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""Limits of log-batch."""
UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"


class Refused(Exception):
    """MLflow's own word for why it does not do something."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Mlflow:
    """A tracking server, as one credential sees it.

    Every method raises a `TrainerError` with a named reason; no message holds a credential.
    """

    def __init__(self, tracker: StoredMlflow, sleep: Callable[[float], None] = time.sleep) -> None:
        headers, auth = _credentials(tracker.credentials)
        wanted = f"a {TOKEN}, or {USERNAME} and {PASSWORD}, that may write to the experiment"
        self._server = Server(tracker.uri, "MLflow", "mlflow.uri", wanted, headers, auth, sleep)
        self._experiment_name = tracker.experiment

    @property
    def _uri(self) -> str:
        return self._server.uri

    def close(self) -> None:
        self._server.close()

    def tell(self, record: TrackingRecord, told: Told) -> str:
        """Make a run of this uid, or bring the one that there is up to date; return the address of its page."""
        experiment = self._experiment(self._experiment_name)
        run = self._run(experiment, record)
        identity, there = self._named_in(run, "info", "run_id"), _parameters(run)
        missing = {key: value for key, value in told.parameters.items() if key not in there}
        for some in batched(list(missing.items()), PARAMETERS_AT_ONCE):
            self._post("runs/log-batch", run_id=identity, params=_pairs(dict(some)))
        moment = record.end_seconds * 1000
        series = [
            {"key": each.key, "value": each.value, "step": each.step, "timestamp": moment} for each in told.metrics
        ]
        for values in batched(series, METRICS_AT_ONCE):
            self._post("runs/log-batch", run_id=identity, metrics=values)
        self._post("runs/log-batch", run_id=identity, tags=_pairs(told.tags))
        if record.step is None:  # else it is RUNNING, as it was made
            status = "FINISHED" if record.succeeded else "FAILED"
            self._post("runs/update", run_id=identity, status=status, end_time=moment)
        return f"{self._uri}/#/experiments/{experiment}/runs/{identity}"

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made where it is not there."""
        for _ in range(2):
            try:
                answer = self._get("experiments/get-by-name", experiment_name=name)
            except Refused as refused:
                if refused.code != UNKNOWN:
                    raise self._named(refused) from None
            else:
                identity = self._named_in(answer, "experiment", "experiment_id")
                if answer["experiment"].get("lifecycle_stage", "active") != "active":
                    raise SettingsInvalid(
                        f"the experiment {name!r} of {self._uri} is deleted; restore it there, or name another one"
                    )
                return identity
            try:
                return self._named_in(self._asked("experiments/create", name=name), "experiment_id")
            except Refused as refused:
                if refused.code != EXISTS:  # another run's Job was first
                    raise self._named(refused) from None
        raise StorageFailed(f"{self._uri} says of the experiment {name!r} that it is there, and that it is not")

    def _run(self, experiment: str, record: TrackingRecord) -> dict[str, Any]:
        question = {
            "experiment_ids": [experiment],
            "filter": f"tags.`trimtab.uid` = '{record.run.uid}'",
            "max_results": 1,
            "order_by": ["attributes.start_time ASC"],
        }
        made = {
            "experiment_id": experiment,
            "run_name": f"{record.run.namespace}/{record.run.name}",
            "start_time": record.start_seconds * 1000,
            "tags": _pairs({"trimtab.uid": record.run.uid}),
        }
        for attempt in range(servers.ATTEMPTS):
            found = self._post("runs/search", **question).get("runs") or []
            if found:
                return self._object(found[0] if isinstance(found, list) else None, "a run")
            try:  # once: it may have been made though no answer came, and then it is found
                return self._object(self._ask("POST", "runs/create", {}, made, attempts=1).get("run"), "a run")
            except Refused as refused:
                raise self._named(refused) from None
            except StorageFailed:
                if attempt == servers.ATTEMPTS - 1:
                    raise
                self._server.sleep(2.0**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _object(self, value: Any, what: str) -> dict[str, Any]:
        """Return an object of an answer.

        Raises:
            SettingsInvalid: it is none.
        """
        if not isinstance(value, dict):
            raise self._server.strange(f"answers without {what} where MLflow has one")
        return value

    def _named_in(self, answer: dict[str, Any], *path: str) -> str:
        """Return the text at a place of an answer.

        Raises:
            SettingsInvalid: none is there.
        """
        *outer, last = path
        for name in outer:
            answer = self._object(answer.get(name), name)
        value = answer.get(last)
        if not isinstance(value, str) or not value:
            raise self._server.strange(f"answers without {last} where MLflow has one")
        return value

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._ask("GET", path, query, None)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        try:
            return self._asked(path, **body)
        except Refused as refused:
            raise self._named(refused) from None

    def _asked(self, path: str, **body: Any) -> dict[str, Any]:
        return self._ask("POST", path, {}, body)

    def _named(self, refused: Refused) -> SettingsInvalid:
        return SettingsInvalid(f"{self._uri} refuses what it is told: {refused}")

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        attempts: int | None = None,
    ) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            Refused: MLflow says why not.
            SettingsInvalid: it wants other credentials, or is no MLflow.
            StorageFailed: it does not answer.
        """
        status, answer = self._server.ask(method, f"{API}/{path}", query, body, attempts)
        if 200 <= status < 300:
            return answer
        raise Refused(str(answer.get("error_code")), f"{status} {str(answer.get('message'))[:500]}")


def _credentials(credentials: Credentials | None) -> tuple[dict[str, str], tuple[str, str] | None]:
    """Return the headers and the name with its password that the files of a Secret are; none asks as anybody."""
    if credentials is None:
        return {}, None
    token, user, password = keys_of(credentials, TOKEN, USERNAME, PASSWORD)
    if token is not None:
        return {"Authorization": f"Bearer {token}"}, None
    if user is not None and password is not None:
        return {}, (user, password)
    raise SettingsInvalid(
        f"{source_of(credentials)} has neither {TOKEN} nor {USERNAME} with {PASSWORD}; add them, or remove secretName",
        Reason.CREDENTIALS_MISSING,
    )


def _parameters(run: Mapping[str, Any]) -> set[str]:
    data = run.get("data")
    found = data.get("params") if isinstance(data, dict) else None
    return {str(each.get("key")) for each in found if isinstance(each, dict)} if isinstance(found, list) else set()


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
