"""What is asked of pods and sent to them: how far trainers are, what serving pods hold, and what is signed for them."""
