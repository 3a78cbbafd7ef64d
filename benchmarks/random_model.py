"""Make a small chat model with seeded random weights and a tokenizer of its own: nothing is fetched, nothing learned.

    python benchmarks/random_model.py FOLDER [--layers 16 --hidden 1024 --vocabulary 8192 --seed 0]

Stand-alone: needs torch, transformers and tokenizers, nothing of ours, so that an engine's interpreter can run it. Such
a model answers nonsense at the speed and in the memory of a real one of its size: speed, memory, search and release can
be measured with it where no weights are at hand; quality cannot.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "사과",
    "귤",
    "연필",
    "공책",
    "마리",
    "모두",
    "합하면",
    "몇",
    "입니까",
    "남은",
    "나누어",
    "더하면",
    "답",
    "answer",
    "the",
)


def sentences(seed: int, count: int = 4000):
    """Texts of numbers and common words, the same for every seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield " ".join(rng.choice([rng.choice(WORDS), str(rng.randrange(1000))]) for _ in range(12))


def tokenizer(folder: Path, *, vocabulary: int, seed: int) -> int:
    """Train and save a byte-level BPE tokenizer with a chat template; the number of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(sentences(seed), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    return made.get_vocab_size()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    import torch  # noqa: PLC0415 - after --help
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    given.folder.mkdir(parents=True, exist_ok=True)
    tokenizer(given.folder, vocabulary=given.vocabulary, seed=given.seed)
    torch.manual_seed(given.seed)
    config = LlamaConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.hidden,
        intermediate_size=4 * given.hidden,
        num_hidden_layers=given.layers,
        num_attention_heads=given.hidden // 64,
        num_key_value_heads=max(1, given.hidden // 256),
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(given.folder)
    print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
