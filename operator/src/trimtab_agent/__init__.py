"""The agent beside each serving engine: it brings adapters in, proves them, and moves the names clients ask for.

`guard` is the one folder that runs inside the engine's process; everything else runs in the sidecar.
"""
