"""Make a tiny Hugging Face model: random weights, a vocabulary trained on the spot, a chat template.

    python make_tiny.py FOLDER       # in an environment with transformers, torch and tokenizers

vLLM's attention on CPUs takes no head smaller than 32 and knows 64, so that is the size of the heads.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2000
SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "<s>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main(folder: Path) -> None:
    """Write the model and its tokenizer."""
    torch.manual_seed(3)
    library = Path(sysconfig.get_paths()["stdlib"])
    trained = ByteLevelBPETokenizer()
    texts = [str(path) for path in sorted(library.glob("a*.py"))]
    trained.train(texts, vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        bos_token_id=trained.token_to_id("<s>"),
        eos_token_id=trained.token_to_id("</s>"),
        pad_token_id=trained.token_to_id("</s>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
