"""The tiny base model, made once; one thread, for on a busy machine two of them mostly wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from trimtab_trainer.storage import open_store

from tests.trainer.conftest import ObjectStorage
from tests.trainer.tiny import make_tiny_model

if TYPE_CHECKING:
    from tests.trainer.evaluate.bench import EvaluationBench

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model."""
    from trimtab_trainer.training.machine import hardware

    hardware.configure()
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path) -> EvaluationBench:
    """Storage on a folder; a target that was trained on 40 facts, 8 of them held out."""
    from tests.trainer.evaluate.bench import facts, make_evaluation_bench

    made = make_evaluation_bench(open_store((tmp_path / "store").as_uri(), None), None, tmp_path, model=tiny_model)
    made.document["target"] = made.train(facts(40))
    return made


@pytest.fixture
def plain(tiny_model: Path, tmp_path: Path) -> EvaluationBench:
    """The base model alone, and it has no chat template."""
    from tests.trainer.evaluate.bench import make_evaluation_bench

    store = open_store((tmp_path / "store").as_uri(), None)
    return make_evaluation_bench(store, None, tmp_path, chat_template=None, model=tiny_model)


@pytest.fixture
def remote(object_storage: ObjectStorage, tiny_model: Path, tmp_path: Path) -> EvaluationBench:
    """The same as `bench`, on S3."""
    from tests.trainer.evaluate.bench import facts, make_evaluation_bench

    credentials = object_storage.credentials()
    store = open_store(object_storage.uri(), credentials)
    made = make_evaluation_bench(store, credentials, tmp_path, model=tiny_model)
    made.document["target"] = {**made.train(facts(40)), "credentials": credentials.to_json()}
    return made


@pytest.fixture(scope="module", autouse=True)
def _own_rounding() -> Iterator[None]:
    """Take back what the stage tells the library of products: other tests start processes that train."""
    before = os.environ.get("MKL_CBWR")
    yield
    os.environ.pop("MKL_CBWR", None)
    if before is not None:
        os.environ["MKL_CBWR"] = before
