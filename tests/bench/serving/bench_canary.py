"""How often the canary errs, and what it sees with how many requests: `make bench-canary`. The last line is JSON.

Requests come evenly over the 60 seconds of a canary at the default settings, to one canary pod and to two that still
serve the old revision. The analysis of the operator looks at their counts every second, as it does in a cluster. `worst
false rollback` is the highest of all rates at which a revision as good as the old one is taken back, whatever both do
badly; by the law it is at most 1.2 %. `detection` is how often it is taken back when 0.5 % of the old revision's
requests fail and 5 % of its own do. Times are drawn from a logarithmic normal distribution, as those of real engines
nearly are; `spread` is its standard deviation on the logarithmic scale. All draws are seeded.

Exit code 1: a good revision is taken back more often than the law allows, or requests that end nowhere are promoted.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import replace

from trimtab_operator.domain.adapterrollout.canary.analysis import FALSE_ERRORS, FALSE_LATENCY

from tests.unit.domain.rollout.canaries import Side, rate

SIZES = (60, 200, 600, 2000)
BASES = (0.005, 0.02, 0.05, 0.2)
WORSE = (0.01, 0.025, 0.05, 0.1)
SPREADS = (0.5, 1.0, 1.5)
STABLE = 2
"""Requests to the old revision for each to the new one."""
LAW = FALSE_ERRORS + FALSE_LATENCY
CHANCE = 4.0
"""Standard deviations that a rate may be above the law in one of so many draws."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="canaries for each rate of a false rollback")
    parser.add_argument("--fewer", type=int, default=500, help="canaries for each other rate")
    args = parser.parse_args()

    def often(words: str, new: Side, stable: float = STABLE, times: int = args.fewer, **old: float) -> float:
        side = replace(new, requests=int(new.requests * stable), hang=0.0, leave=0.0, **old)
        seed = zlib.crc32(repr((words, new, side)).encode())
        return rate(words, new, side, times=times, seed=seed)

    worst = 0.0
    print("taken back though both are equally good")
    for requests in SIZES:
        for base in BASES:
            new = Side(requests, errors=base, spread=1.0)
            found = often("ErrorRatio Latency", new, times=args.trials)
            worst = max(worst, found)
            print(f"  {requests} requests, {base:.1%} fail on both: {found:.2%}", flush=True)
    print("taken back for errors; of the old revision's requests 0.5 % fail")
    detection = {}
    for requests in SIZES:
        seen = [often("ErrorRatio", Side(requests, errors=errors), errors=0.005) for errors in WORSE]
        detection[requests] = seen[WORSE.index(0.05)]
        print(f"  {requests} requests: {_row(WORSE, seen)}", flush=True)
    print("the same with 1, 4 and 8 stable pods; 5 % fail")
    for requests in SIZES[:3]:
        seen = [often("ErrorRatio", Side(requests, errors=0.05), stable=pods, errors=0.005) for pods in (1, 4, 8)]
        print(f"  {requests} requests: {', '.join(f'{each:.0%}' for each in seen)}", flush=True)
    print("taken back for times twice as long")
    latency = {}
    for requests in SIZES:
        seen = [often("Latency", Side(requests, median=4.0, spread=spread), median=2.0) for spread in SPREADS]
        latency[requests] = seen[1]
        print(f"  {requests} requests: {_row(SPREADS, seen, 'spread {}')}", flush=True)
    nowhere = {"hang": Side(200, hang=0.95), "left by clients": Side(200, leave=0.75)}
    promoted = max(often("Promoted", side) for side in nowhere.values())
    equal = often("Held", Side(200), times=args.trials)
    print(f"promoted though 190 of 200 hang, or 150 of 200 are left: {promoted:.1%}; held without reason: {equal:.1%}")
    figures = {
        "worst_false_rollback": round(worst, 4),
        **{f"detection_{requests}": round(seen, 3) for requests, seen in detection.items()},
        **{f"latency_detection_{requests}": round(seen, 3) for requests, seen in latency.items()},
        "hanging_promoted": round(promoted, 4),
        "trials": args.trials,
    }
    print(json.dumps(figures))
    allowed = LAW + CHANCE * (LAW * (1 - LAW) / args.trials) ** 0.5
    return 1 if worst > allowed or promoted > 0 else 0


def _row(of: tuple[float, ...], seen: list[float], name: str = "{:.1%}") -> str:
    return ", ".join(f"{name.format(each)}: {found:.0%}" for each, found in zip(of, seen, strict=True))


if __name__ == "__main__":
    sys.exit(main())
