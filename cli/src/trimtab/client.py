"""The verbs, for programs and notebooks; the command does nothing else with a cluster.

A verb imports what it alone needs: a list is to come at once, however many verbs there are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import Invalid, NotAllowed, NotFound, NotInstalled, Problem, near
from .kinds import Kind, kind_named, kinds
from .kubeconfig import connection_of
from .objects import Curve, CustomObject, mapping, parse, text
from .server import SELF_SUBJECT_REVIEWS, Resource, Server
from .tables import Listing

if TYPE_CHECKING:
    from . import applying, asking, checking, comparison, costs, decisions, manifests, replies
    from .logs import LogLine
    from .story import Story


class Client:
    """A cluster, as the user of a kubeconfig.

    An object is named `finetunejob/demo`, or `demo` where only one kind has that name. Every method raises a `Problem`,
    whose text is a sentence with the next step: `NotFound`, `NotAllowed`, `NotInstalled`, `Invalid`, `Unreachable`.

    Args:
        namespace: of the objects; that of the context by default.
        context: of the kubeconfig; the current one by default.
        kubeconfig: path; by default that of KUBECONFIG, else ~/.kube/config, else the pod's own service account.
    """

    def __init__(
        self, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> None:
        connection, default = connection_of(context, None if kubeconfig is None else str(kubeconfig))
        self.namespace = namespace or default
        self._server = Server(connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._server.close()

    @property
    def server(self) -> Server:
        """The API server, for what is no verb."""
        return self._server

    def list(self, kind: str | None = None, *, all_namespaces: bool = False) -> Listing:
        """Return the objects of a kind, or of all kinds that the cluster serves and the user may list."""
        found: list[CustomObject] = []
        asked, refusals, not_shown = self._kinds(kind), [], []
        for each in asked:
            path = _resource(each).path(None if all_namespaces else self.namespace)
            try:
                found += [parse(each, body) for body in self._server.items(path)]
            except (NotInstalled, NotAllowed) as problem:
                refusals.append(problem)
                if isinstance(problem, NotAllowed):
                    not_shown.append(f"{each.name}s ({problem.sentence})")
        if len(refusals) == len(asked):
            raise refusals[0]
        return Listing.of(found, asked, not_shown)

    def watch(self, kind: str | None = None, *, all_namespaces: bool = False) -> Iterator[Listing]:
        """Yield the objects, first as they are, then after every change, for ever."""
        from .watching import Watcher

        served = [each for each in self._kinds(kind) if kind is not None or self._served(each, all_namespaces)]
        if not served:
            self.list(kind, all_namespaces=all_namespaces)  # raises what is the matter
        return Watcher(self._server, served, None if all_namespaces else self.namespace).pictures()

    def get(self, name: str) -> CustomObject:
        """Return one object."""
        asked, name = self._named(name)
        found, refusals = [], []
        for kind in asked:
            try:
                found.append(parse(kind, self._server.get(_resource(kind).path(self.namespace, name))))
            except NotFound:  # told below, if it is of none of them
                continue
            except (NotInstalled, NotAllowed) as problem:
                refusals.append(problem)
        if len(found) > 1:
            choice = " or ".join(f"{each.kind.singular}/{name}" for each in found)
            raise Invalid(f"{len(found)} kinds have the name {name}", f"write {choice}")
        if not found:
            raise refusals[0] if len(refusals) == len(asked) else self._not_found(asked, name)
        return found[0]

    def describe(self, name: str) -> Story:
        """Return what an object is doing, why, and what is to be done next, in words."""
        from .story import story

        return story(self.get(name), datetime.now(UTC))

    def curve(self, name: str) -> Curve:
        """Return loss and validation loss of a FineTuneJob; empty while there is nothing to draw."""
        return self._one_of(name, "FineTuneJob").curve

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, storage: bool = False
    ) -> Iterator[LogLine]:
        """Yield the lines of all attempts: of their pods, or where these are gone what the status tells.

        Args:
            follow: go on with what runs, until it ends.
            tail: at most so many lines of each pod.
            storage: where pods are gone, what the run measured, from object storage, with this machine's own keys.
        """
        from .logs import log_lines

        about = self._one_of(name, "FineTuneJob", "Evaluation")
        return log_lines(self._server, about, follow=follow, tail=tail, storage=storage)

    def ask(
        self,
        name: str,
        question: str,
        *,
        revisions: Sequence[str] = (),
        base: bool = True,
        port: int | None = None,
        url: str | None = None,
        chat: bool = True,
        heard: asking.Heard | None = None,
        **settings: Any,
    ) -> replies.Replies:
        """Ask the base, what an AdapterRollout serves, and its revisions the same, side by side.

        Args:
            revisions: names such as guide@57304f9f, or the begin of a digest; of those that the engines have loaded.
            base: ask the base too.
            port: of the engine in its pod; by default the one that the pod calls http, else 8000.
            url: of an engine that is asked without the API server, such as that of a forwarded port.
            chat: as a conversation; else the question is completed as text.
            heard: called with what there is of the answers, as they come.
            settings: of the request, such as max_tokens and temperature.
        """
        from . import asking, engine

        about = self._one_of(name, "AdapterRollout")
        adapter = asking.adapter_of(about)
        engines = [engine.at(url)] if url else asking.engines_of(self._server, about, port)
        chosen, models = asking.first_that_serves(
            engines, lambda listed: asking.chosen(listed, adapter, revisions, base=base)
        )
        return asking.ask(chosen, models, question, settings, chat=chat, heard=heard)

    def estimate(
        self,
        name: str,
        *,
        trainer: bool = False,
        model_config: str | Path | None = None,
        accelerators: Sequence[str] = (),
        tokens: int | None = None,
    ) -> costs.Estimate:
        """Return what a FineTuneJob has taken and will take; of a file of manifests what `estimate_file` returns.

        Args:
            trainer: ask the trainer too, which accelerators hold the run, and how long it takes on each.
            model_config, accelerators, tokens: for the trainer; see `estimate_file`.
        """
        from . import costs, estimating

        about = self._one_of(name, "FineTuneJob")
        cost = costs.cost_of(about, datetime.now(UTC))
        if not (trainer or model_config or accelerators or tokens):
            return costs.Estimate(about.name, cost)
        prepared = about.told.get("dataset")
        counted = prepared.get("tokens") if isinstance(prepared, dict) else None
        weights, devices = estimating.by_the_trainer(
            about.spec,
            model_config=None if model_config is None else Path(model_config),
            accelerators=accelerators,
            tokens=tokens if tokens is not None else counted,
        )
        return costs.Estimate(about.name, cost, devices, weights)

    @staticmethod
    def estimate_file(
        file: str | Path,
        *,
        model_config: str | Path | None = None,
        accelerators: Sequence[str] = (),
        tokens: int | None = None,
    ) -> costs.Estimate:
        """Return what the FineTuneJob of a file would take on each type of accelerator; no cluster is asked.

        Args:
            model_config: config.json to go by, instead of the base model's files.
            accelerators: names such as H100-80GB; all that are known by default.
            tokens: of the training rows in an epoch; without them time is known only where maxSteps is set.
        """
        from . import costs, estimating

        job = estimating.read_job(Path(file))
        name = text(mapping(job.get("metadata")).get("name")) or str(file)
        weights, devices = estimating.by_the_trainer(
            mapping(job.get("spec")),
            model_config=None if model_config is None else Path(model_config),
            accelerators=accelerators,
            tokens=tokens,
        )
        return costs.Estimate(name, None, devices, weights)

    def compare(self, first: str, second: str) -> comparison.Comparison:
        """Return how two objects of a kind differ: settings, figures, curves."""
        from . import comparison

        ours = self.get(first)
        qualified = second if "/" in second else f"{ours.kind.singular}/{second}"
        return comparison.compare(ours, self.get(qualified))

    def suspend(self, name: str, *, dry_run: bool = False) -> CustomObject:
        """Hold an object up: a run writes a checkpoint and frees its accelerators; a rollout begins nothing new."""
        return self._hold(name, held=True, dry_run=dry_run)

    def resume(self, name: str, *, dry_run: bool = False) -> CustomObject:
        """Let an object go on from where it was held up."""
        return self._hold(name, held=False, dry_run=dry_run)

    def approve(
        self, name: str, message: str = "", *, digest: str | None = None, dry_run: bool = False
    ) -> decisions.Decided:
        """Approve an adapter, as the user that you are: of a rollout the one that waits, or that with a digest."""
        return self._decide("Approve", name, message, digest, dry_run)

    def reject(
        self, name: str, message: str = "", *, digest: str | None = None, dry_run: bool = False
    ) -> decisions.Decided:
        """Reject an adapter: a rollout that asks for approvals does not serve it, or takes its canary back."""
        return self._decide("Reject", name, message, digest, dry_run)

    def comment(
        self, name: str, message: str, *, digest: str | None = None, dry_run: bool = False
    ) -> decisions.Decided:
        """Say something about an adapter; nothing follows from it."""
        return self._decide("Comment", name, message, digest, dry_run)

    def check(self, file: str | Path) -> tuple[checking.Finding, ...]:
        """Return what is wrong with a file of manifests; nothing is stored."""
        from . import checking

        return checking.check(self._server, self.namespace, Path(file))

    def apply(self, file: str | Path, *, dry_run: bool = False) -> tuple[applying.Applied, ...]:
        """Write the objects of a file of manifests, after a check of all of them."""
        from . import applying

        return applying.apply(self._server, self.namespace, Path(file), dry_run=dry_run)

    def keys(self, name: str, environment: Mapping[str, str] | None = None) -> applying.Applied:
        """Write a Secret with the keys of the object storage that the environment has (AWS_ACCESS_KEY_ID, ...)."""
        from . import applying

        return applying.write_keys(
            self._server, self.namespace, name, os.environ if environment is None else environment
        )

    @staticmethod
    def new(answers: manifests.Answers) -> str:
        """Return manifests for a beginning, as YAML."""
        from . import manifests

        return manifests.manifests(answers)

    def names(self, kind: str | None = None) -> Sequence[str]:
        """Return what objects can be called in a command: their names, with the kind where two have the same."""
        found = self.list(kind)
        plain = [each.name for each in found]
        return [each.name if plain.count(each.name) == 1 else f"{each.kind.singular}/{each.name}" for each in found]

    def _hold(self, name: str, *, held: bool, dry_run: bool) -> CustomObject:
        about, verb = self.get(name), "suspend" if held else "resume"
        if about.kind.stop is None:
            raise Invalid(f"a {about.kind.name} does nothing", f"there is nothing to {verb}")
        if about.ended:
            raise Invalid(
                f"{about.kind.singular}/{about.name} has ended ({about.state})", f"there is nothing to {verb}"
            )
        if about.stopped == held:
            return about
        # the uid: an object that was made anew under the name in the meantime is another one
        patch = {"metadata": {"uid": about.metadata.get("uid")}, "spec": {about.kind.stop: held}}
        path = _resource(about.kind).path(self.namespace, about.name)
        return parse(about.kind, self._server.merge(path, patch, dry_run=dry_run))

    def _decide(
        self, decision: decisions.Word, name: str, message: str, digest: str | None, dry_run: bool
    ) -> decisions.Decided:
        from . import decisions

        about = self.get(name)
        chosen = decisions.digest_of(about, decision, digest)
        answer = self._server.create(SELF_SUBJECT_REVIEWS.path(), decisions.who_am_i(), dry_run=False)
        body = decisions.review(about, decision, chosen, message, decisions.User.of(answer))
        kind = kind_named("review")
        path = _resource(kind).path(self.namespace)
        stored = self._server.create(path, body, dry_run=dry_run)
        if decision == "Approve" and not dry_run and decisions.outdone(stored, self._server.items(path)):
            time.sleep(decisions.SECOND)
            stored = self._server.create(path, body, dry_run=False)
        return decisions.Decided(parse(kind, stored), about, chosen)

    def _one_of(self, name: str, *kind_names: str) -> CustomObject:
        """Return the object of a name among kinds; without a kind in the name the first of them that has it."""
        allowed = [kind for kind in kinds() if kind.name in kind_names]
        asked, plain = self._named(name)
        chosen = [kind for kind in allowed if kind in asked]
        if not chosen:
            raise Invalid(f"{name} is of another kind", f"give the name of a {' or '.join(kind_names)}")
        for kind in chosen:
            try:
                return parse(kind, self._server.get(_resource(kind).path(self.namespace, plain)))
            except NotFound:  # told below, if it is of none of them
                continue
        raise self._not_found(chosen, plain)

    def _not_found(self, asked: Sequence[Kind], name: str) -> Problem:
        known = []
        for kind in asked:
            try:
                known += [
                    str(body["metadata"]["name"]) for body in self._server.items(_resource(kind).path(self.namespace))
                ]
            except (NotAllowed, NotInstalled):  # only a hint is made of them
                continue
        what = asked[0].name if len(asked) == 1 else "object"
        there = near(name, known) or ("see kubectl trimtab list" if known else "see kubectl trimtab list -A")
        return NotFound(f"there is no {what} {name} in the namespace {self.namespace}", there)

    def _served(self, kind: Kind, all_namespaces: bool) -> bool:
        try:
            self._server.probe(_resource(kind).path(None if all_namespaces else self.namespace))
        except (NotInstalled, NotAllowed):
            return False
        return True

    @staticmethod
    def _kinds(word: str | None) -> Sequence[Kind]:
        return kinds() if word is None else (kind_named(word),)

    @staticmethod
    def _named(name: str) -> tuple[Sequence[Kind], str]:
        """Return the kinds that a name may be of, and the name without its kind."""
        kind, slash, plain = name.partition("/")
        asked, plain = ((kind_named(kind),), plain) if slash else (kinds(), kind)
        if not plain or plain in (".", ".."):
            raise Invalid(f"{name!r} is no name", "write demo or finetunejob/demo")
        return asked, plain


def _resource(kind: Kind) -> Resource:
    return Resource(kind.group, kind.version, kind.plural)
