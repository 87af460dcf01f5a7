"""Pages that people look at together: one HTML file without scripts, fonts or pictures from elsewhere. No torch.

The report of a run (`reporting`) and that of an evaluation (`evaluate.reporting`) are made with it: words for figures,
inline SVG, and one style sheet, so that both open from a disk and under a strict Content-Security-Policy.
"""
