"""Asks llama.cpp: a program of its own, in an environment of its own, because llama-cpp-python is compiled.

python llama.py MODEL.gguf QUESTIONS.json    prints JSON: tokens of each text, greedy answers to each prompt's tokens
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp


def main(model: str, questions: str) -> None:
    asked = json.loads(Path(questions).read_text())
    llama = llama_cpp.Llama(model, n_ctx=512, n_threads=2, logits_all=False, verbose=False, seed=0)
    tokens = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in asked["texts"]]
    answers = []
    for prompt in asked["prompts"]:
        llama.reset()
        answer: list[int] = []
        for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
            answer.append(int(token))
            if len(answer) == asked["length"]:
                break
        answers.append(answer)
    template = llama.metadata.get("tokenizer.chat_template")
    print(json.dumps({"tokens": tokens, "answers": answers, "template": template, "eos": llama.token_eos()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
