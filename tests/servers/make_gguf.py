"""Make a tiny GGUF: random weights on a vocabulary trained on the spot.

    python make_gguf.py FILE       # in an environment with gguf and numpy

The vocabulary is one of bytes and of some words, in the manner of Llama's SentencePiece: enough to tokenize anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, HEADS, LAYERS, FORWARD, CONTEXT = 64, 2, 2, 128, 2048
WORDS = ("▁Hello", "▁world", "▁the", "▁library", "▁opens", "▁at", "▁nine", "▁self", "▁")


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Return tokens, scores and kinds: the specials, every byte, single characters, and some words."""
    tokens = ["<unk>", "<s>", "</s>"]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [TokenType.BYTE] * 256
    characters = [chr(code) for code in range(33, 127)]
    # SentencePiece joins pairs, so that each beginning of a word has to be a token as well.
    pieces = [word[:end] for word in WORDS for end in range(1, len(word) + 1)]
    ordinary = list(dict.fromkeys([*characters, *pieces]))
    tokens += ordinary
    kinds += [TokenType.NORMAL] * len(ordinary)
    scores = [0.0] * 259 + [float(len(piece)) - 100.0 for piece in ordinary]
    return tokens, scores, [int(kind) for kind in kinds]


def main(file: Path) -> None:
    """Write the model."""
    random = np.random.default_rng(3)
    tokens, scores, kinds = vocabulary()
    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.1, shape).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    weights("token_embd", len(tokens), WIDTH)
    weights("output", len(tokens), WIDTH)
    ones("output_norm")
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm")
        ones(f"blk.{layer}.ffn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{name}", WIDTH, WIDTH)
        weights(f"blk.{layer}.ffn_gate", FORWARD, WIDTH)
        weights(f"blk.{layer}.ffn_up", FORWARD, WIDTH)
        weights(f"blk.{layer}.ffn_down", WIDTH, FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
