"""The dashboard of the gate: what passes, what does not, and how good what is served was."""

from __future__ import annotations

from .grafana import Dashboard, Panel, Row, Series, Variable

GOOD = 'verdict=~"Passed|NoThresholds"'
BAD = 'verdict!~"Passed|NoThresholds"'
VALUES = 'trimtab_evaluation_value{namespace=~"$namespace", rollout=~"$rollout"}'
SHARE = f"sum(increase(trimtab_evaluations_total{{{GOOD}}}[7d])) / sum(increase(trimtab_evaluations_total[7d]))"

NOW = Row(
    "Now",
    (
        Panel(
            "Evaluating",
            "Evaluations with a running pod.",
            (Series('sum(trimtab_evaluation_states{state=~"Preparing|Evaluating|Publishing"}) or vector(0)'),),
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Waiting",
            "For their FineTuneJob, a node or quota.",
            (Series('sum(trimtab_evaluation_states{state=~"Pending|Queued|QuotaExceeded"}) or vector(0)'),),
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Passed, in the time shown",
            "Evaluations whose adapter may be served.",
            (Series(f"round(sum(increase(trimtab_evaluations_total{{{GOOD}}}[$__range]))) or vector(0)"),),
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Did not pass, in the time shown",
            "Runbook: TrimtabGateFailing. kubectl get ftev -A shows each verdict.",
            (Series(f"round(sum(increase(trimtab_evaluations_total{{{BAD}}}[$__range]))) or vector(0)"),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("orange", 1)),
        ),
        Panel(
            "Share that passed, of a week",
            "Near 1 for long: the thresholds may be too kind. Near 0: too strict, or the data changed.",
            (Series(SHARE),),
            "stat",
            unit="percentunit",
            width=4,
            height=4,
            steps=(("red", None), ("orange", 0.2), ("green", 0.5)),
        ),
        Panel(
            "Rollouts that wait for a verdict",
            "AdapterRollouts whose source has not passed, or not yet.",
            (
                Series(
                    'sum(trimtab_adapterrollouts{state=~"WaitingForSource|EvaluationNotPassed|NothingPassed'
                    '|BaselineChanged"}) or vector(0)'
                ),
            ),
            "stat",
            width=4,
            height=4,
        ),
    ),
)

GATE = Row(
    "The gate",
    (
        Panel(
            "Verdicts",
            "Reasons of Passed: ThresholdMissed and Regressed are about the adapter, InsufficientRows about the rows, "
            "MetricMissing and EvaluationFailed about the evaluation.",
            (Series("sum by (verdict) (increase(trimtab_evaluations_total[1h]))", "{{verdict}}"),),
            bars=True,
            width=12,
        ),
        Panel(
            "Share that passed, over time",
            "A fall: compare data and thresholds with those of the last adapter that passed.",
            (Series(SHARE, "passed"),),
            unit="percentunit",
            width=12,
        ),
        Panel(
            "By state",
            "What all Evaluations are doing.",
            (Series("sum by (state) (trimtab_evaluation_states)", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Time to the verdict",
            "From the first Job to the end, of those that ended within a day.",
            tuple(
                Series(
                    f"histogram_quantile({share}, sum by (le) "
                    "(increase(trimtab_evaluation_duration_seconds_bucket[1d])))",
                    name,
                )
                for share, name in ((0.5, "half of them"), (0.9, "nine of ten"))
            ),
            unit="s",
        ),
        Panel(
            "Attempts that ended badly, by reason",
            "Tasks that are done are not asked again by the next attempt.",
            (
                Series(
                    "sum by (reason) "
                    '(increase(trimtab_attempts_total{stage=~"evaluate|judge", reason!~"Completed|Suspended"}[1h]))',
                    "{{reason}}",
                ),
            ),
            bars=True,
        ),
    ),
)

QUALITY = Row(
    "How good what is served was (metrics.perObject)",
    (
        Panel(
            "Figures of the served adapters",
            "Of the Evaluation that each served adapter passed last; a step is another adapter. Perplexities: less is "
            "better; shares such as f1Macro: more is better.",
            (Series(VALUES, "{{namespace}}/{{rollout}} {{metric}}"),),
            width=16,
            height=10,
            logarithmic=True,
        ),
        Panel(
            "Figures now",
            "One line for each figure of each AdapterRollout.",
            (Series(VALUES),),
            "table",
            width=8,
            height=10,
        ),
    ),
)

EVALUATION = Dashboard(
    name="evaluation",
    title="Trimtab / Evaluation",
    what="What Evaluations say of adapters, and how good those are that are served.",
    rows=(NOW, GATE, QUALITY),
    variables=(
        Variable("namespace", "Namespace", "label_values(trimtab_evaluation_value, namespace)"),
        Variable(
            "rollout", "AdapterRollout", 'label_values(trimtab_evaluation_value{namespace=~"$namespace"}, rollout)'
        ),
    ),
    since="now-7d",
)
