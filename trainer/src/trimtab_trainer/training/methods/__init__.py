"""What a step's loss is: of supervised tokens (SFT), of pairs (DPO, ORPO) or of labelled answers (KTO).

`objective` has the one interface that the loop knows. A preference method goes by the log-probability of whole answers
(`log_probabilities`), by their arithmetic (`losses`), and by what the model said before training (`reference`).
"""
