"""Answers judged by a model: what it is asked, who is asked, what was said, and whether that can be relied on.

prompts      what a judge reads and the only replies that count. Pure
judgements   from answers to questions, from replies to figures and to whether the judge is reliable. Pure
judge        a task judged: asked once, stored, looked at
prepare      what of a judge is refused before a GPU is asked for
look         whether it can be asked and read at all, before there are answers
endpoint     an OpenAI-compatible server, with bounded patience: nothing else asks more than storage
local        a model from object storage, whose likelihood of each permitted reply decides
store        judgements in object storage, under the digest of all that was asked, as they come
"""
