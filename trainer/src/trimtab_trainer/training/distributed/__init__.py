"""A run on several accelerators of one machine: a process each, which train as one.

processes   how many there are, and which of them this one is
supervisor  starts them, ends them, and says how all of them ended
ending      which of their ends is that of the run
world       what they tell each other
sharing     who computes which micro-batch
checkpoints what the others have of the leader's

The leader, rank 0, alone tells progress, writes checkpoints, publishes and has last words. No module but `world` and
`checkpoints` imports torch.
"""
