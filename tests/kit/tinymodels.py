"""Tiny models with random weights, one of each family, built offline and saved to a folder.

They say nothing sensible; they prove plumbing: padding, batching, cutting, loading. A folder is
laid out as a hub download (under 2 MB), so everything reads it through the Auto classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = [
    "a dog runs on the beach",
    "two people stand in front of a red house",
    "Describe this image in one short sentence.",
    "Write a one-sentence caption in English for this photo.",
]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT: dict[str, Any] = {
    **SMALL,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
VISION: dict[str, Any] = {
    **SMALL,
    "image_size": 56,
    "patch_size": 14,
    "initializer_range": 0.02,  # BLIP's own 1e-10 would make it blind
}
IMAGE_FIRST = (
    "{% for m in messages %}<|user|>{% for c in m.content %}{% if c.type == 'image' %}IMG"
    "{% endif %}{% endfor %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(*special: str, eos: str = "<|end|>", pad: str = "<pad>", **options: Any) -> Any:
    """A byte-level BPE of about 300 tokens; `special` come behind <pad>, the end and the turns."""
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokens = [pad, eos, "<|user|>", "<|assistant|>", *special]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, padding_side="left", pad_token=pad, eos_token=eos, **options
    )


def _save(folder: Path, model: Any, processor: Any) -> Path:
    spread(model)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def spread(model: Any) -> None:
    """Widen the weights: with the usual 0.02 the logits are flat and every image gets one text."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:
                parameter.mul_(6.0)


def _ids(tok: Any, **named: str) -> dict[str, int]:
    return {key: tok.convert_tokens_to_ids(token) for key, token in named.items()}


def _eos(tok: Any) -> dict[str, int]:
    return {"eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id, "bos_token_id": 1}


def _text(model_type: str, tok: Any) -> dict[str, Any]:
    """The config of a language model with the tokens of `tok`."""
    return {"model_type": model_type, **TEXT, "vocab_size": len(tok), **_eos(tok)}


def _clip_images(side: int) -> Any:
    """An image processor that squeezes every image into a square of `side` pixels."""
    from transformers import CLIPImageProcessor

    size = {"height": side, "width": side}
    return CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)


def _blip_parts() -> tuple[Any, Any]:
    """The config and the processor of a BLIP."""
    from transformers import BertTokenizerFast, BlipConfig, BlipImageProcessor, BlipProcessor

    words = sorted({word for line in SENTENCES for word in line.lower().strip(".").split()})
    letters = [*"abcdefghijklmnopqrstuvwxyz.-", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(specials + words + letters))}
    tok = BertTokenizerFast(vocab=vocab)
    text = {
        **SMALL,
        "vocab_size": len(vocab),
        "encoder_hidden_size": 32,
        "bos_token_id": vocab["[DEC]"],
        "sep_token_id": vocab["[SEP]"],
        "pad_token_id": vocab["[PAD]"],
        "eos_token_id": vocab["[SEP]"],
    }
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=32)
    images = BlipImageProcessor(size={"height": 56, "width": 56})
    return config, BlipProcessor(images, tok)


def blip(folder: Path) -> Path:
    from transformers import BlipForConditionalGeneration

    config, processor = _blip_parts()
    return _save(folder, BlipForConditionalGeneration(config), processor)


def smolvlm(
    folder: Path, words: tuple[str, ...] = (), lean: Callable[[Any, Any], None] | None = None
) -> Path:
    """`words` get tokens of their own; `lean(model, tokenizer)` changes the weights at the end."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    image_tokens = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>")
    grid = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    tok = tokenizer(
        *image_tokens,
        *grid,
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    tok.add_tokens(list(words))
    config = SmolVLMConfig(
        vision_config=VISION,
        text_config=_text("llama", tok),
        scale_factor=2,
        **_ids(tok, image_token_id="<image>", pad_token_id="<pad>"),
    )
    sizes = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        tok,
        SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=IMAGE_FIRST.replace("IMG", "<image>"),
    )
    model = SmolVLMForConditionalGeneration(config)
    saved = _save(folder, model, processor)
    if lean is not None:
        with torch.no_grad():
            lean(model, tok)
        model.save_pretrained(folder)
    return saved


def judge(folder: Path) -> Path:
    """A SmolVLM that begins its answers with Yes or No: one row of its head opposes the other."""

    def lean(model: Any, tok: Any) -> None:
        head = model.get_output_embeddings().weight
        yes, no = tok.convert_tokens_to_ids(["Yes", "No"])
        head.mul_(1e-4)
        head[yes] *= 1e5
        head[no] = -head[yes]

    torch.manual_seed(0)
    return smolvlm(folder, ("Yes", "No"), lean)


VERDICTS = ("supported.", "not supported.", "cannot tell.")


def claims_judge(folder: Path) -> Path:
    """A SmolVLM that answers with one of `VERDICTS`, and then ends."""

    def lean(model: Any, tok: Any) -> None:
        head, words = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        ids = tok.convert_tokens_to_ids(list(VERDICTS))
        end, turn = tok.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])
        head.mul_(0.05)
        head[:, 0] = 0
        head[ids] *= 20
        head[ids[2]] = -head[ids[0]] - head[ids[1]]
        # The first number of a state says "a verdict was given", which makes the end likely.
        head[end], head[end, 0] = 0, 100.0
        words[ids], words[turn, 0] = 0, -3.0
        words[ids, 0] = 100.0

    torch.manual_seed(0)
    return smolvlm(folder, VERDICTS, lean)


def blip_itm(folder: Path) -> Path:
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    torch.manual_seed(0)
    config, processor = _blip_parts()
    assert isinstance(processor, BlipProcessor)
    return _save(folder, BlipForImageTextRetrieval(config), processor)


def qwen2_vl(folder: Path) -> Path:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tok = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = _ids(
        tok,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **_text("qwen2_5_vl_text", tok),
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **ids,
    )
    pixels = {"min_pixels": 28 * 28 * 4, "max_pixels": 28 * 28 * 16}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**pixels),
        tok,
        Qwen2VLVideoProcessor(**pixels),
        chat_template=IMAGE_FIRST.replace("IMG", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return _save(folder, Qwen2_5_VLForConditionalGeneration(config), processor)


def llava(folder: Path) -> Path:
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tok = tokenizer("<image>", extra_special_tokens={"image_token": "<image>"})
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION, "projection_dim": 32},
        text_config=_text("llama", tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        _clip_images(56),
        tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=IMAGE_FIRST.replace("IMG", "<image>"),
    )
    return _save(folder, LlavaForConditionalGeneration(config), processor)


def fast_vlm(folder: Path) -> Path:
    from transformers import (
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaProcessor,
    )

    tok = tokenizer("<image>", extra_special_tokens={"image_token": "<image>"})
    config = FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "test_resnet",
            "do_pooling": True,
            "hidden_size": 96,
        },
        text_config=_text("qwen2", tok),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=9,
    )
    processor = LlavaProcessor(
        _clip_images(96),
        tok,
        patch_size=32,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=IMAGE_FIRST.replace("IMG", "<image>"),
    )
    return _save(folder, FastVlmForConditionalGeneration(config), processor)


def florence2(folder: Path) -> Path:
    from transformers import (
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tok = tokenizer(
        "<image>",
        "<s>",
        eos="</s>",
        bos_token="<s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    ids = _ids(tok, bos_token_id="<s>", eos_token_id="</s>", pad_token_id="<pad>")
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(tok),
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 512,
            "decoder_start_token_id": ids["eos_token_id"],
            "forced_bos_token_id": ids["bos_token_id"],
            **ids,
        },
        vision_config={
            "embed_dim": [8, 16, 16, 32],
            "num_heads": [1, 2, 2, 4],
            "num_groups": [1, 2, 2, 4],
            "depths": [1, 1, 1, 1],
            "window_size": 4,
            "projection_dim": 32,
            "max_temporal_embeddings": 4,
            "max_position_embeddings": 8,
        },
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        is_encoder_decoder=True,
        **ids,
    )
    images = _clip_images(64)
    images.image_seq_length = 5
    processor = Florence2Processor(images, tok, num_additional_image_tokens=1)
    return _save(folder, Florence2ForConditionalGeneration(config), processor)


def paligemma(folder: Path) -> Path:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tok = tokenizer(
        "<image>", "<bos>", bos_token="<bos>", extra_special_tokens={"image_token": "<image>"}
    )
    config = PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        text_config={**_text("gemma", tok), "head_dim": 8, "num_image_tokens": 16},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    images = SiglipImageProcessor(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    return _save(folder, PaliGemmaForConditionalGeneration(config), PaliGemmaProcessor(images, tok))


def blip2(folder: Path) -> Path:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    tok = tokenizer("<image>", "<s>", bos_token="<s>")
    text = {
        "model_type": "opt",
        "vocab_size": len(tok),
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        **_eos(tok),
    }
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**SMALL, "vocab_size": len(tok), "encoder_hidden_size": 32},
        text_config=text,
        num_query_tokens=4,
        image_text_hidden_size=32,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    images = BlipImageProcessor(size={"height": 56, "width": 56})
    processor = Blip2Processor(images, tok, num_query_tokens=4)
    return _save(folder, Blip2ForConditionalGeneration(config), processor)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "blip": blip,
    "blip2": blip2,
    "smolvlm": smolvlm,
    "qwen2_5_vl": qwen2_vl,
    "llava": llava,
    "fast_vlm": fast_vlm,
    "florence2": florence2,
    "paligemma": paligemma,
}
