"""Build the inputs of each family of transformers models, and find the start of the answer.

One small class per family. The differences (measured on transformers 5.23):

    family      prompt                                  generate() returns
    Chat        any instruction, by the chat template   prompt + answer
    Florence2   one of three task tokens                decoder start token + answer
    PaliGemma   "caption en", "describe en", or text    prompt + answer
    Blip        none, or a beginning to continue        beginning + answer
    Blip2       none, or a question in its own format   prompt + answer

Florence-2, PaliGemma and BLIP follow no instructions. For them the *preset* selects the task (the
`tasks` tables below); a preset without a task raises an error and is never silently replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image

from curator.captioners.examples import Example
from curator.captioners.prompts import preset_of
from curator.core.errors import UsageError
from curator.core.images import decode


class Family(Protocol):
    """Turns images and prompts into model inputs.

    `padding_side` is the side on which short prompts are padded: usually left, so that all answers
    start at the same position. `one_prompt_a_batch`: padding works on neither side, so a batch
    must have one prompt.
    """

    one_prompt_a_batch: bool
    padding_side: str

    def instruction(self, prompt: str) -> str:
        """Return the text that the model gets for `prompt`."""
        ...

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Return the keyword arguments of `generate`."""
        ...

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Return the position of the first new token in a row of `generate`'s output."""
        ...


def heads_of(system: str | None, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the turns before a request: the system prompt, and examples with their answers."""
    heads = [] if system is None else [_turn("system", system)]
    for example in examples:
        image = None if example.image is None else decode(example.image).image
        heads += [_turn("user", example.prompt, image), _turn("assistant", example.caption)]
    return heads


def _turn(role: str, text: str, image: Image.Image | None = None) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if image is not None:
        content.insert(0, {"type": "image", "image": image})
    return {"role": role, "content": content}


class Chat:
    """Every model with a chat template: SmolVLM, Idefics3, Qwen-VL, LLaVA, FastVLM, InternVL..."""

    one_prompt_a_batch = False
    padding_side = "left"

    def __init__(self, processor: Any, model: Any, heads: Sequence[Mapping[str, Any]] = ()) -> None:
        self._processor = processor
        self._encoder_decoder = bool(model.config.is_encoder_decoder)
        self._heads = heads

    def instruction(self, prompt: str) -> str:
        """Return the prompt unchanged."""
        return prompt

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Encode one user turn per image: the image, then the text; padded on the left."""
        turns = [
            [
                *self._heads,
                _turn("user", text, image),
            ]
            for image, text in zip(images, instructions, strict=True)
        ]
        inputs = self._processor.apply_chat_template(
            turns,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        return dict(inputs)

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Return the length of the prompt, or 1 (the start token) for an encoder-decoder."""
        return 1 if self._encoder_decoder else int(inputs["input_ids"].shape[1])


class _Tasks:
    """A family with a table of tasks: preset -> text."""

    family: ClassVar[str]
    tasks: ClassVar[Mapping[str, str]]
    free_text: ClassVar[str | None]
    one_prompt_a_batch = False
    padding_side = "left"

    def __init__(self, processor: Any, model: Any) -> None:
        self._processor = processor
        self._model = model

    def instruction(self, prompt: str) -> str:
        """Return the task of the preset behind `prompt`; a custom prompt unchanged, if allowed.

        Raises:
            UsageError: the family has no task for this preset, or takes no custom prompts.
        """
        preset = preset_of(prompt)
        if preset is not None and preset in self.tasks:
            return self.tasks[preset]
        if preset is None and self.free_text is not None:
            return prompt
        free = f", or {self.free_text}" if self.free_text else ""
        raise UsageError(
            f"{self.family} cannot follow the prompt {preset or prompt!r}",
            hint=f"use --prompt {' | '.join(self.tasks)}{free}; or a model with a chat template",
            reason="prompt.unsupported",
        )

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Encode images and texts with the processor."""
        inputs = dict(
            self._processor(
                images=list(images), text=list(instructions), return_tensors="pt", padding=True
            )
        )
        inputs.pop("labels", None)  # PaliGemma's processor adds them; generate refuses them
        return inputs

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Behind the prompt."""
        return int(inputs["input_ids"].shape[1])


class Florence2(_Tasks):
    """Florence-2, native class. Its longest task says most about where things are.

    Its encoder counts positions from the left including masked ones, so prompts are padded on the
    right; the answer comes from the decoder and is not affected.
    """

    family = "Florence-2"
    tasks: ClassVar[Mapping[str, str]] = {
        "short": "<CAPTION>",
        "detailed": "<DETAILED_CAPTION>",
        "spatial": "<MORE_DETAILED_CAPTION>",
    }
    free_text = None
    padding_side = "right"

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Return 1: the answer follows the decoder's start token, which is also its end token."""
        return 1


class PaliGemma(_Tasks):
    """PaliGemma 1 and 2: prefixes of its pretraining, with the language code."""

    family = "PaliGemma"
    tasks: ClassVar[Mapping[str, str]] = {"short": "caption en", "detailed": "describe en"}
    free_text = "a task of its own, e.g. 'answer en what is this?'"

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Encode with the image placeholder before the text."""
        return super().encode(images, [f"<image>{text}" for text in instructions])


class Blip(_Tasks):
    """BLIP, which continues a beginning such as "a photography of"; presets use none.

    `generate` overwrites the first prompt token and drops the last one, so padding on either side
    gives wrong results: one prompt per batch.
    """

    family = "BLIP"
    tasks: ClassVar[Mapping[str, str]] = {"short": ""}
    free_text = "the beginning of a caption, e.g. 'a photography of'"
    one_prompt_a_batch = True

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Encode images and texts; images alone when the beginning is empty."""
        if instructions[0]:
            return super().encode(images, instructions)
        return dict(self._processor(images=list(images), return_tensors="pt"))

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Return the length of the beginning less its last token (`generate` drops it), else 1."""
        return int(inputs["input_ids"].shape[1]) - 1 if "input_ids" in inputs else 1


class Blip2(Blip):
    """BLIP-2 without a chat template; "Question: ... Answer:" with the tuned ones."""

    family = "BLIP-2"
    free_text = "a beginning or a question, e.g. 'Question: what is this? Answer:'"

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> dict[str, Any]:
        """Encode images and texts; an empty text becomes the image tokens and a start token."""
        if instructions[0]:
            return _Tasks.encode(self, images, instructions)
        config = self._model.config
        row = [config.image_token_index] * config.num_query_tokens
        ids = torch.tensor([[*row, config.text_config.bos_token_id]]).repeat(len(images), 1)
        inputs = dict(self._processor.image_processor(list(images), return_tensors="pt"))
        return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def answer_start(self, inputs: Mapping[str, Any]) -> int:
        """Return the length of the prompt, or 1 for a T5 decoder, which has only a start token."""
        if self._model.config.text_config.is_encoder_decoder:
            return 1
        return int(inputs["input_ids"].shape[1])


_BY_MODEL_TYPE: Mapping[str, type[_Tasks]] = {
    "blip": Blip,
    "blip-2": Blip2,
    "florence2": Florence2,
    "paligemma": PaliGemma,
}


def family_of(processor: Any, model: Any, heads: Sequence[Mapping[str, Any]] = ()) -> Family:
    """Return the family of a loaded model; `heads` are the turns before each request.

    Raises:
        UsageError: the model has no chat template and is not of a known family, or it takes no
            such turns.
    """
    model_type = model.config.model_type
    if model_type in _BY_MODEL_TYPE:
        if heads:
            raise UsageError(
                f"model type {model_type!r} takes no system prompt and no examples",
                hint="drop --system and --examples; or take a model with a chat template",
                reason="prompt.unsupported",
            )
        return _BY_MODEL_TYPE[model_type](processor, model)
    if getattr(processor, "chat_template", None):
        return Chat(processor, model, heads)
    raise UsageError(
        f"model type {model_type!r} has no chat template, so how to ask it is unknown",
        hint=f"a model with a chat template works, and: {', '.join(sorted(_BY_MODEL_TYPE))}; "
        "or run it in a server and use --captioner server",
        reason="model.unsupported",
    )


def eos_token_ids(model: Any) -> list[int]:
    """Return the end token ids, from the same config that `generate` reads."""
    if model.config.model_type == "blip":  # its generate() passes this one explicitly
        return [int(model.config.text_config.sep_token_id)]
    found = getattr(model, "language_model", model).generation_config.eos_token_id
    if model.config.model_type != "blip-2":
        found = model.generation_config.eos_token_id
    if found is None:
        return []
    return [int(found)] if isinstance(found, int) else [int(token) for token in found]


def answer_ids(row: Sequence[int], eos: Sequence[int]) -> tuple[list[int], bool]:
    """Return the tokens of one row before the first end token, and whether there was one."""
    for position, token in enumerate(row):
        if token in eos:
            return list(row[:position]), True
    return list(row), False
