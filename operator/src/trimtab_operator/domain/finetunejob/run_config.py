"""The trainer's configuration of a FineTuneJob."""

from __future__ import annotations

from trimtab_trainer.contract import RunConfig, RunIdentity, StoredBaseModel, StoredDataset, StoredOutput

from trimtab_operator.api import FineTuneJob

from ..work.building.job import credentials


def build_run_config(job: FineTuneJob) -> RunConfig:
    """Return the trainer's configuration; it is the same for every attempt."""
    spec = job.spec
    return RunConfig(
        run=RunIdentity(name=job.metadata.name, namespace=job.metadata.namespace, uid=job.metadata.uid),
        base_model=StoredBaseModel(
            uri=spec.base_model.uri,
            digest=spec.base_model.digest,
            credentials=credentials(spec.base_model.secret_name, "base-model"),
        ),
        dataset=StoredDataset(
            format=spec.dataset.format,
            ignore_keys=spec.dataset.ignore_keys,
            chat_template=spec.dataset.chat_template,
            training=spec.dataset.training,
            validation=spec.dataset.validation,
            test=spec.dataset.test,
            split_seed=spec.dataset.split_seed,
            group_by=spec.dataset.group_by,
            stratify_by=spec.dataset.stratify_by,
            cleaning=spec.dataset.cleaning,
            balance=spec.dataset.balance,
            audit=spec.dataset.audit,
            credentials=credentials(spec.dataset.secret_name, "dataset"),
        ),
        output=StoredOutput(uri=spec.output.uri, credentials=credentials(spec.output.secret_name, "output")),
        lora=spec.lora,
        quantization=spec.quantization,
        training=spec.training,
        checkpoint=spec.checkpoint,
    )
