import os, time, json
import pytest
from tests.console.conftest import Team, console
from tests.console.test_many import crowded, MANY
from tests.console.window import window
pytestmark = pytest.mark.cluster
TIMING = """JSON.stringify({n: performance.getEntriesByType('navigation').map(e=>({r0:e.redirectStart|0, r1:e.redirectEnd|0, req:e.requestStart|0, rs:e.responseStart|0, re:e.responseEnd|0, dcl:e.domContentLoadedEventEnd|0, load:e.loadEventEnd|0, fcp:(performance.getEntriesByName('first-contentful-paint')[0]||{}).startTime|0})),
 r: performance.getEntriesByType('resource').map(e=>[e.name.split('/').pop().split('?')[0], e.startTime|0, e.responseEnd|0])})"""
def test_first(crowded: Team, tmp_path, capsys):
    for round in range(4):
        for which in ("new", "main"):
            env = {} if which == "new" else {"PYTHONPATH": "/work/main/cli/src"}
            with console(crowded.users["jane"], **env) as (address, _):
                home = address.partition("/login")[0]
                with window(tmp_path / f"{which}{round}", home) as page:
                    page.visit(address, "location.pathname.startsWith('/ns/')")
                    ms = page.times[-1][1]
                    t = page.run(TIMING)
                    still = "Still reading" in page.text()
                    with window(tmp_path / f"x{which}{round}", home) as another:
                        another.visit("/healthz", "true"); h = another.times[-1][1]
                    with capsys.disabled(): print(f"\n{which} {ms:.0f} ms, healthz fresh {h:.0f}, load {os.getloadavg()[0]:.1f} still {still} {t}", flush=True)
