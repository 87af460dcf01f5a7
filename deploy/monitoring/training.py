"""The dashboard of whoever trains, and of whoever runs the operator."""

from __future__ import annotations

from .grafana import Dashboard, Panel, Row, Series, Variable

OF_RUNS = '{namespace=~"$namespace", pod=~"$pod"}'
RUN = "{{namespace}}/{{pod}}"


def _jobs(*states: str) -> str:
    return f'sum(trimtab_finetunejobs{{state=~"{"|".join(states)}"}}) or vector(0)'


def _of_run(title: str, what: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, what, (Series(expr.replace("{}", OF_RUNS), RUN),), unit=unit)


NOW = Row(
    "Now",
    (
        Panel(
            "Preparing or training",
            "FineTuneJobs with a running pod.",
            (Series(_jobs("Preparing", "Training", "Publishing")),),
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Waiting for a node or quota",
            "Runbook: TrimtabJobsQueued. kubectl get ftj -A says for what each waits.",
            (Series(_jobs("Queued", "QuotaExceeded")),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("orange", 1)),
        ),
        Panel(
            "Retrying",
            "FineTuneJobs between two attempts.",
            (Series(_jobs("Retrying")),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("orange", 1)),
        ),
        Panel(
            "Something is missing",
            "Volumes, images, settings of a container or a free name. Most fail after podStartSeconds.",
            (Series(_jobs("VolumeUnavailable", "ImageUnavailable", "ContainerInvalid", "PodRefused", "NameTaken")),),
            "stat",
            width=4,
            height=4,
            steps=(("green", None), ("red", 1)),
        ),
        Panel(
            "Longest without a step",
            "Of all running trainers; validation counts from its beginning. Runbook: TrimtabTrainingStalled.",
            (Series("max(trimtab_progress_stalled_seconds)"),),
            "stat",
            unit="s",
            width=4,
            height=4,
            steps=(("green", None), ("orange", 600), ("red", 1800)),
        ),
        Panel(
            "Operator",
            "Whether a replica leads. Runbook: TrimtabOperatorNotLeading.",
            (Series("max(trimtab_leader) or vector(0)"),),
            "stat",
            width=4,
            height=4,
            steps=(("red", None), ("green", 1)),
            words={"0": "nobody leads", "1": "leads"},
        ),
    ),
)

JOBS = Row(
    "FineTuneJobs",
    (
        Panel(
            "By state",
            "What all FineTuneJobs are doing; the words are those of kubectl get ftj.",
            (Series("sum by (state) (trimtab_finetunejobs)", "{{state}}"),),
            stacked=True,
            width=12,
        ),
        Panel(
            "Ended, by outcome",
            "What is not Completed is explained in docs/failure-modes.md.",
            (Series("sum by (outcome) (increase(trimtab_finetunejob_duration_seconds_count[1h]))", "{{outcome}}"),),
            bars=True,
            width=6,
        ),
        Panel(
            "Time to the adapter",
            "From the first Job to Completed, of those that completed within a day.",
            tuple(
                Series(
                    f"histogram_quantile({share}, sum by (le) "
                    '(increase(trimtab_finetunejob_duration_seconds_bucket{outcome="Completed"}[1d])))',
                    name,
                )
                for share, name in ((0.5, "half of them"), (0.9, "nine of ten"))
            ),
            unit="s",
            width=6,
        ),
    ),
)

ATTEMPTS = Row(
    "Attempts and accelerators",
    (
        Panel(
            "Attempts that ended badly, by reason",
            "Disruptions cost time, failures cost the budget retries.onFailure. Runbook: TrimtabRetriesBurning.",
            (
                Series(
                    'sum by (stage, reason) (increase(trimtab_attempts_total{reason!~"Completed|Suspended"}[1h]))',
                    "{{stage}} {{reason}}",
                ),
            ),
            bars=True,
        ),
        Panel(
            "Accelerator time of ended attempts, per day",
            "One accelerator for one second is one. Lost: what has to be done again.",
            (
                Series("sum(increase(trimtab_accelerator_seconds_total[1d]))", "spent"),
                Series("sum(increase(trimtab_lost_accelerator_seconds_total[1d]))", "of it lost"),
            ),
            unit="s",
        ),
        Panel(
            "Share of accelerator time that was lost, of a day",
            "High: save checkpoints more often (checkpoint.everySteps), or look for what takes the pods away.",
            (
                Series(
                    "sum(increase(trimtab_lost_accelerator_seconds_total[1d])) "
                    "/ sum(increase(trimtab_accelerator_seconds_total[1d]))",
                    "lost",
                ),
            ),
            unit="percentunit",
            steps=(("green", None), ("red", 0.25)),
        ),
    ),
)

RUNS = Row(
    "Runs, as their own pods tell (metrics.podMonitor.workPods)",
    (
        _of_run(
            "Training loss",
            "In nats per supervised token, over the newest steps. A rise without end: lower the learning rate.",
            "trimtab_trainer_loss{}",
        ),
        _of_run(
            "Validation loss",
            "In nats per supervised token. Rises while the training loss falls: the adapter learns by heart.",
            "trimtab_trainer_validation_loss{}",
        ),
        _of_run("Done", "Steps done, of all.", "trimtab_trainer_step{} / trimtab_trainer_steps{}", "percentunit"),
        _of_run(
            "Tokens a second",
            "Of training sequences. A fall at the same batch size: the accelerator is shared, throttled, or waits.",
            "trimtab_trainer_tokens_per_second{}",
        ),
        _of_run(
            "Gradient norm",
            "Before clipping. Spikes that the loss follows: lower the learning rate or clip lower.",
            "trimtab_trainer_gradient_norm{}",
        ),
        _of_run("Learning rate", "Of the newest step.", "trimtab_trainer_learning_rate{}"),
        _of_run(
            "Pairs that are told apart",
            "Of DPO, KTO and ORPO: the share of pairs whose chosen answer has more reward. It begins at a half.",
            "trimtab_trainer_reward_accuracy{}",
            "percentunit",
        ),
        _of_run(
            "Margin of rewards",
            "Reward of wanted answers minus that of the others. It grows while the accuracy stands still: by heart.",
            "trimtab_trainer_reward_margin{}",
        ),
        _of_run(
            "Memory of the accelerator, at most",
            "What tensors took; far below the card's: raise microBatchSize.",
            "trimtab_trainer_accelerator_memory_peak_bytes{}",
            "bytes",
        ),
        _of_run(
            "Steps at risk",
            "Done since the newest checkpoint: what a lost node would cost.",
            "trimtab_trainer_step{} - trimtab_trainer_checkpoint_step{}",
        ),
        Panel(
            "Time that is not training",
            "Share that checkpoints and validation take. High: raise evaluateEverySteps or checkpoint.everySteps.",
            (
                Series(
                    f"rate(trimtab_trainer_checkpoint_seconds_total{OF_RUNS}[$__rate_interval])",
                    f"checkpoints {RUN}",
                ),
                Series(
                    f"rate(trimtab_trainer_evaluation_seconds_total{OF_RUNS}[$__rate_interval])",
                    f"validation {RUN}",
                ),
            ),
            unit="percentunit",
        ),
    ),
)

OPERATOR = Row(
    "The operator itself",
    (
        Panel(
            "Rounds",
            "A round looks at one object. failed is a bug or an unreachable API server: read the operator's log.",
            (Series("sum by (kind, result) (rate(trimtab_reconcile_total[$__rate_interval]))", "{{kind}} {{result}}"),),
            unit="ops",
        ),
        Panel(
            "Duration of 99 of 100 rounds",
            "The API server's answers included.",
            (
                Series(
                    "histogram_quantile(0.99, sum by (kind, le) "
                    "(rate(trimtab_reconcile_duration_seconds_bucket[$__rate_interval])))",
                    "{{kind}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Queue",
            "Keys that wait for a worker: above 0 for long, raise settings.workers. Put off: rounds after an error.",
            (
                Series("max(trimtab_workqueue_depth)", "waiting"),
                Series("sum(rate(trimtab_workqueue_retries_total[$__rate_interval]))", "put off a second"),
            ),
        ),
        Panel(
            "Requests to the API server",
            "429: it sheds load. 409 now and then is normal, 403 never is.",
            (
                Series(
                    "sum by (code, resource) (rate(trimtab_api_requests_total[$__rate_interval]))",
                    "{{code}} {{resource}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            "Age of what is known",
            "Since the last audit of each resource. Watches may be quiet; audits come every auditSeconds.",
            (Series("time() - max by (resource) (trimtab_audit_last_success_timestamp_seconds)", "{{resource}}"),),
            unit="s",
            steps=(("green", None), ("red", 220)),
        ),
        Panel(
            "What no watch told, and polls in vain",
            "An audit found it; seldom is normal. Polls in vain: a NetworkPolicy, or a trainer that hangs.",
            (
                Series(
                    "sum by (resource) (increase(trimtab_cache_missed_changes_total[1h]))", "changes of {{resource}}"
                ),
                Series(
                    "sum by (resource) (increase(trimtab_cache_ghosts_removed_total[1h]))", "deletions of {{resource}}"
                ),
                Series(
                    'sum by (result) (increase(trimtab_progress_polls_total{result!="ok"}[1h]))', "polls {{result}}"
                ),
            ),
        ),
        Panel(
            "Notifications",
            "What endpoints outside are told. Waiting for long: runbook TrimtabNotificationsNotDelivered.",
            (
                Series(
                    "sum by (receiver, result) (increase(trimtab_notifications_total[1h]))", "{{receiver}} {{result}}"
                ),
                Series("max by (receiver) (trimtab_notifications_pending)", "{{receiver}} waiting"),
            ),
        ),
    ),
    collapsed=True,
)

SWEEPS = Row(
    "Sweeps",
    (
        Panel(
            "Sweeps by state",
            "What all FineTuneSweeps are doing. kubectl get fts -A shows each with its best value.",
            (Series("sum by (state) (trimtab_finetunesweeps)", "{{state}}"),),
        ),
        Panel(
            "Trials that are over",
            "By outcome: Complete has a value, others are reasons of FineTuneJobs. Only those: read its message.",
            (Series("sum by (outcome) (increase(trimtab_sweep_trials_total[1h]))", "{{outcome}}"),),
        ),
        Panel(
            "Accelerator seconds saved by pruning",
            "Of sweeps that have ended, an estimate: the mean of trials trained to their end without what others took.",
            (Series("sum(increase(trimtab_sweep_saved_accelerator_seconds_total[1d]))", "saved in a day"),),
            unit="s",
        ),
        Panel(
            "Duration of half of the sweeps",
            "From the first trial to the end.",
            (
                Series(
                    "histogram_quantile(0.5, sum by (outcome, le) "
                    "(increase(trimtab_finetunesweep_duration_seconds_bucket[7d])))",
                    "{{outcome}}",
                ),
            ),
            unit="s",
        ),
    ),
    collapsed=True,
)

EXPORTS = Row(
    "Exports",
    (
        Panel(
            "Exports by state",
            "What all AdapterExports are doing. kubectl get aex -A shows each with its size.",
            (Series("sum by (state) (trimtab_adapterexports)", "{{state}}"),),
        ),
        Panel(
            "Duration of half of the exports",
            "From the first Job to the end.",
            (
                Series(
                    "histogram_quantile(0.5, sum by (outcome, le) "
                    "(increase(trimtab_adapterexport_duration_seconds_bucket[7d])))",
                    "{{outcome}}",
                ),
            ),
            unit="s",
        ),
    ),
    collapsed=True,
)

TRAINING = Dashboard(
    name="training",
    title="Trimtab / Training",
    what="FineTuneJobs from the queue to the adapter, what accelerators were spent on, and the operator itself.",
    rows=(NOW, JOBS, ATTEMPTS, RUNS, SWEEPS, EXPORTS, OPERATOR),
    variables=(
        Variable("namespace", "Namespace", "label_values(trimtab_trainer_step, namespace)"),
        Variable("pod", "Run", 'label_values(trimtab_trainer_step{namespace=~"$namespace"}, pod)'),
    ),
)
