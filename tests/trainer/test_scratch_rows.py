import time
from pathlib import Path
from tests import browser
from tests.trainer.data_bench import DataBench, said
from tests.trainer.markup import CANARY, Page
from tests.console.objects import HOSTILE
def test_many(tiny_model: Path, tmp_path: Path):
    bench = DataBench(tiny_model, tmp_path)
    rows = [said(f"{HOSTILE} {CANARY} question {n} \u202e</mark></script>{'x' * (n % 7)}", f"{CANARY} answer {n * 7919} <img src=x onerror=alert({n})>") | {"team": f"{HOSTILE}{n % 500}"} for n in range(10_000)]
    bench.put("data/<script>alert(1)<.jsonl", rows)
    bench.training = {"maxSequenceLength": 512}
    bench.dataset = {"test": {"fraction": 0.2}, "audit": {"columns": ["team"]}}
    t=time.time(); bench.prepare(); print("prepare s", time.time()-t)
    (path,) = (info.path for info in bench.output.list("data/audits/") if info.path.endswith("data.html"))
    data = bench.output.read(path); print("bytes", len(data))
    file = tmp_path / "data.html"; file.write_bytes(data)
    assert data.count(b"<script") == 0 and CANARY.encode() not in data
    seen = browser.opened(file, tmp_path, 400)
    print(seen.complaints, seen.requests, seen.width)
    assert seen.complaints == () and seen.requests == () and seen.width == 400
