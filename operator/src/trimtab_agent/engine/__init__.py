"""The engine in the same pod: what it is asked, the proof it gives of a revision, and the file that runs inside it."""
