"""What the machine has and what a run takes of it: processors, memory, accelerators, energy."""
