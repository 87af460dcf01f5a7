"""A run on several accelerators, of one pod or of several: a process each, which train as one.

nodes       which pods there are, and which of them this one is
processes   how many there are in this pod, and which of all this one is
supervisor  starts those of its pod, ends them, and says how all of them ended
meeting     where those of several pods find each other
ending      which of their ends is that of the run
world       what they tell each other
sharing     who computes which micro-batch
checkpoints what the others have of the leader's

The leader, rank 0, alone tells progress, writes checkpoints, publishes and has last words. No module but `world` and
`checkpoints` imports torch.
"""
