"""Kinds of language models that transformers has and Trimtab cannot train, and why.

`make test-architectures` takes every kind that can be made tiny through both stages, and fails for one missing here.
What is not known of is found by the train stage, and ends it by name.
"""

from __future__ import annotations

ENCODERS = "it is an encoder, made to fill gaps"
HALVES = "it is the decoder of a translator or recognizer, which reads what its encoder says"
NAMES = "its layers have other names in memory than in files, so what is adapted cannot be told before"
HEADS = "transformers makes its logits in another way than its text part's head does"
WITH_OTHERS = "its text part is not made to be run alone"
BOTH_WAYS = "it attends in both directions, so each token of an answer would be seen before it is predicted"

REASONS: dict[str, tuple[str, ...]] = {
    ENCODERS: (
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
        "modernbert-decoder", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
    ),
    HALVES: (
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "musicgen", "musicgen_melody",
        "mvp", "pegasus", "plbart", "prophetnet", "trocr", "whisper",
    ),
    NAMES: (
        "axk2", "bailing_hybrid", "beam", "cosmos3_edge", "cosmos3_omni", "ctrl", "deepseek_v4", "git", "hrm_text",
        "hy_v4", "inkling2", "inkling2_text", "inkling_mm_model", "inkling_text", "minimax_m3_vl", "mistral_large4",
        "phi4_multimodal", "rwkv", "shieldgemma2",
    ),
    HEADS: ("aya_vision", "cohere2_vision", "muse_glimmer"),
    WITH_OTHERS: (
        "blip", "blip-2", "gemma4_assistant", "gemma4_unified_assistant", "instructblip", "instructblipvideo",
        "kosmos-2", "kosmos-2.5", "voxtral_realtime",
    ),
    BOTH_WAYS: ("cpmant", "paligemma", "xlm", "xlnet"),
    "its layers compute with their weights past quantization and adapter": ("longcat_flash", "mamba"),
    "it writes to its weights while it is trained": ("gemma3n", "gemma3n_text"),
}  # fmt: skip

NOT_PACKED = frozenset({
    "afmoe", "bamba", "biogpt", "bloom", "falcon", "falcon_h1", "falcon_mamba", "gpt_oss", "granitemoehybrid",
    "hunyuan_vl", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "lfm2_vl", "lfm3", "lfm3_vl", "mamba2", "minicpm_ocr",
    "minicpmv4_6", "minicpmv4_7", "minimax", "mpt", "nemotron_h", "olmo_hybrid", "openai-gpt", "opt", "qwen3_5",
    "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma",
    "xglm", "xlstm", "zamba2", "zaya",
})  # fmt: skip
"""Kinds in which rows of one sequence influence each other: they take no account of positions, or carry a state on."""


def unsupported(kind: str) -> str | None:
    """Return why a model_type cannot be trained; None if nothing is known against it."""
    return next((why for why, kinds in REASONS.items() if kind in kinds), None)
