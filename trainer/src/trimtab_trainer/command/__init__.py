"""What people type, beside the stages of a run."""
