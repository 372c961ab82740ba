"""Caption with a vision-language model in this process, through transformers' Auto classes.

One code path for all families (`curator.captioners.families` has the differences): decode images in
threads, pad prompts, `generate`, decode the new tokens. In fp32 a batch gives the same captions as
its items alone (tests/contracts/test_captioners.py, on tiny models of eight families); in bf16 and
fp16 rounding depends on the batch, so near ties can go either way.

Only safetensors are loaded, and no code of a model repository is run. The model's own
generation_config applies (end tokens, repetition penalty), except that `Sampling` sets the sampling
and beam search is off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.answers import split_reasoning
from curator.captioners.examples import Example
from curator.captioners.families import Family, answer_ids, eos_token_ids, family_of, heads_of
from curator.captioners.options import Sampling
from curator.captioners.pixels import DecodePool
from curator.captioners.sampling import BROKEN_LOGITS, Drawer, DrawProcessor, has_zero_run
from curator.core import models
from curator.core.devices import choose_device, choose_dtype
from curator.core.errors import EngineError
from curator.core.text import strip_special_tokens

_DEFAULT_SAMPLING = Sampling()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """How likely a model is to begin its answer with each of some texts.

    `of` has one probability per text, in their order; `leading` are the ids of the likeliest first
    tokens, the likeliest first.
    """

    of: tuple[float, ...]
    leading: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _DecodedRequest:
    """A request with its decoded image and the text that the model gets."""

    request: CaptionRequest
    image: Image.Image
    instruction: str


class LocalCaptioner:
    """Captions with `model`: a local folder, or `org/name` on the hub at `revision`.

    `dtype` (fp32, bf16, fp16) defaults to the best one of the device; the attributes `device` and
    `dtype` are the chosen ones. Special tokens of the model's tokenizer are removed from prompts.

    Raises:
        UsageError: no safetensors, unknown model type, or a model that needs its own code.
        NotFoundError: no such folder, repository or revision.
        EngineError: the hub cannot be reached, or the model cannot be loaded from its files.
    """

    def __init__(
        self,
        *,
        model: str,
        sampling: Sampling = _DEFAULT_SAMPLING,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        system: str | None = None,
        examples: Sequence[Example] = (),
    ) -> None:
        self._heads = heads_of(system, examples)
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._sampling = sampling
        self._folder = str(models.locate(model, revision=revision))
        self._processor = self._load_processor()
        self._tokenizer = self._processor.tokenizer
        self._special_tokens = _special_tokens(self._tokenizer)
        self._images = DecodePool()
        self._load_model()

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start decoding the images of the next batch."""
        self._images.prefetch(requests)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Caption every request, in order. A failure affects only its own request.

        Failures: `image.*` from decoding, `vlm.garbage` for broken logits, `vlm.oom` when a single
        image does not fit into memory, `engine.error` when the processor refuses an image.

        Raises:
            UsageError: the model cannot follow this prompt.
        """
        return self._each(requests, self._generate)

    def likelihoods(
        self,
        requests: Sequence[CaptionRequest],
        answers: Sequence[tuple[int, ...]],
        num_leading: int,
    ) -> list[Likelihoods | CaptionFailure]:
        """Return how likely each of `answers`, lists of token ids, begins the answer to a request.

        The probabilities are those of the whole vocabulary, without `Sampling`. Failures and errors
        as in `caption`.
        """
        return self._each(requests, partial(self._weigh, answers=answers, num_leading=num_leading))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self._tokenizer

    def _each(
        self,
        requests: Sequence[CaptionRequest],
        work: Callable[[Sequence[_DecodedRequest]], list[T | CaptionFailure]],
    ) -> list[T | CaptionFailure]:
        """Decode the images and apply `work` to batches of requests; return outcomes in order."""
        outcomes: dict[int, T | CaptionFailure] = {}
        groups: defaultdict[str, list[tuple[int, _DecodedRequest]]] = defaultdict(list)
        for position, image in enumerate(self._images.take(requests)):
            if isinstance(image, CaptionFailure):
                outcomes[position] = image
                continue
            instruction = self._instruction(requests[position].prompt)
            item = _DecodedRequest(requests[position], image, instruction)
            key = instruction if self._family.one_prompt_a_batch else ""
            groups[key].append((position, item))
        for group in groups.values():
            answers = self._halving([item for _, item in group], work)
            outcomes.update(zip((position for position, _ in group), answers, strict=True))
        return [outcomes[position] for position in range(len(requests))]

    def to_fp32(self) -> bool:
        """Reload the weights in fp32; return false if they are in fp32 already."""
        if self.dtype == torch.float32:
            return False
        self.dtype = torch.float32
        self._load_model()
        return True

    def _instruction(self, prompt: str) -> str:
        """Clean the prompt, then add task tokens such as <CAPTION>, which cleaning would remove."""
        clean, _ = strip_special_tokens(prompt, self._special_tokens)
        return self._family.instruction(clean)

    def _halving(
        self,
        items: Sequence[_DecodedRequest],
        work: Callable[[Sequence[_DecodedRequest]], list[T | CaptionFailure]],
    ) -> list[T | CaptionFailure]:
        """Return one outcome per item; halve a failing batch until the failing item is alone."""
        try:
            return work(items)
        except torch.OutOfMemoryError as error:
            failure = CaptionFailure("vlm.oom", f"batch of 1: {str(error).splitlines()[0]}"[:500])
        except ValueError as error:  # raised by processors, e.g. for an extreme aspect ratio
            failure = CaptionFailure("engine.error", f"refused by the processor: {error}"[:500])
        # Outside of `except`: the traceback would keep the tensors of the failed batch alive.
        if len(items) == 1:
            return [failure]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(items) // 2
        return self._halving(items[:half], work) + self._halving(items[half:], work)

    def _generate(self, items: Sequence[_DecodedRequest]) -> list[Caption | CaptionFailure]:
        inputs = self._inputs(items)
        requests = [item.request for item in items]
        eos = torch.tensor(self._eos, dtype=torch.long, device=self.device)
        draw = DrawProcessor(Drawer(self._sampling, requests, self.device), eos, len(items))
        with torch.inference_mode():
            output_BT = self._model.generate(
                **inputs,
                max_new_tokens=self._sampling.max_tokens,
                do_sample=False,  # `draw` does the sampling
                num_beams=1,
                logits_processor=[draw],
                **_NO_WARPING,
            )
        rows_BT = output_BT[:, self._family.answer_start(inputs) :].tolist()
        broken = draw.broken_B.tolist()
        return [
            BROKEN_LOGITS if broken[i] else self._caption(request, rows_BT[i])
            for i, request in enumerate(requests)
        ]

    def _weigh(
        self,
        items: Sequence[_DecodedRequest],
        *,
        answers: Sequence[tuple[int, ...]],
        num_leading: int,
    ) -> list[Likelihoods | CaptionFailure]:
        """Return the probabilities of the answers: one pass, and one for each of several tokens.

        `generate` is led along each answer instead of a plain forward pass, so that positions and
        masks of padded prompts are those of captioning, whatever the family.
        """
        inputs = self._inputs(items)
        first_BV = self._led(inputs, ())[0].softmax(-1)
        columns_B = []
        for answer in answers:
            likelihood_B = first_BV[:, answer[0]]
            if len(answer) > 1:
                for step, logits_BV in enumerate(self._led(inputs, answer[:-1])[1:], start=1):
                    likelihood_B = likelihood_B * logits_BV.softmax(-1)[:, answer[step]]
            columns_B.append(likelihood_B)
        rows = torch.stack(columns_B, dim=-1).tolist()
        leading = first_BV.topk(min(num_leading, first_BV.shape[-1])).indices.tolist()
        finite = torch.isfinite(first_BV).all(-1).tolist()
        return [
            Likelihoods(tuple(row), tuple(ids)) if is_finite else BROKEN_LOGITS
            for row, ids, is_finite in zip(rows, leading, finite, strict=True)
        ]

    def _led(self, inputs: Mapping[str, Any], path: Sequence[int]) -> list[Tensor]:
        """Return the logits `[B, V]` (fp32) of each step while the tokens of `path` are taken."""
        with torch.inference_mode():
            found = self._model.generate(
                **inputs,
                max_new_tokens=len(path) + 1,
                do_sample=False,
                num_beams=1,
                logits_processor=[_Lead(path)],
                output_logits=True,
                return_dict_in_generate=True,
                **_NO_WARPING,
            )
        return [logits_BV.float() for logits_BV in found.logits]

    def _inputs(self, items: Sequence[_DecodedRequest]) -> dict[str, Any]:
        encoded = self._family.encode(
            [item.image for item in items], [item.instruction for item in items]
        )
        return {name: self._to_device(value) for name, value in encoded.items()}

    def _caption(self, request: CaptionRequest, row: list[int]) -> Caption | CaptionFailure:
        ids, ended = answer_ids(row, self._eos)
        if has_zero_run(ids):
            return CaptionFailure("vlm.garbage", "a run of token 0")
        text = self._text(ids)
        seed = self._sampling.seed_of(request.candidate)
        return Caption(text, "stop" if ended else "length", len(ids), seed)

    def _text(self, ids: list[int]) -> str:
        """Decode a caption; keeps reasoning tags, which are special tokens in some models."""
        reasoning, answer = split_reasoning(self._tokenizer.decode(ids))
        if reasoning:
            answer, _ = strip_special_tokens(answer, self._special_tokens)
            return f"<think>{reasoning}</think>{answer}"
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self.dtype if value.is_floating_point() else None)

    def _load_processor(self) -> Any:
        with loading(self._folder):
            processor: Any = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]  # theirs
                self._folder, trust_remote_code=False, local_files_only=True
            )
            if not hasattr(processor, "tokenizer"):  # AutoProcessor falls back to what it finds
                raise ValueError(f"found a {type(processor).__name__}, not a processor for images")
        return processor

    def _load_model(self) -> None:
        model = load_model(AutoModelForImageTextToText, self._folder, self.dtype)
        self._model = model.to(self.device).eval()
        self._family: Family = family_of(self._processor, self._model, self._heads)
        self._tokenizer.padding_side = self._family.padding_side
        self._eos = eos_token_ids(self._model)


class _Lead(transformers.LogitsProcessor):
    """Makes `generate` take the tokens of `path`, one a step; then it is free."""

    def __init__(self, path: Sequence[int]) -> None:
        self._path = list(path)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with which the next token of the path wins."""
        if not self._path:
            return scores
        led = torch.full_like(scores, -torch.inf)
        led[:, self._path.pop(0)] = 0.0
        return led


# `Sampling` sets how tokens are drawn; the checkpoint's own values would only cause warnings.
_NO_WARPING = {"temperature": None, "top_p": None, "top_k": None}


def _special_tokens(tokenizer: Any) -> list[str]:
    """Return the tokenizer's special tokens, except ordinary text (some models pad with "!")."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    tokens = {*tokenizer.all_special_tokens, *added}
    return sorted(token for token in tokens if set(token) & set("<>[]|"))


@contextmanager
def loading(folder: str) -> Iterator[None]:
    """Convert what transformers raises while loading `folder` to an EngineError."""
    # The command has its own progress bar.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        first_line = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        raise EngineError(
            f"transformers {transformers.__version__} cannot load the model "
            f"({type(error).__name__}: {first_line})",
            where=folder,
            hint="models with their own code are not run here; use a server: --captioner server",
            reason="model.load",
        ) from error


def load_model(auto: Any, folder: str, dtype: torch.dtype) -> Any:
    """Return the model in `folder` as transformers' class `auto` builds it, on the CPU.

    Only safetensors, no code of the repository, and no weight may be missing.

    Raises:
        EngineError: it cannot be loaded, or its weights are not complete.
    """
    with loading(folder):
        model, info = auto.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    _check_complete(folder, info)
    return model


def _check_complete(folder: str, info: Mapping[str, Any]) -> None:
    """Raise if weights are missing: transformers only warns and initializes them randomly."""
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise EngineError(
            f"{len(missing)} weights are not in the checkpoint, e.g. {missing[0]}",
            where=folder,
            did="the model was not used: its missing weights would be random",
            reason="model.load",
        )
