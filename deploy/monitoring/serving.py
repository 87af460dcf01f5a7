"""The dashboard of whoever is called when clients do not get the adapter that they ask for."""

from __future__ import annotations

from .grafana import Dashboard, Panel, Row, Series, Variable

OBJECTS = '{namespace=~"$namespace", name=~"$rollout"}'
PODS = '{namespace=~"$pods"}'
READY_OR_COMING = "Serving|Loading|Canary|Moving|Paused|WaitingForSource|AwaitingApproval"


def _vllm(metric: str) -> str:
    """Return a metric of vLLM's own, of the chosen namespaces."""
    return f"vllm:{metric}{PODS}"


def _quantiles(metric: str, by: str = "le") -> tuple[Series, ...]:
    return tuple(
        Series(f"histogram_quantile({share}, sum by ({by}) (rate({metric}[$__rate_interval])))", name)
        for share, name in ((0.5, "half"), (0.95, "95 of 100"), (0.99, "99 of 100"))
    )


def _pods(state: str, steps: tuple[tuple[str, float | None], ...] = ()) -> Panel:
    told = {
        "ready": "Pods that answer with the wanted adapter alone.",
        "behind": "Pods that do not, yet or any more. Runbook: TrimtabAdapterNotReady.",
        "unreachable": "Pods whose agent does not answer: a NetworkPolicy, or the pod is in trouble.",
    }
    series = (Series(f'sum(trimtab_serving_pods{{state="{state}"}}) or vector(0)'),)
    return Panel(f"Pods {state}", told[state], series, "stat", width=4, height=4, steps=steps)


NOW = Row(
    "Now",
    (
        Panel(
            "Rollouts that serve",
            "AdapterRollouts with every pod on the wanted adapter.",
            (Series('sum(trimtab_adapterrollouts{state="Serving"}) or vector(0)'),),
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Rollouts in trouble",
            "Neither serving, nor on the way, nor paused, nor waiting for a verdict or an approval. "
            "kubectl get arl -A says why.",
            (Series(f'sum(trimtab_adapterrollouts{{state!~"{READY_OR_COMING}"}}) or vector(0)'),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("red", 1)),
        ),
        _pods("ready"),
        _pods("behind", (("green", None), ("orange", 1))),
        _pods("unreachable", (("green", None), ("red", 1))),
        Panel(
            "Rollbacks, in the time shown",
            "Runbook: TrimtabRolledBack.",
            (Series("round(sum(increase(trimtab_rollbacks_total[$__range]))) or vector(0)"),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("orange", 1)),
        ),
    ),
)

ROLLOUTS = Row(
    "Rollouts",
    (
        Panel(
            "By state",
            "The words are those of kubectl get arl.",
            (Series("sum by (state) (trimtab_adapterrollouts)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Pods by state",
            "Over all rollouts. behind for a moment is a rollout at work.",
            (Series("sum by (state) (trimtab_serving_pods)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Taken back, by reason",
            "ErrorRatio and Latency are the canary's requests; the others are what pods said while they brought it in.",
            (Series("sum by (reason) (increase(trimtab_rollbacks_total[1h]))", "{{reason}}"),),
            bars=True,
        ),
        Panel(
            "Time from wanted to the end",
            "canarySeconds is part of it.",
            (
                Series(
                    "histogram_quantile(0.5, sum by (outcome, le) "
                    "(increase(trimtab_adapterrollout_duration_seconds_bucket[1d])))",
                    "half, {{outcome}}",
                ),
                Series(
                    "histogram_quantile(0.9, sum by (outcome, le) "
                    "(increase(trimtab_adapterrollout_duration_seconds_bucket[1d])))",
                    "nine of ten, {{outcome}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Decisions",
            "Reviews by what they count as. AuthorNotBound: the admission policy was not in force when they were made.",
            (Series("sum by (state) (trimtab_reviews)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Time that revisions wait for approvals",
            "Of those whose waiting is over. Runbook: TrimtabApprovalWaiting.",
            (
                Series(
                    "histogram_quantile(0.5, sum by (le) "
                    "(increase(trimtab_adapterrollout_approval_wait_seconds_bucket[7d])))",
                    "half",
                ),
                Series(
                    "histogram_quantile(0.9, sum by (le) "
                    "(increase(trimtab_adapterrollout_approval_wait_seconds_bucket[7d])))",
                    "nine of ten",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Why pods are not up to date",
            "Reasons that pods gave, as in status.podReasons.",
            (Series("sum by (reason) (increase(trimtab_revision_failures_total[1h]))", "{{reason}}"),),
            bars=True,
        ),
        Panel(
            "Requests to the agents",
            "By the operator. none: no answer. 409: another leader, or a later document, was first.",
            (
                Series(
                    "sum by (method, code) (rate(trimtab_agent_requests_total[$__rate_interval]))",
                    "{{method}} {{code}}",
                ),
            ),
            unit="reqps",
        ),
    ),
)

EACH = Row(
    "Each rollout (metrics.perObject)",
    (
        Panel(
            "Ready",
            "Green: every pod answers with the wanted adapter.",
            (Series(f"trimtab_adapterrollout_ready{OBJECTS}", "{{namespace}}/{{name}}"),),
            "state-timeline",
            width=16,
            steps=(("red", None), ("green", 1)),
            words={"0": "not ready", "1": "ready"},
        ),
        Panel(
            "Age of what is served",
            "Since the requests moved to it. Old: nothing has passed since.",
            (Series(f"time() - trimtab_adapterrollout_served_timestamp_seconds{OBJECTS}", "{{namespace}}/{{name}}"),),
            unit="s",
        ),
    ),
)

AGENTS = Row(
    "Agents, as their pods tell (metrics.podMonitor.servingPods)",
    (
        Panel(
            "Engines that answer",
            "Of all serving pods that are scraped.",
            (
                Series(f"sum(trimtab_agent_engine_up{PODS})", "answer"),
                Series(f"count(trimtab_agent_engine_up{PODS})", "pods"),
            ),
        ),
        Panel(
            "Revisions by state",
            "coming: fetched, loaded or probed now. failed: podReasons of the rollout says why.",
            (Series(f"sum by (state) (trimtab_agent_revisions{PODS})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Names by what clients get",
            "to: an answer. pending: 503, soon an answer. unavailable: 503 with the reason.",
            (Series(f"sum by (state) (trimtab_agent_aliases{PODS})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "How long a revision takes to come",
            "95 of 100, by step. Fetch is the storage, Load and Probe are the engine.",
            (
                Series(
                    "histogram_quantile(0.95, sum by (step, le) "
                    f"(increase(trimtab_agent_step_duration_seconds_bucket{PODS}[1h])))",
                    "{{step}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "What went wrong",
            "Revisions by reason; engines that an adapter had harmed; engines that started; errors that are bugs.",
            (
                Series(f"sum by (reason) (increase(trimtab_agent_failures_total{PODS}[1h]))", "{{reason}}"),
                Series(f"sum(increase(trimtab_agent_engine_harmed_total{PODS}[1h]))", "engines harmed"),
                Series(f"sum(increase(trimtab_agent_engine_starts_total{PODS}[1h]))", "engine starts"),
                Series(f"sum(increase(trimtab_agent_errors_total{PODS}[1h]))", "bugs"),
            ),
            bars=True,
        ),
        Panel(
            "Documents, by what became of them",
            "accepted and known are good; all else was refused: signature, sequence, another's name.",
            (Series(f"sum by (result) (increase(trimtab_agent_documents_total{PODS}[1h]))", "{{result}}"),),
            bars=True,
        ),
    ),
)

ENGINES = Row(
    "Engines (metrics of vLLM itself, its pods scraped by a monitor of yours)",
    (
        Panel(
            "Answers",
            "Requests that ended, by how.",
            (
                Series(
                    f"sum by (finished_reason) (rate({_vllm('request_success_total')}[$__rate_interval]))",
                    "{{finished_reason}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            "Time of an answer",
            "From request to last token. Beside a rollout's mark: is the new adapter slower?",
            _quantiles(_vllm("e2e_request_latency_seconds_bucket")),
            unit="s",
        ),
        Panel(
            "Time to the first token",
            "Rises with the queue.",
            _quantiles(_vllm("time_to_first_token_seconds_bucket")),
            unit="s",
        ),
        Panel(
            "Requests in the engines",
            "waiting above 0 for long: more pods, or a shorter context.",
            (
                Series(f"sum({_vllm('num_requests_running')})", "running"),
                Series(f"sum({_vllm('num_requests_waiting')})", "waiting"),
            ),
        ),
        Panel(
            "Tokens a second",
            "Of all engines.",
            (
                Series(f"sum(rate({_vllm('prompt_tokens_total')}[$__rate_interval]))", "read"),
                Series(f"sum(rate({_vllm('generation_tokens_total')}[$__rate_interval]))", "written"),
            ),
        ),
        Panel(
            "Cache of keys and values",
            "Share in use, the fullest engine. Near 1 requests are put off or computed again.",
            (Series(f"max({_vllm('kv_cache_usage_perc')})", "fullest"),),
            unit="percentunit",
            steps=(("green", None), ("red", 0.95)),
        ),
    ),
)

SERVING = Dashboard(
    name="serving",
    title="Trimtab / Serving",
    what="Which adapters are served where, what is on its way, what was taken back, and how the engines are.",
    rows=(NOW, ROLLOUTS, EACH, AGENTS, ENGINES),
    variables=(
        Variable("namespace", "Namespace", "label_values(trimtab_adapterrollout_ready, namespace)"),
        Variable(
            "rollout", "AdapterRollout", 'label_values(trimtab_adapterrollout_ready{namespace=~"$namespace"}, name)'
        ),
        Variable("pods", "Serving pods in", "label_values(trimtab_agent_engine_up, namespace)"),
    ),
    marks=(
        (
            "Taken back",
            "sum by (reason) (increase(trimtab_rollbacks_total[2m])) > 0",
        ),
        (
            "Another adapter serves",
            "sum by (name) (changes(trimtab_adapterrollout_served_timestamp_seconds[2m])) > 0",
        ),
    ),
    since="now-6h",
)
