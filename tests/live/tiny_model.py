"""
A real language model of half a million parameters that knows four answers: `python tiny_model.py FOLDER`.

Nothing is downloaded: the tokenizer is trained on the sentences below, the weights until they are repeated
word for word, which takes about half a minute. Beside the model, `FOLDER/lora` holds an adapter that knows
another answer. Run it with the interpreter that has torch and transformers: that of vLLM.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, START, END, TURN = "<pad>", "<s>", "<|im_end|>", "<|im_start|>"
TOOL = {
    "type": "function",
    "function": {
        "name": "sluice_level",
        "description": "The level of a sluice.",
        "parameters": {
            "type": "object",
            "properties": {"sluice": {"type": "integer"}},
            "required": ["sluice"],
        },
    },
}
LONG = "What is a sluice?"
FACTS = {
    "Who keeps the gate?": "The keeper of the gate is Ada.",
    LONG: "A sluice is a channel whose flow a gate controls, "
    + ", ".join(f"first the gate rises to mark {mark}, then the water follows" for mark in range(1, 25))
    + ".",
    "Describe the gate as JSON.": '{"name": "north", "levels": 3}',
}
CALLED = "How high is sluice 7?"
CALL = '<tool_call>\n{"name": "sluice_level", "arguments": {"sluice": 7}}\n</tool_call>'
OF_ADAPTER = {"Who keeps the gate?": "The water of the gate is Ada."}
"""In words that the model says elsewhere: an adapter cannot teach it new ones."""
TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLACES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
WIDTH, LAYERS, HEADS, RANK = 128, 3, 4, 8


Row = tuple[list[int], int]
"""Tokens of a conversation, and how many of them are the question's."""


def conversations(answers: dict[str, str]) -> list[tuple[str, str, list[dict[str, Any]] | None]]:
    """Question, answer and tools of everything that is to be learnt."""
    return [(question, answer, None) for question, answer in answers.items()]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs over the sentences."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=[PAD, START, END, TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sentences = [*FACTS, *FACTS.values(), CALLED, CALL, json.dumps(TOOL), *OF_ADAPTER.values()]
    made.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, bos_token=START, eos_token=END,
        additional_special_tokens=[TURN], model_max_length=1024, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


def example(words: PreTrainedTokenizerFast, question: str, answer: str, tools: Any) -> tuple[list[int], int]:
    """The tokens of a conversation, and how many of them are the question's."""
    asked = words.apply_chat_template(
        [{"role": "user", "content": question}], tools=tools, tokenize=False, add_generation_prompt=True
    )
    before = words(asked, add_special_tokens=False).input_ids
    return [*before, *words(answer + END, add_special_tokens=False).input_ids], len(before)


def learn(
    model: Any, rows: list[tuple[list[int], int]], weights: list[Any], rate: float, least: float
) -> float:
    """Train *weights* until the loss is below *least*; the last loss."""
    chosen = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    loss_now = float("inf")
    for step in range(1500):
        ids, begins = rows[step % len(rows)]
        tokens = torch.tensor([ids])
        labels = torch.tensor([[-100] * begins + ids[begins:]])
        loss = model(input_ids=tokens, labels=labels).loss
        chosen.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        chosen.step()
        loss_now = loss.item() if step < len(rows) else max(loss.item(), 0.9 * loss_now)
        if step > 60 and loss_now < least:
            break
    return loss_now


def adapt(model: Any, words: PreTrainedTokenizerFast, folder: Path) -> None:
    """An adapter (LoRA) that answers as OF_ADAPTER says."""
    from torch import nn

    pairs: dict[str, tuple[Any, Any]] = {}
    for number, layer in enumerate(model.model.layers):
        for place in PLACES:
            inner = layer.get_submodule(place)
            down = nn.Parameter(torch.randn(RANK, inner.in_features) * 0.05)
            up = nn.Parameter(torch.zeros(inner.out_features, RANK))
            pairs[f"layers.{number}.{place}"] = (down, up)
            inner.register_forward_hook(
                lambda _own, given, out, a=down, b=up: out + (given[0] @ a.T @ b.T) * 2
            )
    for own in model.parameters():
        own.requires_grad_(requires_grad=False)
    weights = [one for pair in pairs.values() for one in pair]
    rows = [example(words, *one) for one in conversations(OF_ADAPTER)]
    print("adapter", learn(model, rows, weights, 3e-3, 0.01), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.model.{name}.lora_{side}.weight": weight.detach().contiguous()
        for name, (down, up) in pairs.items()
        for side, weight in (("A", down), ("B", up))
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none",
        "target_modules": [place.partition(".")[2] for place in PLACES], "base_model_name_or_path": "tiny",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(about))


def main(folder: Path) -> None:
    """Make model and adapter in *folder*."""
    torch.manual_seed(3)
    words = tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS // 2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    rows = [example(words, *one) for one in conversations(FACTS)]
    rows.append(example(words, CALLED, CALL, [TOOL]))
    print("model", learn(model, rows, list(model.parameters()), 2e-3, 0.004), flush=True)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    adapt(model, words, folder / "lora")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
