"""Everything with I/O: what is watched and cached, when a decision is asked for, and how its plan is carried out."""
