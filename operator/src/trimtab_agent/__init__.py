"""The agent beside each serving engine: it brings adapters in, proves them, and moves the names clients ask for.

`engine/guard.py` is the one file that runs inside the engine's process; everything else runs in the sidecar.
"""
